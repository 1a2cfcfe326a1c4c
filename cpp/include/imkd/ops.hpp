// The ops around the networks. These CPU functions are the definition; their CUDA twins have the same signature.
// None allocates, none depends on the number of threads; scratch memory is passed in.
#pragma once
#include <cstdint>
#include <vector>

#include "imkd/frames.hpp"
#include "imkd/result.hpp"
#include "imkd/rig.hpp"
#include "imkd/spec.hpp"
#include "imkd/thread_pool.hpp"

namespace imkd {

constexpr int kOutside = -1;
// floor((value - min) / cell) in float32 with a true division; kOutside for NaN and outside [0, count). The only cell
// function there is.
constexpr int cell_index(float value, float min, float cell, int count) {
  const float q = (value - min) / cell;
  // In [0, count) the cast is the floor; it is reached only there, so a negative, huge or NaN q can neither round up
  // into cell 0 nor overflow.
  return q >= 0.f && q < static_cast<float>(count) ? static_cast<int>(q) : kOutside;
}

// ---- images ----
struct ImageCrop {
  double scale = 1, left = 0, top = 0;
};  // input pixel u sits at raw pixel (u + 0.5 + left) / scale - 0.5
// The smallest uniform scale that covers the network's input; centred in x, placed by spec.anchor in y.
ImageCrop image_crop(const ImageSpec& spec, int width, int height);
// Bilinear resize + crop + normalise in one pass; edge pixels are repeated outside the image; absent cameras give
// zeros.
void preprocess_images(const ImageView* images, const ImageCrop* crops, int count, const ImageSpec& spec,
                       float* out /* (count,3,H,W) */, ThreadPool& pool);
// The same as steps of scale: each value over scale, rounded to the nearest integer, halves to even, kept within
// -128..127; ONNX's QuantizeLinear with a zero point of 0.
void quantize_images(const ImageView* images, const ImageCrop* crops, int count, const ImageSpec& spec, float scale,
                     std::int8_t* out /* (count,3,H,W) */, ThreadPool& pool);

// ---- lift ----
struct LiftTable {                   // sorted by cell, then by camera, depth bin, row, column
  std::vector<std::int32_t> cells;   // (K) BEV cell row * width + column, strictly rising
  std::vector<std::int32_t> starts;  // (K+1) interval of each cell in points
  std::vector<std::int32_t> points;  // (P) index into depth (N,D,h,w)
  std::vector<std::int32_t> pixels;  // (P) index into context without its channel axis: (N,h,w)
};
LiftTable lift_table(const ModelSpec& spec, const SensorRig& rig,
                     const ImageCrop* crops);       // crops: one per camera; allocates
std::size_t lift_workspace(const ModelSpec& spec);  // floats
// out[c, cell] = sum over the cell's points of depth * context[c]; the last channel sums depth alone. Other cells are
// 0.
void lift(const ModelSpec& spec, const LiftTable& table, const float* depth /* (N,D,h,w) */,
          const float* context /* (N,C,h,w) */, float* out /* (C+1,H,W) */, float* workspace, ThreadPool& pool);

// ---- radar ----
struct RadarInput {               // one sweep, brought to the reference ego frame
  const float* points = nullptr;  // (count, 5)
  int count = 0;
  Mat4 T_ref_radar = identity4();  // reference ego frame <- radar frame at the sweep's time
  float age = 0;                   // s
  RadialVelocity velocity = RadialVelocity::compensated;
  double period = 0;
  Vec3 sensor_velocity{};  // m/s, of the radar itself in the reference frame's axes; used for raw and aliased; NaN
                           // where unknown
};
struct RadarStats {
  int used = 0, invalid = 0, outside = 0, overflow = 0;
};
struct EgoSpeed {
  bool valid = false;
  float speed = 0, residual = 0;
  int inliers = 0;
};  // m/s forward, median |residual| of the inliers

// Forward speed that best explains the raw or aliased velocities as returns of a static world (1-D search, robust to
// moving objects).
EgoSpeed estimate_ego_speed(const SensorRig& rig, const RadarSweep* sweeps, int count);
// Ego motion, age and velocity model of each sweep; sweeps older than max_age are left out. Fills out (size >=
// frames.sweeps.size()), returns how many. They come newest first, then by radar, whatever the order in frames. Sets
// health.radars and health.ego_speed*. Where a sweep's velocity is raw and the ego velocity unknown, it is estimated
// and stored in health.
int resolve_sweeps(const ModelSpec& spec, const SensorRig& rig, const FrameSet& frames, RadarInput* out,
                   Health& health);
std::size_t radar_workspace(const ModelSpec& spec);  // bytes
// Points keep their order within a cell; moving points are shifted by their radial velocity times age (not where
// velocity is aliased). Where a velocity is aliased or cannot be compensated (sensor_velocity unknown), it counts as 0
// in velocity_{x,y}; the unknown one also in phase_{cos,sin}. A point with a non-finite value, or beyond kMaxIntensity
// or kMaxVelocity, is invalid; overflow counts good points inside the grid after the first max_points.
RadarStats voxelize_radar(const ModelSpec& spec, const RadarInput* sweeps, int count, float* out /* (F,Hr,Wr) */,
                          void* workspace, ThreadPool& pool);

// ---- warp ----
// A BEV map of the then ego frame, seen from the present one: bilinear at the place (x, y, 0) of each present cell's
// centre in the then frame (planar part of the pose), 0 outside the map. Places are rounded to 1/1024 cell, so the
// identity, whole cells and, on a square grid about the ego, quarter turns are exact. A pose that is not finite or
// beyond 2^20 cells gives zeros.
void warp_bev(const GridSpec& grid, const float* features /* (channels,H,W) */, int channels, const Mat4& T_then_now,
              float* out /* (channels,H,W) */, ThreadPool& pool);

// ---- decode ----
std::size_t decode_workspace(const ModelSpec& spec);  // bytes
// Peaks of 3x3 (ties: lowest index wins), boxes, circle suppression within a class, sorted by logit then index.
// out must have capacity head.max_detections. Returns the number of candidates dropped for a non-finite box.
int decode(const ModelSpec& spec, const float* heatmap /* (K,H,W) logits */, const float* box /* (groups*10,H,W) */,
           std::vector<Detection>& out, void* workspace, ThreadPool& pool);

}  // namespace imkd
