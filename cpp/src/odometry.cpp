#include "odometry.hpp"

#include "imkd/ego_motion.hpp"
#include "imkd/rig.hpp"
#include "time_ns.hpp"

namespace imkd {
namespace {

// Exactly rigid poses, so that errors do not grow from frame to frame.
Ego usable_part(const Ego& ego) {
  Ego usable;
  if (ego.T_world_ego && is_rigid(*ego.T_world_ego)) {
    const Mat4& T = *ego.T_world_ego;
    usable.T_world_ego = rigid(rotation_vector(T), {T[3], T[7], T[11]});
  }
  if (ego.twist && is_possible(*ego.twist)) usable.twist = ego.twist;
  return usable;
}

}  // namespace

std::optional<Mat4> Odometry::step(std::int64_t timestamp_ns, const Ego& ego) const {
  if (!now_ns_) return std::nullopt;
  if (anchor_ && ego.T_world_ego && minus_ns(timestamp_ns, anchor_->timestamp_ns) <= kMaxPoseGap)
    if (const auto T = motion_between({anchor_->T_world_ego, {}}, {ego.T_world_ego, {}},
                                      seconds_between(anchor_->timestamp_ns, timestamp_ns)))
      return compose(anchor_->T_odom_ego, *T);
  const bool recent = twist_ && minus_ns(timestamp_ns, twist_ns_) <= kMaxPoseGap;
  const auto T =
      motion_between({{}, recent ? twist_ : std::nullopt}, {{}, ego.twist}, seconds_between(*now_ns_, timestamp_ns));
  if (!T) return std::nullopt;
  return compose(T_odom_ego_, *T);
}

Odometry::Step Odometry::advance(std::int64_t timestamp_ns, const Ego& motion) {
  const Ego ego = usable_part(motion);
  const std::optional<Mat4> T = step(timestamp_ns, ego);
  if (T) T_odom_ego_ = *T;
  now_ns_ = timestamp_ns;
  if (ego.T_world_ego) anchor_ = Anchor{timestamp_ns, *ego.T_world_ego, T_odom_ego_};
  if (ego.twist) {
    twist_ = ego.twist;
    twist_ns_ = timestamp_ns;
  }
  return T ? Step::motion : ego.T_world_ego || ego.twist ? Step::start : Step::none;
}

}  // namespace imkd
