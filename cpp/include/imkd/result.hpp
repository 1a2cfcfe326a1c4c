// Result: boxes in the ego frame, the health of the sensors, and where the time went.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

namespace imkd {

struct Detection {
  float x = 0, y = 0, z = 0;                // centre, m
  float length = 0, width = 0, height = 0;  // m
  float yaw = 0;                            // rad about +z from +x, in [-pi, pi)
  float vx = 0, vy = 0;                     // m/s
  float score = 0;
  int label = 0;  // index into ModelSpec::head.classes
};

// ok; late: older than half the radar's max_age; stale: left out for its age; invalid: delivered but unusable (no
// points, or every one invalid); missing: nothing was delivered; frozen, lost: see Monitor, the Detector does not tell
// them.
enum class SensorState : std::uint8_t { ok, late, stale, invalid, missing, frozen, lost };
constexpr bool usable(SensorState state) { return state == SensorState::ok || state == SensorState::late; }
// full: every sensor ok or late; partial: some not; camera_only / radar_only: the other kind is wholly unusable; blind:
// neither.
enum class Mode : std::uint8_t { full, partial, camera_only, radar_only, blind };
Mode mode_of(const std::vector<SensorState>& cameras, const std::vector<SensorState>& radars);

struct Health {
  Mode mode = Mode::blind;
  std::vector<SensorState> cameras, radars;  // in the rig's order
  int radar_points = 0;                      // in the grid
  int radar_points_invalid = 0;              // not finite, or beyond kMaxIntensity or kMaxVelocity; dropped
  int radar_points_outside = 0;              // beyond the grid
  int radar_points_overflow = 0;             // beyond max_points
  int boxes_invalid = 0;                     // non-finite network outputs dropped by decode
  bool ego_speed_estimated = false;
  float ego_speed = 0;           // m/s, from odometry or the static returns
  float ego_speed_residual = 0;  // m/s, median absolute of the inliers
  int past_frames = 0;           // fused maps of the past that the network got, of ModelSpec::history.frames
};

// warp: the past maps, brought into the present frame and kept for the next ones; 0 where the spec has no history.
enum Stage { kPreprocess, kCamera, kLift, kRadar, kWarp, kBev, kDecode, kStages };
constexpr const char* kStageNames[kStages] = {"preprocess", "camera", "lift", "radar", "warp", "bev", "decode"};

struct MapView {  // one value per BEV cell; valid until the next infer; data == nullptr: there is none
  const char* name = "";
  int rows = 0, columns = 0;
  const float* data = nullptr;  // (rows, columns)
};

struct Result {
  std::int64_t timestamp_ns = 0;
  std::vector<Detection> detections;  // by logit, then by class and cell index
  Health health;
  MapView segmentation;        // probability of a vehicle, where the spec has segmentation; 0 when blind
  std::vector<MapView> debug;  // with DetectorOptions::debug: the gates i_cam and i_rad, 0..1
  std::array<float, kStages> timings_us{};
  float total_us = 0;
};

}  // namespace imkd
