// FrameSet: the sensors' data of one moment. Views only; the caller keeps the memory alive during infer.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "imkd/geometry.hpp"

namespace imkd {

enum class YuvMatrix : std::uint8_t { bt601, bt601_full, bt709, bt709_full };  // full: 0..255, else 16..235

// RGB uint8, or NV12 where chroma is set: data is the Y plane, one byte per pixel, chroma the plane of U, V pairs at
// half the size; width and height are even. data == nullptr: the camera is absent.
// Strides are bytes and may be negative. Dense rows have row_stride = width * pixel_stride and chroma_stride = width.
// 0 is refused as frame_bad_shape, except along a single row or pixel: every row or pixel would be the first.
struct ImageView {
  const std::uint8_t* data = nullptr;
  int width = 0;  // px
  int height = 0;
  std::ptrdiff_t row_stride = 0;      // to be given
  std::ptrdiff_t pixel_stride = 3;    // NV12: not used
  std::ptrdiff_t channel_stride = 1;  // 0: a grey image, one byte for all channels
  const std::uint8_t* chroma = nullptr;
  std::ptrdiff_t chroma_stride = 0;  // NV12: to be given
  YuvMatrix yuv = YuvMatrix::bt601;
};

// Bounds of the absolute values of a radar return; beyond them it is a sentinel or a corrupt packet, and invalid.
constexpr float kMaxIntensity = 300;  // dB; far above every RCS and magnitude, the largest of Astyx is 102
constexpr float kMaxVelocity = 300;   // m/s; two oncoming vehicles at 540 km/h each
// m; a return nearer than this is a packet filled with zeros, and invalid: no radar resolves its own housing.
constexpr double kMinRange = 0.1;

// m/s; two ego poses that imply more are a jump of the localisation.
constexpr double kMaxEgoSpeed = 100;
// rad/s; one turn per second. A twist beyond it, as one whose yaw rate is in degrees, is no vehicle's.
constexpr double kMaxYawRate = 6.283185307179586;
// m; two poses that lie close in time are that far apart without a jump.
constexpr double kPoseNoise = 1;
// ns from a pose to the time that it is extrapolated to, and between two poses that give a twist.
constexpr std::int64_t kMaxPoseGap = 1'000'000'000;
// ns between two poses that give a twist: less, and their noise outweighs the motion.
constexpr std::int64_t kMinPoseGap = 10'000'000;

// s; the period of a sensor whose own is not known, that of a slow camera or radar. An image older than that is stale.
constexpr double kSensorPeriod = 0.1;

struct RadarSweep {
  int radar = 0;  // index into SensorRig::radars
  std::int64_t timestamp_ns = 0;
  // (count, 5) x, y, z m in the radar frame, intensity dB, radial velocity m/s (receding positive)
  const float* points = nullptr;
  int count = 0;
  std::optional<Mat4> T_world_ego;  // at the sweep's time
};

struct Ego {                        // both optional; poses precede the twist: see EgoMotion
  std::optional<Mat4> T_world_ego;  // at the reference time
  std::optional<Vec3> twist;        // vx, vy m/s and yaw rate rad/s in the ego frame
};

// A jump of the localisation between two poses of a frame that follow each other in time: those beyond it, as seen from
// the frame's own pose or else from that nearest to the reference time, are not used (WarningCode::ego_invalid).
struct FrameSet {
  std::int64_t timestamp_ns = 0;                   // reference time
  std::vector<ImageView> cameras;                  // in the rig's order
  std::vector<std::int64_t> camera_timestamps_ns;  // of the exposures; empty: all at timestamp_ns
  // Ego poses at the exposures, where they are known better than by EgoMotion; empty: none is.
  std::vector<std::optional<Mat4>> camera_T_world_ego;
  std::vector<RadarSweep> sweeps;  // any number per radar, any order
  Ego ego;

  std::int64_t camera_time(std::size_t camera) const {
    return camera_timestamps_ns.empty() ? timestamp_ns : camera_timestamps_ns[camera];
  }
};

}  // namespace imkd
