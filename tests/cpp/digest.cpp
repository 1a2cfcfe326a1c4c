// Prints a SHA-256 of every op's output for fixed inputs; tests/test_cross_build.py compares the lines of two machines.
// The inputs are integers and exact fractions, equal on every machine.
#include <cstdio>

#include "fakes.hpp"
#include "imkd/ops.hpp"
#include "sha256.hpp"

using namespace imkd;

namespace {

struct Random {  // Numerical Recipes' generator
  std::uint32_t state = 1;
  std::uint32_t bits() { return (state = state * 1664525u + 1013904223u) >> 8; }
  float uniform(int low, int high) {
    return static_cast<float>(low) + static_cast<float>(bits() & 0xffff) * (high - low) / 65536.f;
  }
  std::vector<float> floats(std::size_t count, int low, int high) {
    std::vector<float> values(count);
    for (float& value : values) value = uniform(low, high);
    return values;
  }
};

struct Line {
  const char* name;
  Sha256 hash;
  template <class T>
  void add(const std::vector<T>& values) {
    hash.update(values.data(), values.size() * sizeof(T));
  }
  template <class T>
  void add(const T& value) {
    hash.update(&value, sizeof value);
  }
  ~Line() { std::printf("%s %s\n", name, hash.hex().c_str()); }
};

const Mat4 kTurned{0.8, -0.6, 0, 1.25, 0.6, 0.8, 0, -0.375,
                   0,   0,    1, 0.5,  0,   0,   0, 1};  // 3, 4, 5: a rotation without a cosine

ModelSpec spec_with_everything(DepthSpacing spacing) {
  ModelSpec s = fakes::small_spec();
  s.image.width = 96;
  s.image.height = 64;
  s.depth.max = 12;
  s.depth.bins = 24;
  s.depth.spacing = spacing;
  s.context_channels = 33;
  s.grid = {-16, 16, -12, 12, -5, 3, 0.5};
  s.radar.cell = 0.5;
  s.radar.features.clear();
  for (int i = 0; i <= static_cast<int>(RadarStatistic::age_min); ++i)
    s.radar.features.push_back({RadarStatistic(i), 0.1f, 1.7f});
  return s;
}

SensorRig rig_with(Distortion distortion, std::vector<double> coefficients, RadialVelocity velocity) {
  SensorRig rig = fakes::small_rig();
  for (CameraCalibration& camera : rig.cameras) {
    camera.distortion = distortion;
    camera.coefficients = coefficients;
    camera.T_ego_camera = compose(kTurned, camera.T_ego_camera);
  }
  for (RadarCalibration& radar : rig.radars) {
    radar.velocity = velocity;
    radar.period = velocity == RadialVelocity::aliased ? 11.5 : 0;
  }
  return rig;
}

void images(ThreadPool& pool) {
  Line line{"preprocess_images", {}};
  const ModelSpec spec = spec_with_everything(DepthSpacing::linear);
  const fakes::Moment m = fakes::moment(fakes::small_rig());
  const ImageCrop crop = image_crop(spec.image, 80, 40), crops[2] = {crop, crop};
  std::vector<float> out(2 * 3 * spec.image.width * spec.image.height);
  preprocess_images(m.frames.cameras.data(), crops, 2, spec.image, out.data(), pool);
  line.add(out);
}

void lifts(ThreadPool& pool, const char* name, const char* table_name, DepthSpacing spacing, Distortion distortion,
           std::vector<double> k) {
  const ModelSpec spec = spec_with_everything(spacing);
  const ImageCrop crop = image_crop(spec.image, 80, 40), crops[2] = {crop, crop};
  const LiftTable table = lift_table(spec, rig_with(distortion, k, RadialVelocity::raw), crops);
  {
    Line line{table_name, {}};
    line.add(table.cells), line.add(table.starts), line.add(table.points), line.add(table.pixels);
  }
  Line line{name, {}};
  Random random;
  const std::size_t pixels = 2 * spec.image.feature_height() * spec.image.feature_width();
  const std::vector<float> depth = random.floats(pixels * spec.depth.bins, 0, 1),
                           context = random.floats(pixels * 33, -2, 2);
  std::vector<float> out(34 * spec.grid.width() * spec.grid.height()), workspace(lift_workspace(spec));
  lift(spec, table, depth.data(), context.data(), out.data(), workspace.data(), pool);
  line.add(out);
}

void radar(ThreadPool& pool, const char* name, RadialVelocity velocity) {
  Line line{name, {}};
  const ModelSpec spec = spec_with_everything(DepthSpacing::linear);
  const SensorRig rig = rig_with(Distortion::none, {}, velocity);
  fakes::Moment m = fakes::moment(rig, 7, 700);
  m.frames.ego.twist = Vec3{7, 0.25, 0.125};
  for (RadarSweep& sweep : m.frames.sweeps) sweep.timestamp_ns -= 50'000'000 * (1 + sweep.radar);
  RadarInput inputs[2];
  Health health;
  const int count = resolve_sweeps(spec, rig, m.frames, EgoMotion(rig, m.frames, spec.radar.max_age), inputs, health);
  std::vector<float> out(spec.radar.features.size() * spec.radar_width() * spec.radar_height());
  std::vector<char> workspace(radar_workspace(spec));
  line.add(voxelize_radar(spec, ground_of(spec, rig), inputs, count, out.data(), workspace.data(), pool));
  line.add(out);
}

void ego_speed() {
  Line line{"estimate_ego_speed", {}};
  for (const RadialVelocity velocity : {RadialVelocity::raw, RadialVelocity::aliased}) {
    const SensorRig rig = rig_with(Distortion::none, {}, velocity);
    const fakes::Moment m = fakes::moment(rig, 3, 900);
    const EgoSpeed ego = estimate_ego_speed(rig, m.frames.sweeps.data(), 2);
    line.add(ego.speed), line.add(ego.residual), line.add(ego.inliers);
  }
}

void warp(ThreadPool& pool) {
  Line line{"warp_bev", {}};
  const GridSpec grid = spec_with_everything(DepthSpacing::linear).grid;
  Random random;
  const std::vector<float> map = random.floats(7 * grid.width() * grid.height(), -3, 3);
  std::vector<float> out(map.size());
  warp_bev(grid, {}, map.data(), 7, kTurned, out.data(), pool);
  line.add(out);
}

void boxes(ThreadPool& pool) {
  Line line{"decode", {}};
  const ModelSpec spec = spec_with_everything(DepthSpacing::linear);
  const std::size_t cells = spec.grid.width() * spec.grid.height();
  Random random;
  const std::vector<float> heatmap = random.floats(2 * cells, -6, 3), box = random.floats(20 * cells, -2, 2);
  std::vector<Detection> out;
  out.reserve(spec.head.max_detections);
  std::vector<char> workspace(decode_workspace(spec));
  line.add(decode(spec, {0.02, -0.01, 0.3}, heatmap.data(), box.data(), out, workspace.data(), pool));
  for (const Detection& d : out) {
    line.add(d.label);
    for (float value : {d.score, d.x, d.y, d.z, d.length, d.width, d.height, d.yaw, d.vx, d.vy}) line.add(value);
  }
}

}  // namespace

int main() {
  ThreadPool pool(2);
  images(pool);
  lifts(pool, "lift", "lift_table", DepthSpacing::linear, Distortion::none, {});
  lifts(pool, "lift_plumb_bob", "lift_table_plumb_bob", DepthSpacing::linear, Distortion::plumb_bob,
        {-0.21, 0.06, 0.0011, -0.0007, -0.004});
  lifts(pool, "lift_fisheye_log", "lift_table_fisheye_log", DepthSpacing::log, Distortion::fisheye,
        {0.03, -0.012, 0.004, -0.0006});
  radar(pool, "voxelize_radar", RadialVelocity::compensated);
  radar(pool, "voxelize_radar_raw", RadialVelocity::raw);
  radar(pool, "voxelize_radar_aliased", RadialVelocity::aliased);
  ego_speed();
  warp(pool);
  boxes(pool);
}
