// Result: boxes in the ego frame, the health of the sensors, and the time of each stage.
#pragma once
#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "imkd/frames.hpp"

namespace imkd {

struct Detection {
  float x = 0;  // centre, m
  float y = 0;
  float z = 0;
  float length = 0;  // m
  float width = 0;
  float height = 0;
  float yaw = 0;  // rad about +z from +x, in [-pi, pi)
  float vx = 0;   // m/s; NaN: the bundle's velocity was not trained
  float vy = 0;
  float score = 0;
  int label = 0;  // index into ModelSpec::head.classes
};

// late: older than half of RadarSpec::max_age, an image of kSensorPeriod; stale: older than all of it and discarded;
// invalid: delivered broken, and discarded: an image of another size than its calibration, or a flat one (saturated,
// dark, covered), only sweeps with more invalid points than valid ones, or with none; missing: not delivered; frozen:
// the same contents with new times, kFrozenAfter times in a row, and discarded; lost: only from
// Monitor; unusable: delivered, but nothing of it reaches the grid: a camera whose coverage is below kMinCoverage
// (imkd/coverage.hpp), a radar with no point among those used.
enum class SensorState : std::uint8_t { ok, late, stale, invalid, missing, frozen, lost, unusable };
constexpr int kFrozenAfter = 3;
constexpr bool usable(SensorState state) { return state == SensorState::ok || state == SensorState::late; }
// full: every sensor is usable; partial: some are not, or a sweep lies where the vehicle no longer is, as it is older
// than one period and the ego motion unknown (see is_displaced in imkd/ops.hpp); camera_only, radar_only: no sensor of
// the other kind is; blind: no sensor is.
enum class Mode : std::uint8_t { full, partial, camera_only, radar_only, blind };
// Where the motion within a frame comes from, see EgoMotion. poses: two or more of different times; twist:
// FrameSet::ego; estimated: the static radar returns; none: unknown, data of another time than the reference time stay
// where they are.
enum class MotionSource : std::uint8_t { poses, twist, estimated, none };
Mode mode_of(const std::vector<SensorState>& cameras, const std::vector<SensorState>& radars);

// What is unlike the bundle's contract (imkd/contract.hpp), or hurts the boxes without being a sensor's state. The tens
// name the concept: 10x radars, 11x cameras, 12x rig, 13x motion, 14x scene, 15x bundle.
enum class WarningCode : int {
  radar_velocity = 101,  // a velocity kind that the model was not trained with: its velocity channels are 0
  radar_intensity = 102,
  radar_points = 103,  // points per sweep
  fewer_radars = 104,
  more_radars = 105,
  radar_mounting = 106,
  radar_unusable = 107,  // none of a radar's points falls into the grid
  radar_sign = 108,      // the velocities fit the ego motion with the opposite sign only
  fewer_cameras = 111,
  more_cameras = 112,
  camera_field_of_view = 113,
  camera_resolution = 114,
  camera_lens = 115,
  camera_mounting = 116,
  camera_coverage = 117,  // a camera that sees too little of the grid to be of use
  ground_plane = 121,     // the rig names none, those of the training did
  ego_motion = 131,       // unknown
  ego_invalid = 132,      // a pose or twist that no vehicle has, a pose that is frozen or beyond a jump; not used
  traffic = 141,          // the other side of the road; set by verbs that know the drive
  unsigned_bundle = 151,  // by DetectorOptions::trust
  boxes_invalid = 152,    // the network's outputs are not finite: Health::boxes_invalid
};
constexpr WarningCode kWarningCodes[] = {
    WarningCode::radar_velocity, WarningCode::radar_intensity,      WarningCode::radar_points,
    WarningCode::fewer_radars,   WarningCode::more_radars,          WarningCode::radar_mounting,
    WarningCode::radar_unusable, WarningCode::radar_sign,           WarningCode::fewer_cameras,
    WarningCode::more_cameras,   WarningCode::camera_field_of_view, WarningCode::camera_resolution,
    WarningCode::camera_lens,    WarningCode::camera_mounting,      WarningCode::camera_coverage,
    WarningCode::ground_plane,   WarningCode::ego_motion,           WarningCode::ego_invalid,
    WarningCode::traffic,        WarningCode::unsigned_bundle,      WarningCode::boxes_invalid};
// Whether a frame with this warning is at best partial: something that the model relies on is not there.
constexpr bool lowers_mode(WarningCode code) {
  return code == WarningCode::radar_velocity || code == WarningCode::fewer_radars || code == WarningCode::radar_sign ||
         code == WarningCode::fewer_cameras || code == WarningCode::ego_motion;
}
std::string code_name(WarningCode code);  // "W0101"

// Fixed memory, as infer allocates nothing; a longer text is cut.
struct Warning {
  WarningCode code{};
  std::array<char, 256> text{};  // ends in 0
};

struct Health {
  Mode mode = Mode::blind;
  std::vector<SensorState> cameras;  // in the rig's order
  std::vector<SensorState> radars;
  int radar_points = 0;           // in the grid
  int radar_points_invalid = 0;   // not finite, nearer than kMinRange, beyond kMaxIntensity or kMaxVelocity; discarded
  int radar_points_outside = 0;   // beyond the grid
  int radar_points_overflow = 0;  // beyond max_points
  int boxes_invalid = 0;          // candidates with a non-finite logit or box, discarded by decode
  MotionSource ego_motion = MotionSource::none;
  bool ego_speed_estimated = false;
  float ego_speed = std::numeric_limits<float>::quiet_NaN();  // m/s, forward; NaN: unknown
  float ego_speed_residual = 0;                               // m/s, median absolute of the inliers
  int past_frames = 0;            // past fused maps that the network read, of ModelSpec::history.frames
  int maps_invalid = 0;           // 1: this frame's fused map has a non-finite value and was not stored
  std::vector<Warning> warnings;  // those that hold in this frame, by code; each text is that of the frame it began
};

// warp: the past maps are warped into the present frame, and the present map is stored; 0 without a history.
enum Stage { kPreprocess, kCamera, kLift, kRadar, kWarp, kBev, kDecode, kStages };
constexpr const char* kStageNames[kStages] = {"preprocess", "camera", "lift", "radar", "warp", "bev", "decode"};

struct MapView {  // one value per BEV cell; valid until the next infer; data == nullptr: none
  const char* name = "";
  int rows = 0;
  int columns = 0;
  const float* data = nullptr;  // (rows, columns)
};

struct Result {
  std::int64_t timestamp_ns = 0;
  std::vector<Detection> detections;  // by descending logit, then by class and cell index
  Health health;
  Ego ego;                     // pose and twist at timestamp_ns, where EgoMotion has them
  MapView segmentation;        // probability of a vehicle, where the spec has segmentation; 0 when blind
  std::vector<MapView> debug;  // with DetectorOptions::debug: the gates i_cam and i_rad, 0..1
  std::array<float, kStages> timings_us{};
  float total_us = 0;
  bool replayed = false;  // as one CUDA graph; see Detector::why_not_replayed
};

}  // namespace imkd
