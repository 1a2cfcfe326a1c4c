#include "ego_trail.hpp"

#include <algorithm>
#include <cmath>

#include "time_ns.hpp"

namespace imkd {
namespace {

constexpr std::size_t kMaxEntries = 1024;
constexpr std::int64_t kGap = 500'000'000;    // ns between two poses that are interpolated
constexpr std::int64_t kReach = 100'000'000;  // ns that a pose is carried on, and that a twist holds
constexpr double kFastest = 100;              // m/s; more is a jump of the pose, not a motion

double seconds(std::int64_t from_ns, std::int64_t to_ns) {
  return static_cast<double>(minus_ns(to_ns, from_ns)) * 1e-9;
}

bool plausible(const EgoTrail::Entry& a, const EgoTrail::Entry& b) {
  if (!a.ego.T_world_ego || !b.ego.T_world_ego) return true;
  const Mat4 &A = *a.ego.T_world_ego, &B = *b.ego.T_world_ego;
  const double moved = std::hypot(B[3] - A[3], B[7] - A[7], B[11] - A[11]);
  return moved <= 1 + kFastest * std::abs(seconds(a.timestamp_ns, b.timestamp_ns));  // 1 m: noise of close poses
}

}  // namespace

std::optional<Mat4> between(const Mat4& T_world_a, const Mat4& T_world_b, double share) {
  const Mat4 T = compose(inverse_rigid(T_world_a), T_world_b);
  const Vec3 v{(T[9] - T[6]) / 2, (T[2] - T[8]) / 2, (T[4] - T[1]) / 2};  // axis * sin(angle)
  const double sine = std::hypot(v[0], v[1], v[2]), angle = std::atan2(sine, (T[0] + T[5] + T[10] - 1) / 2);
  if (angle > 3) return std::nullopt;
  const double x = sine > 0 ? v[0] / sine : 0, y = sine > 0 ? v[1] / sine : 0, z = sine > 0 ? v[2] / sine : 0;
  const double s = std::sin(share * angle), c = std::cos(share * angle), k = 1 - c;  // Rodrigues' formula
  // clang-format off
  return compose(T_world_a, {c + k * x * x, k * x * y - s * z, k * x * z + s * y, share * T[3],
                             k * x * y + s * z, c + k * y * y, k * y * z - s * x, share * T[7],
                             k * x * z - s * y, k * y * z + s * x, c + k * z * z, share * T[11],
                             0, 0, 0, 1});
  // clang-format on
}

bool EgoTrail::has(std::int64_t timestamp_ns) const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [=](const Entry& entry) { return entry.timestamp_ns == timestamp_ns; });
}

bool EgoTrail::add(std::int64_t timestamp_ns, const Ego& ego) {
  const Entry entry{timestamp_ns, ego};
  const auto posed = [](const Entry& e) { return e.ego.T_world_ego.has_value(); };
  const auto later =
      std::find_if(entries_.begin(), entries_.end(), [=](const Entry& e) { return e.timestamp_ns > timestamp_ns; });
  const auto next = std::find_if(later, entries_.end(), posed);
  if (next != entries_.end() && !plausible(entry, *next)) return false;
  const auto last = std::find_if(entries_.rbegin(), entries_.rend(), posed);
  if (next == entries_.end() && last != entries_.rend() && !plausible(*last, entry)) {
    entries_.assign(1, entry);
    return true;
  }
  entries_.insert(later, entry);
  if (entries_.size() > kMaxEntries) entries_.pop_front();
  return true;
}

// The one from an entry's pose to the nearest other pose, where that is not too far away. Entries of twists alone may
// lie between.
std::optional<Vec3> EgoTrail::twist_of_poses(const Entry& entry) const {
  const Entry* nearest = nullptr;
  std::int64_t best = kGap + 1;
  for (const Entry& other : entries_) {
    const std::int64_t off = distance_ns(entry.timestamp_ns, other.timestamp_ns);
    if (&other != &entry && other.ego.T_world_ego && off < best) best = off, nearest = &other;
  }
  if (!nearest) return std::nullopt;
  const Mat4 moved = compose(inverse_rigid(*entry.ego.T_world_ego), *nearest->ego.T_world_ego);
  return twist_between(moved, seconds(entry.timestamp_ns, nearest->timestamp_ns));
}

// The pose of an entry, moved on at its own twist, else at the given one, else at that of the poses.
std::optional<Mat4> EgoTrail::carried_on(const Entry& from, std::optional<Vec3> twist, double time) const {
  if (from.ego.twist) twist = from.ego.twist;
  if (!twist) twist = twist_of_poses(from);
  if (!twist) return std::nullopt;
  return compose(*from.ego.T_world_ego, after(*twist, time));
}

Ego EgoTrail::at(std::int64_t time) const {
  Ego found;
  std::optional<std::size_t> before, behind;  // the poses around that time
  std::int64_t nearest = kReach + 1;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    const std::int64_t off = distance_ns(time, entry.timestamp_ns);
    if (entry.ego.twist && off < nearest) nearest = off, found.twist = entry.ego.twist;
    if (!entry.ego.T_world_ego) continue;
    if (entry.timestamp_ns <= time) before = i;
    if (entry.timestamp_ns >= time && !behind) behind = i;
  }
  if (before && behind && minus_ns(entries_[*behind].timestamp_ns, entries_[*before].timestamp_ns) <= kGap) {
    const Entry &a = entries_[*before], &b = entries_[*behind];
    const double span = seconds(a.timestamp_ns, b.timestamp_ns);
    if (span == 0)
      found.T_world_ego = a.ego.T_world_ego;
    else
      found.T_world_ego = between(*a.ego.T_world_ego, *b.ego.T_world_ego, seconds(a.timestamp_ns, time) / span);
    return found;
  }
  for (const auto& side : {before, behind})
    if (side && !found.T_world_ego && distance_ns(time, entries_[*side].timestamp_ns) <= kReach)
      found.T_world_ego = carried_on(entries_[*side], found.twist, seconds(entries_[*side].timestamp_ns, time));
  return found;
}

void EgoTrail::forget(std::int64_t before_ns) {
  while (!entries_.empty() && minus_ns(before_ns, entries_.front().timestamp_ns) > kGap) entries_.pop_front();
}

}  // namespace imkd
