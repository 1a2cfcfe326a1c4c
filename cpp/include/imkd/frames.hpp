// FrameSet: what the sensors delivered for one moment. Views only; the caller keeps the memory alive during infer.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "imkd/geometry.hpp"

namespace imkd {

enum class YuvMatrix : std::uint8_t { bt601, bt601_full, bt709, bt709_full };  // full: 0..255, else 16..235

// RGB uint8; strides in bytes, may be negative; data == nullptr: the camera is absent. Or, where chroma is set, NV12:
// data is the plane of Y, one byte per pixel, chroma the plane of U, V pairs at half the size; width and height are
// even.
struct ImageView {
  const std::uint8_t* data = nullptr;
  int width = 0, height = 0;
  std::ptrdiff_t row_stride = 0, pixel_stride = 3, channel_stride = 1;
  const std::uint8_t* chroma = nullptr;
  std::ptrdiff_t chroma_stride = 0;  // from row to row
  YuvMatrix yuv = YuvMatrix::bt601;
};

// Beyond either a return is no measurement but a sentinel or a broken packet: the voxeliser calls it invalid.
constexpr float kMaxIntensity = 300;  // dB either way; no RCS and no magnitude comes near, Astyx' end at 102
constexpr float kMaxVelocity = 300;   // m/s either way; two vehicles at 540 km/h that meet

struct RadarSweep {
  int radar = 0;  // index into SensorRig::radars
  std::int64_t timestamp_ns = 0;
  const float* points =
      nullptr;  // (count, 5) x, y, z m in the radar frame, intensity dB, radial velocity m/s (receding positive)
  int count = 0;
  std::optional<Mat4> T_world_ego;  // ego pose when the sweep was taken
};

struct Ego {                        // both optional; poses win over the twist where a sweep has one
  std::optional<Mat4> T_world_ego;  // at the reference time
  std::optional<Vec3> twist;        // vx, vy m/s and yaw rate rad/s in the ego frame
};

struct FrameSet {
  std::int64_t timestamp_ns = 0;                   // reference time
  std::vector<ImageView> cameras;                  // in the rig's order
  std::vector<std::int64_t> camera_timestamps_ns;  // empty: all at timestamp_ns
  std::vector<RadarSweep> sweeps;                  // any number per radar, any order
  Ego ego;
};

}  // namespace imkd
