// Odometry: the ego's path in a frame that is fixed to the ground, from the ego motion of each frame.
#pragma once
#include <cstdint>
#include <optional>

#include "imkd/frames.hpp"
#include "imkd/geometry.hpp"

namespace imkd {

class Odometry {
 public:
  // none: nothing is known; start: the frame has a pose or a twist, but the motion since the frame before is unknown.
  enum class Step { none, start, motion };

  // Advances to a frame. The motion since the frame before comes from this pose and the last one, at most kMaxPoseGap
  // ago, else from the twists of both frames, of which one may be unknown, else from the last twist, at most
  // kMaxPoseGap ago. Without a motion T_odom_ego stays. A pose that is not rigid is unknown, and so is a twist that
  // is_possible() refuses.
  Step advance(std::int64_t timestamp_ns, const Ego& ego);
  // The ego frame in that of the first frame.
  const Mat4& T_odom_ego() const { return T_odom_ego_; }
  void reset() { *this = {}; }

 private:
  struct Anchor {  // the last frame with a pose
    std::int64_t timestamp_ns = 0;
    Mat4 T_world_ego{}, T_odom_ego{};
  };
  std::optional<Mat4> step(std::int64_t timestamp_ns, const Ego& ego) const;  // T_odom_ego of the frame

  Mat4 T_odom_ego_ = identity4();
  std::optional<Anchor> anchor_;
  std::optional<Vec3> twist_;  // the last one, of twist_ns_
  std::int64_t twist_ns_ = 0;
  std::optional<std::int64_t> now_ns_;  // the last frame
};

}  // namespace imkd
