// The recent ego motion, by time.
#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

#include "imkd/frames.hpp"

namespace imkd {

class EgoTrail {
 public:
  struct Entry {
    std::int64_t timestamp_ns;
    Ego ego;
  };
  bool has(std::int64_t timestamp_ns, const Ego& ego) const;  // whether the given parts of that time are present
  // Adds the parts that are not present at that time. False where the pose contradicts a newer one. A newest pose that
  // contradicts the pose before it discards all older poses; the twists stay.
  bool add(std::int64_t timestamp_ns, const Ego& ego);
  Ego at(std::int64_t timestamp_ns) const;  // pose and twist; either may be absent
  // Keeps what an interpolation at that time needs.
  void discard_before(std::int64_t timestamp_ns);
  void clear() { entries_.clear(); }
  std::size_t size() const { return entries_.size(); }
  const Entry* newest() const { return entries_.empty() ? nullptr : &entries_.back(); }

 private:
  void discard_poses();
  std::optional<Mat4> pose_at(std::int64_t timestamp_ns, const std::optional<Vec3>& nearest_twist) const;
  std::optional<Mat4> extrapolate(const Entry& entry, std::optional<Vec3> twist, double seconds) const;
  std::optional<Vec3> twist_from_poses(const Entry& entry) const;
  std::deque<Entry> entries_;  // sorted by time
};

}  // namespace imkd
