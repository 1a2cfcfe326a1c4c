// The ops around the networks. The CPU functions are the reference for their CUDA twins. Unless noted, they allocate
// nothing, and no result depends on the number of threads; scratch memory is passed in.
#pragma once
#include <cstdint>
#include <limits>
#include <vector>

#include "imkd/ego_motion.hpp"
#include "imkd/frames.hpp"
#include "imkd/result.hpp"
#include "imkd/rig.hpp"
#include "imkd/spec.hpp"
#include "imkd/thread_pool.hpp"

namespace imkd {

constexpr int kOutside = -1;
// floor((value - min) / cell) in float32 with a true division; kOutside for NaN and outside [0, count). Every op and
// the training targets use this function.
constexpr int cell_index(float value, float min, float cell, int count) {
  const float q = (value - min) / cell;
  // In [0, count) the cast is the floor; outside a negative, huge or NaN q would round up into cell 0 or overflow.
  return q >= 0.f && q < static_cast<float>(count) ? static_cast<int>(q) : kOutside;
}

// The ground plane z = a x + b y + c of a rig in its ego frame, m: its own, else the spec's legacy_plane.
inline Vec3 ground_of(const ModelSpec& spec, const SensorRig& rig) {
  return rig.ground_plane.value_or(spec.legacy_plane);
}

// ---- images ----
struct ImageCrop {  // input pixel u is at raw pixel (u + 0.5 + left) / scale - 0.5
  double scale = 1;
  double left = 0;
  double top = 0;
};
// The smallest uniform scale that covers the network's input; centred in x, aligned by spec.anchor in y.
ImageCrop image_crop(const ImageSpec& spec, int width, int height);
// Bilinear resize, crop and normalisation in one pass; edge pixels are repeated outside the image; zeros for an absent
// camera.
void preprocess_images(const ImageView* images, const ImageCrop* crops, int count, const ImageSpec& spec,
                       float* out /* (count,3,H,W) */, ThreadPool& pool);
// The same quantized: each value over scale, rounded to the nearest integer, halves to even, clamped to -128..127;
// ONNX's QuantizeLinear with a zero point of 0.
void quantize_images(const ImageView* images, const ImageCrop* crops, int count, const ImageSpec& spec, float scale,
                     std::int8_t* out /* (count,3,H,W) */, ThreadPool& pool);

// ---- rays ----
// Raw pixels (u, v) of points in the camera frame, m, through the lens; NaN where the lens has none: at or behind the
// camera (a fisheye sees behind it, up to its limit), or beyond the radius up to which its image grows.
void project(const CameraCalibration& camera, const double* points /* (count,3) */, std::size_t count,
             double* pixels /* (count,2) */);
// The inverse: unit vectors in the camera frame, behind it too for a fisheye; NaN where the lens has no ray.
void pixel_rays(const CameraCalibration& camera, const double* pixels /* (count,2) */, std::size_t count,
                double* rays /* (count,3) */);
// The rays of a camera's feature pixels through its crop and lens: points at optical depth 1 in the camera frame,
// (x, y, 1); NaN where the lens has no ray, or one 90 degrees or more off the axis, which has no optical depth.
void image_rays(const ImageSpec& spec, const CameraCalibration& camera, const ImageCrop& crop,
                double* out /* (h,w,3) */);

// ---- lift ----
// The motion to a camera's exposure on the grid of motions that the lift distinguishes: steps of 1/16 cell, and of the
// angle that moves the grid's farthest corner by 1/16 cell. No point of the grid is off by more than kMaxLiftOffset
// cells. A table is thus a function of its frame alone, and need not be rebuilt while the motion stays in its step.
constexpr double kMaxLiftOffset = 0.125;
Mat4 rounded_exposure(const GridSpec& grid, const Mat4& T_ref_ego);
struct LiftTable {                   // sorted by cell, then by camera, depth bin, row, column
  std::vector<std::int32_t> cells;   // (K) BEV cell row * width + column, strictly rising
  std::vector<std::int32_t> starts;  // (K+1) interval of each cell in points
  std::vector<std::int32_t> points;  // (P) index into depth (N,D,h,w)
  std::vector<std::int32_t> pixels;  // (P) index into context without its channel axis: (N,h,w)
};
// Throws Error rig_mismatch where the rig has more cameras than the model. Fewer are padded with absent ones.
void check_cameras(const ModelSpec& spec, const SensorRig& rig);
// crops: one per camera of the rig. Allocates.
LiftTable lift_table(const ModelSpec& spec, const SensorRig& rig, const ImageCrop* crops);
std::size_t lift_workspace(const ModelSpec& spec);  // floats
// out[c, cell] = sum over the cell's points of depth * context[c]; the last channel sums depth alone. Cells without a
// point are 0.
void lift(const ModelSpec& spec, const LiftTable& table, const float* depth /* (N,D,h,w) */,
          const float* context /* (N,C,h,w) */, float* out /* (C+1,H,W) */, float* workspace, ThreadPool& pool);

// ---- radar ----
struct RadarInput {               // one sweep, with its transform to the reference ego frame
  const float* points = nullptr;  // (count, 5)
  int count = 0;
  int radar = 0;                   // index into the rig's
  Mat4 T_ref_radar = identity4();  // reference ego frame <- radar frame at the sweep's time
  float age = 0;                   // s
  RadialVelocity velocity = RadialVelocity::compensated;
  double period = 0;
  // m/s, of the radar itself in the reference frame's axes; read for raw and aliased velocities; NaN where unknown.
  Vec3 sensor_velocity{};
};
struct RadarStats {  // numbers of points
  int used = 0;
  int invalid = 0;
  int outside = 0;
  int overflow = 0;
};
struct EgoSpeed {
  bool valid = false;
  float speed = 0;     // m/s, forward
  float residual = 0;  // m/s, median absolute of the inliers
  int inliers = 0;
};

// The forward speed at which most raw or aliased velocities are those of static targets (1-D search, robust to moving
// objects), from the sweeps within max_age (s) of the reference time.
EgoSpeed estimate_ego_speed(const SensorRig& rig, const RadarSweep* sweeps, int count, std::int64_t reference_ns = 0,
                            double max_age = std::numeric_limits<double>::infinity());
// Transform, age and velocity model of each sweep that is not older than max_age. Writes out (capacity >=
// frames.sweeps.size()) and returns the number of sweeps: newest first, then by radar, whatever the order in frames.
// A sweep of which more than half of the points are invalid is left out, and health.radar_points_invalid counts its
// points. Sets health.radars (unusable: no point of the radar is used).
int resolve_sweeps(const ModelSpec& spec, const SensorRig& rig, const FrameSet& frames, const EgoMotion& motion,
                   RadarInput* out, Health& health);
// Whether a sweep lies where the vehicle no longer is: its motion is unknown, and a sweep is older than one period of
// its radar, the mean time between its sweeps in the frame, at most kSensorPeriod. sweeps: of resolve_sweeps.
bool is_displaced(const EgoMotion& motion, const RadarInput* sweeps, int count);
std::size_t radar_workspace(const ModelSpec& spec);  // bytes
// Statistics of the points in each cell. A point is extrapolated by its radial velocity times age, unless its velocity
// is aliased. A velocity that is aliased or cannot be compensated (sensor_velocity unknown) counts as 0 in
// velocity_{x,y}, an unknown one also in phase_{cos,sin}. A point with a non-finite value, nearer than kMinRange,
// or beyond kMaxIntensity or kMaxVelocity, is invalid; overflow counts the valid points inside the grid after the first
// max_points. ground: of ground_of.
RadarStats voxelize_radar(const ModelSpec& spec, const Vec3& ground, const RadarInput* sweeps, int count,
                          float* out /* (F,Hr,Wr) */, void* workspace, ThreadPool& pool);

// ---- warp ----
// Resamples a BEV map of an earlier ego frame in the present one: bilinear at the earlier x and y of each present
// cell's centre on the ground, 0 outside the map. Source coordinates are rounded to 1/1024 cell, so
// that the identity, whole cells and, on a square grid centred on the ego, quarter turns are exact. Zeros for a pose
// that is not finite or beyond 2^20 cells.
void warp_bev(const GridSpec& grid, const Vec3& ground, const float* features /* (channels,H,W) */, int channels,
              const Mat4& T_then_now, float* out /* (channels,H,W) */, ThreadPool& pool);

// ---- decode ----
std::size_t decode_workspace(const ModelSpec& spec);  // bytes
// 3x3 peaks (of equal values the lowest index) and their boxes, without those beyond their class's limits of size;
// circle suppression within a class, and of centres in the footprint of a better box across exclusive classes; sorted
// by descending logit, then index. out must have capacity head.max_detections. Returns the number of candidates
// discarded for a non-finite logit or box.
int decode(const ModelSpec& spec, const Vec3& ground, const float* heatmap /* (K,H,W) logits */,
           const float* box /* (groups*10,H,W) */, std::vector<Detection>& out, void* workspace, ThreadPool& pool);

}  // namespace imkd
