#include "ego_trail.hpp"

#include <algorithm>

#include "imkd/ego_motion.hpp"
#include "time_ns.hpp"

namespace imkd {
namespace {

constexpr std::size_t kMaxEntries = 1024;
constexpr std::int64_t kMaxGap = 500'000'000;            // ns between two poses that are interpolated
constexpr std::int64_t kMaxExtrapolation = 100'000'000;  // ns from a pose or a twist to the time that it is used for

bool plausible(const EgoTrail::Entry& a, const EgoTrail::Entry& b) {
  if (!a.ego.T_world_ego || !b.ego.T_world_ego) return true;
  return !is_jump(*a.ego.T_world_ego, *b.ego.T_world_ego, seconds_between(a.timestamp_ns, b.timestamp_ns));
}

}  // namespace

bool EgoTrail::has(std::int64_t timestamp_ns, const Ego& ego) const {
  return std::any_of(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    return entry.timestamp_ns == timestamp_ns && (entry.ego.T_world_ego || !ego.T_world_ego) &&
           (entry.ego.twist || !ego.twist);
  });
}

bool EgoTrail::add(std::int64_t timestamp_ns, const Ego& ego) {
  Entry entry{timestamp_ns, ego};
  const auto has_pose = [](const Entry& e) { return e.ego.T_world_ego.has_value(); };
  const auto at =
      std::find_if(entries_.begin(), entries_.end(), [=](const Entry& e) { return e.timestamp_ns >= timestamp_ns; });
  const bool present = at != entries_.end() && at->timestamp_ns == timestamp_ns;
  if (present && at->ego.T_world_ego) entry.ego.T_world_ego = at->ego.T_world_ego;
  if (present && at->ego.twist) entry.ego.twist = at->ego.twist;

  const auto next_pose = std::find_if(present ? at + 1 : at, entries_.end(), has_pose);
  if (next_pose != entries_.end() && !plausible(entry, *next_pose)) return false;
  const auto last_pose = std::find_if(entries_.rbegin(), entries_.rend(), has_pose);
  if (next_pose == entries_.end() && last_pose != entries_.rend() && !plausible(*last_pose, entry)) {
    discard_poses();
    return add(timestamp_ns, ego);
  }

  if (present)
    *at = entry;
  else
    entries_.insert(at, entry);
  if (entries_.size() > kMaxEntries) entries_.pop_front();
  return true;
}

void EgoTrail::discard_poses() {
  for (Entry& entry : entries_) entry.ego.T_world_ego.reset();
  const auto empty = [](const Entry& entry) { return !entry.ego.twist; };
  entries_.erase(std::remove_if(entries_.begin(), entries_.end(), empty), entries_.end());
}

// From an entry's pose to the nearest other pose from kMinPoseGap to kMaxGap away; other entries may lie between them.
std::optional<Vec3> EgoTrail::twist_from_poses(const Entry& entry) const {
  const Entry* nearest = nullptr;
  std::int64_t best_distance = kMaxGap + 1;
  for (const Entry& other : entries_) {
    const std::int64_t distance = distance_ns(entry.timestamp_ns, other.timestamp_ns);
    if (!other.ego.T_world_ego || distance < kMinPoseGap || distance >= best_distance) continue;
    best_distance = distance;
    nearest = &other;
  }
  if (!nearest) return std::nullopt;
  const Mat4 T_entry_nearest = relative(*entry.ego.T_world_ego, *nearest->ego.T_world_ego);
  const Vec3 twist = twist_between(T_entry_nearest, seconds_between(entry.timestamp_ns, nearest->timestamp_ns));
  return is_possible(twist) ? std::optional(twist) : std::nullopt;
}

// The pose of an entry after so many seconds, at the first of: the entry's twist, the given twist, the twist from
// poses.
std::optional<Mat4> EgoTrail::extrapolate(const Entry& entry, std::optional<Vec3> twist, double seconds) const {
  if (entry.ego.twist) twist = entry.ego.twist;
  if (!twist) twist = twist_from_poses(entry);
  if (!twist) return std::nullopt;
  return compose(*entry.ego.T_world_ego, after(*twist, seconds));
}

Ego EgoTrail::at(std::int64_t timestamp_ns) const {
  Ego ego;
  std::int64_t best_distance = kMaxExtrapolation + 1;
  for (const Entry& entry : entries_) {
    const std::int64_t distance = distance_ns(timestamp_ns, entry.timestamp_ns);
    if (!entry.ego.twist || distance >= best_distance) continue;
    best_distance = distance;
    ego.twist = entry.ego.twist;
  }
  ego.T_world_ego = pose_at(timestamp_ns, ego.twist);
  return ego;
}

std::optional<Mat4> EgoTrail::pose_at(std::int64_t timestamp_ns, const std::optional<Vec3>& nearest_twist) const {
  const Entry *before = nullptr, *behind = nullptr;  // the nearest poses on both sides; one that fits exactly is both
  for (const Entry& entry : entries_) {
    if (!entry.ego.T_world_ego) continue;
    if (entry.timestamp_ns <= timestamp_ns) before = &entry;
    if (entry.timestamp_ns >= timestamp_ns && !behind) behind = &entry;
  }

  if (before && behind && minus_ns(behind->timestamp_ns, before->timestamp_ns) <= kMaxGap) {
    const double span = seconds_between(before->timestamp_ns, behind->timestamp_ns);
    if (span == 0) return before->ego.T_world_ego;
    const double fraction = seconds_between(before->timestamp_ns, timestamp_ns) / span;
    return interpolate(*before->ego.T_world_ego, *behind->ego.T_world_ego, fraction);
  }

  for (const Entry* side : {before, behind}) {
    if (!side || distance_ns(timestamp_ns, side->timestamp_ns) > kMaxExtrapolation) continue;
    const auto pose = extrapolate(*side, nearest_twist, seconds_between(side->timestamp_ns, timestamp_ns));
    if (pose) return pose;
  }
  return std::nullopt;
}

void EgoTrail::discard_before(std::int64_t timestamp_ns) {
  while (!entries_.empty() && minus_ns(timestamp_ns, entries_.front().timestamp_ns) > kMaxGap) entries_.pop_front();
}

}  // namespace imkd
