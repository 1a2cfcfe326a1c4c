// The ego motion of the last moments, by time.
#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

#include "imkd/frames.hpp"

namespace imkd {

// The pose a share (0..1) of the way from one pose to another: straight, and turning at a constant rate. None for half
// a turn or more.
std::optional<Mat4> between(const Mat4& T_world_a, const Mat4& T_world_b, double share);

class EgoTrail {
 public:
  struct Entry {
    std::int64_t timestamp_ns;
    Ego ego;
  };
  bool has(std::int64_t timestamp_ns) const;
  // False where it contradicts a newer pose. A newest pose that contradicts the one before forgets what is older.
  bool add(std::int64_t timestamp_ns, const Ego& ego);
  Ego at(std::int64_t timestamp_ns) const;  // either part may be missing
  void forget(std::int64_t before_ns);      // but for what interpolation at that time needs
  void clear() { entries_.clear(); }
  std::size_t size() const { return entries_.size(); }
  const Entry* newest() const { return entries_.empty() ? nullptr : &entries_.back(); }

 private:
  std::optional<Mat4> carried_on(const Entry& from, std::optional<Vec3> twist, double seconds) const;
  std::optional<Vec3> twist_of_poses(const Entry& entry) const;
  std::deque<Entry> entries_;  // rising times
};

}  // namespace imkd
