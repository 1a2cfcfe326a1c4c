// EgoMotion: how the vehicle moves around the reference time of one frame. It is made once per frame, and radar sweeps,
// camera exposures, past maps, health and the training data use it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "imkd/frames.hpp"
#include "imkd/result.hpp"
#include "imkd/rig.hpp"
#include "imkd/spec.hpp"

namespace imkd {

// Whether a vehicle can move so: finite numbers, no faster than kMaxEgoSpeed and kMaxYawRate.
bool is_possible(const Vec3& twist);
// Whether the localisation jumped between two ego poses: further apart than kMaxEgoSpeed and kPoseNoise allow.
bool is_jump(const Mat4& a, const Mat4& b, double seconds);

class EgoMotion {
 public:
  EgoMotion() = default;  // none
  // Of checked frames. max_age: s, of the radar sweeps that may give the ego speed.
  EgoMotion(const SensorRig& rig, const FrameSet& frames, double max_age) { set(rig, frames, max_age); }
  // The same in memory that is already there: it allocates only where a frame has more poses than reserve() and every
  // frame before it.
  void set(const SensorRig& rig, const FrameSet& frames, double max_age);
  void reserve(std::size_t cameras, std::size_t sweeps);

  MotionSource source() const { return source_; }
  std::int64_t timestamp_ns() const { return reference_ns_; }
  // Pose and twist at the reference time, both where they are known. The pose is FrameSet::ego's; without one it comes
  // from the poses of sweeps and cameras: interpolated, else extrapolated from the nearest by at most kMaxPoseGap. The
  // twist is FrameSet::ego's; without one it is that of the nearest pose and the one about 50 ms from it, if
  // is_possible(); else it is the ego speed estimated from static radar returns.
  const Ego& ego() const { return ego_; }
  bool estimated() const { return estimated_; }          // the twist comes from radar returns
  float estimate_residual() const { return residual_; }  // m/s, median absolute of the inliers; 0 without an estimate

  // The ego frame of that time in the reference ego frame: between two poses on the screw that joins them, otherwise
  // from the nearest pose along the arc of the twist; identity where nothing is known.
  Mat4 T_ref_at(std::int64_t timestamp_ns) const;
  // The same for data that has a pose of its own, which precedes.
  Mat4 T_ref_at(std::int64_t timestamp_ns, const std::optional<Mat4>& T_world_ego) const;
  std::size_t cameras() const { return exposures_.size(); }
  // The ego frame at a camera's exposure in the reference ego frame.
  const Mat4& T_ref_exposure(std::size_t camera) const { return exposures_[camera]; }

 private:
  struct Pose {
    std::int64_t timestamp_ns;
    bool reference;  // FrameSet::ego's, which precedes others of its time
    Mat4 T;          // T_world_ego, from refer_poses() on T_ref_ego
    bool operator<(const Pose& other) const;
  };
  void collect_poses(const FrameSet& frames);
  const Pose* nearest_pose(std::int64_t timestamp_ns) const;
  std::optional<Vec3> twist_of_poses() const;
  void estimate_speed(const SensorRig& rig, const FrameSet& frames, double max_age);
  std::optional<Mat4> T_anchor_ref(const Pose& anchor) const;
  void refer_poses();

  MotionSource source_ = MotionSource::none;
  std::int64_t reference_ns_ = 0;
  Ego ego_;
  bool estimated_ = false;
  float residual_ = 0;
  std::vector<Pose> poses_;      // by time, which increases strictly
  std::vector<Mat4> exposures_;  // by camera
};

// T_then_now of two frames so many seconds apart: by their poses, else along an arc at the mean of their twists, of
// which one may be unknown. None where neither is known, and where the motion is faster than kMaxEgoSpeed.
std::optional<Mat4> motion_between(const Ego& then, const Ego& now, double seconds);

// Sets health.ego_motion and health.ego_speed*.
void set_health(const EgoMotion& motion, Health& health);

// A rig whose T_ego_camera are those of the exposures: T_ref_camera. grid: of the lift, for the motion of
// rounded_exposure (imkd/ops.hpp); null: the motion itself. Allocates.
SensorRig exposure_rig(const SensorRig& rig, const EgoMotion& motion, const GridSpec* grid = nullptr);

}  // namespace imkd
