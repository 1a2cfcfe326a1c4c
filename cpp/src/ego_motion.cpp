#include "imkd/ego_motion.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "imkd/ops.hpp"
#include "time_ns.hpp"

namespace imkd {
namespace {

constexpr std::int64_t kBestPoseGap = 50'000'000;  // ns between two poses that give a twist; more, and it changes

}  // namespace

bool is_possible(const Vec3& twist) {
  // A NaN fails either comparison.
  return std::hypot(twist[0], twist[1]) <= kMaxEgoSpeed && std::abs(twist[2]) <= kMaxYawRate;
}

bool is_jump(const Mat4& a, const Mat4& b, double seconds) {
  const double distance = std::hypot(b[3] - a[3], b[7] - a[7], b[11] - a[11]);
  return !(distance <= kPoseNoise + kMaxEgoSpeed * std::abs(seconds));  // a distance that is no number is a jump
}

bool EgoMotion::Pose::operator<(const Pose& other) const {
  if (timestamp_ns != other.timestamp_ns) return timestamp_ns < other.timestamp_ns;
  if (reference != other.reference) return reference;
  return T < other.T;  // any order that does not depend on that of the sweeps
}

void EgoMotion::reserve(std::size_t cameras, std::size_t sweeps) {
  poses_.reserve(1 + cameras + sweeps);
  exposures_.reserve(cameras);
}

void EgoMotion::collect_poses(const FrameSet& frames) {
  poses_.clear();
  if (frames.ego.T_world_ego) poses_.push_back({frames.timestamp_ns, true, *frames.ego.T_world_ego});
  for (const RadarSweep& sweep : frames.sweeps)
    if (sweep.T_world_ego) poses_.push_back({sweep.timestamp_ns, false, *sweep.T_world_ego});
  for (std::size_t i = 0; i < frames.camera_T_world_ego.size(); ++i)
    if (frames.camera_T_world_ego[i]) poses_.push_back({frames.camera_time(i), false, *frames.camera_T_world_ego[i]});

  std::sort(poses_.begin(), poses_.end());
  const auto same = [](const Pose& a, const Pose& b) { return a.timestamp_ns == b.timestamp_ns; };
  poses_.erase(std::unique(poses_.begin(), poses_.end(), same), poses_.end());
}

// Of two at the same distance the earlier; null without poses.
const EgoMotion::Pose* EgoMotion::nearest_pose(std::int64_t timestamp_ns) const {
  const auto distance = [=](const Pose& pose) { return distance_ns(pose.timestamp_ns, timestamp_ns); };
  const auto nearest = std::min_element(poses_.begin(), poses_.end(),
                                        [&](const Pose& a, const Pose& b) { return distance(a) < distance(b); });
  return nearest == poses_.end() ? nullptr : &*nearest;
}

std::optional<Vec3> EgoMotion::twist_of_poses() const {
  const Pose* from = nearest_pose(reference_ns_);
  const Pose* to = nullptr;
  std::int64_t best = std::numeric_limits<std::int64_t>::max();
  for (const Pose& pose : poses_) {
    const std::int64_t gap = distance_ns(pose.timestamp_ns, from->timestamp_ns);
    const std::int64_t off = distance_ns(gap, kBestPoseGap);
    if (gap < kMinPoseGap || gap > kMaxPoseGap || off >= best) continue;
    best = off;
    to = &pose;
  }
  if (!to) return std::nullopt;
  const Vec3 twist = twist_between(relative(from->T, to->T), seconds_between(from->timestamp_ns, to->timestamp_ns));
  return is_possible(twist) ? std::optional(twist) : std::nullopt;
}

void EgoMotion::estimate_speed(const SensorRig& rig, const FrameSet& frames, double max_age) {
  const EgoSpeed estimate = estimate_ego_speed(rig, frames.sweeps.data(), static_cast<int>(frames.sweeps.size()),
                                               frames.timestamp_ns, max_age);
  if (!estimate.valid) return;
  ego_.twist = Vec3{estimate.speed, 0, 0};
  estimated_ = true;
  residual_ = estimate.residual;
}

// The reference ego frame in that of the nearest pose.
std::optional<Mat4> EgoMotion::T_anchor_ref(const Pose& anchor) const {
  if (anchor.timestamp_ns == reference_ns_) return identity4();
  const auto later =
      std::find_if(poses_.begin(), poses_.end(), [&](const Pose& pose) { return pose.timestamp_ns > reference_ns_; });
  if (later != poses_.begin() && later != poses_.end()) {
    const Pose& earlier = *(later - 1);
    const double fraction = seconds_between(earlier.timestamp_ns, reference_ns_) /
                            seconds_between(earlier.timestamp_ns, later->timestamp_ns);
    if (const auto T = interpolate(relative(anchor.T, earlier.T), relative(anchor.T, later->T), fraction)) return T;
  }
  if (!ego_.twist || distance_ns(anchor.timestamp_ns, reference_ns_) > kMaxPoseGap) return std::nullopt;
  return after(*ego_.twist, seconds_between(anchor.timestamp_ns, reference_ns_));
}

// Turns poses in the world into poses in the reference ego frame; without the latter's own pose none is of use.
void EgoMotion::refer_poses() {
  if (poses_.empty()) return;
  const Pose anchor = *nearest_pose(reference_ns_);
  const std::optional<Mat4> T = T_anchor_ref(anchor);
  if (!T) return poses_.clear();
  if (!ego_.T_world_ego) ego_.T_world_ego = compose(anchor.T, *T);
  const Mat4 T_ref_anchor = inverse_rigid(*T);
  for (Pose& pose : poses_) pose.T = compose(T_ref_anchor, relative(anchor.T, pose.T));
}

void EgoMotion::set(const SensorRig& rig, const FrameSet& frames, double max_age) {
  reference_ns_ = frames.timestamp_ns;
  ego_ = frames.ego;
  estimated_ = false;
  residual_ = 0;
  collect_poses(frames);
  if (!ego_.twist && !poses_.empty()) ego_.twist = twist_of_poses();
  if (!ego_.twist) estimate_speed(rig, frames, max_age);
  refer_poses();

  const bool apart =
      !poses_.empty() && minus_ns(poses_.back().timestamp_ns, poses_.front().timestamp_ns) >= kMinPoseGap;
  source_ = apart        ? MotionSource::poses
            : estimated_ ? MotionSource::estimated
            : ego_.twist ? MotionSource::twist
                         : MotionSource::none;
  const std::optional<Mat4> unknown;
  exposures_.resize(rig.cameras.size());
  for (std::size_t i = 0; i < exposures_.size(); ++i)
    exposures_[i] =
        T_ref_at(frames.camera_time(i), frames.camera_T_world_ego.empty() ? unknown : frames.camera_T_world_ego[i]);
}

Mat4 EgoMotion::T_ref_at(std::int64_t timestamp_ns) const {
  if (timestamp_ns == reference_ns_) return identity4();
  const auto later = std::lower_bound(poses_.begin(), poses_.end(), timestamp_ns,
                                      [](const Pose& pose, std::int64_t time) { return pose.timestamp_ns < time; });
  if (later != poses_.end() && later->timestamp_ns == timestamp_ns) return later->T;
  if (later != poses_.begin() && later != poses_.end()) {
    const Pose& earlier = *(later - 1);
    const double fraction = seconds_between(earlier.timestamp_ns, timestamp_ns) /
                            seconds_between(earlier.timestamp_ns, later->timestamp_ns);
    if (const auto T = interpolate(earlier.T, later->T, fraction)) return *T;
  }
  const Pose* nearest = nearest_pose(timestamp_ns);
  const std::int64_t from_ns = nearest ? nearest->timestamp_ns : reference_ns_;
  const Mat4 T_ref_from = nearest ? nearest->T : identity4();
  return ego_.twist ? compose(T_ref_from, after(*ego_.twist, seconds_between(from_ns, timestamp_ns))) : T_ref_from;
}

Mat4 EgoMotion::T_ref_at(std::int64_t timestamp_ns, const std::optional<Mat4>& T_world_ego) const {
  return T_world_ego && ego_.T_world_ego ? relative(*ego_.T_world_ego, *T_world_ego) : T_ref_at(timestamp_ns);
}

std::optional<Mat4> motion_between(const Ego& then, const Ego& now, double seconds) {
  std::optional<Mat4> T_then_now;
  if (then.T_world_ego && now.T_world_ego) {
    T_then_now = relative(*then.T_world_ego, *now.T_world_ego);
  } else if (then.twist || now.twist) {
    const Vec3 a = then.twist ? *then.twist : *now.twist;
    const Vec3 b = now.twist.value_or(a);
    T_then_now = after({(a[0] + b[0]) / 2, (a[1] + b[1]) / 2, (a[2] + b[2]) / 2}, seconds);
  }
  // A distance that is no number is no motion either.
  if (T_then_now && !(std::hypot((*T_then_now)[3], (*T_then_now)[7], (*T_then_now)[11]) <= kMaxEgoSpeed * seconds))
    T_then_now.reset();
  return T_then_now;
}

void set_health(const EgoMotion& motion, Health& health) {
  constexpr float kUnknown = std::numeric_limits<float>::quiet_NaN();
  const std::optional<Vec3>& twist = motion.ego().twist;
  health.ego_motion = motion.source();
  health.ego_speed = twist ? static_cast<float>((*twist)[0]) : kUnknown;
  health.ego_speed_estimated = motion.estimated();
  health.ego_speed_residual = motion.estimate_residual();
}

SensorRig exposure_rig(const SensorRig& rig, const EgoMotion& motion, const GridSpec* grid) {
  SensorRig moved = rig;
  for (std::size_t i = 0; i < moved.cameras.size(); ++i) {
    const Mat4& T = motion.T_ref_exposure(i);
    moved.cameras[i].T_ego_camera = compose(grid ? rounded_exposure(*grid, T) : T, rig.cameras[i].T_ego_camera);
  }
  return moved;
}

}  // namespace imkd
