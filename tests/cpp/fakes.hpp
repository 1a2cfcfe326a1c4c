// A small model for tests: its spec, a rig, a moment of sensor data, and engines whose outputs are simple functions of
// their inputs.
#pragma once
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "imkd/detector.hpp"
#include "imkd/error.hpp"

namespace imkd::fakes {

inline ModelSpec small_spec() {
  ModelSpec s;
  s.name = "small";
  s.cameras = 2;
  s.image.width = 32;
  s.image.height = 16;
  s.image.stride = 8;
  s.depth.min = 1;
  s.depth.max = 9;
  s.depth.bins = 4;
  s.context_channels = 3;
  s.grid = {-8, 8, -8, 8, -5, 3, 1};
  s.radar.cell = 1;
  s.radar.features = {{RadarStatistic::log_count, 0, 1}, {RadarStatistic::velocity_x, 0, 0.1f}};
  s.head.classes = {{"car", 0, 1.0}, {"pedestrian", 1, 0.5}};
  return s;
}

inline ModelSpec history_spec() {  // two past maps of three channels, half a second apart
  ModelSpec s = small_spec();
  s.history.frames = 2;
  s.history.interval = 0.5;
  s.history.channels = 3;
  s.segmentation = true;
  return s;
}

// One camera looks ahead, one back; one radar at the front, one at the rear.
inline SensorRig small_rig() {
  SensorRig rig;
  const Mat3 K{40, 0, 39.5, 0, 40, 19.5, 0, 0, 1};
  const Mat4 front{0, 0, 1, 0, -1, 0, 0, 0, 0, -1, 0, 1, 0, 0, 0, 1},
      back{0, 0, -1, 0, 1, 0, 0, 0, 0, -1, 0, 1, 0, 0, 0, 1};
  for (const auto& [name, T] : std::map<std::string, Mat4>{{"A_FRONT", front}, {"B_BACK", back}}) {
    CameraCalibration camera;
    camera.name = name;
    camera.width = 80;
    camera.height = 40;
    camera.K = K;
    camera.T_ego_camera = T;
    rig.cameras.push_back(camera);
  }
  for (const char* name : {"R_FRONT", "R_REAR"}) {
    RadarCalibration radar;
    radar.name = name;
    if (name[2] == 'R') radar.T_ego_radar = {-1, 0, 0, -1, 0, -1, 0, 0, 0, 0, 1, 0.5, 0, 0, 0, 1};
    rig.radars.push_back(radar);
  }
  return rig;
}

struct Moment {  // owns what a FrameSet views
  std::vector<std::vector<std::uint8_t>> pixels;
  std::vector<std::vector<float>> points;
  FrameSet frames;
};

inline Moment moment(const SensorRig& rig, unsigned seed = 1, int points = 200) {
  Moment m;
  auto next = [&seed] { return (seed = seed * 1664525u + 1013904223u) >> 8; };  // Numerical Recipes' generator
  auto uniform = [&](float low, float high) {
    return low + (high - low) * static_cast<float>(next() & 0xffff) / 65535.f;
  };
  m.frames.timestamp_ns = 1'000'000'000;
  for (const CameraCalibration& c : rig.cameras) {
    auto& image = m.pixels.emplace_back(static_cast<std::size_t>(c.width) * c.height * 3);
    for (auto& value : image) value = static_cast<std::uint8_t>(next());
    m.frames.cameras.push_back({image.data(), c.width, c.height, c.width * 3, 3, 1});
  }
  for (std::size_t r = 0; r < rig.radars.size(); ++r) {
    auto& sweep = m.points.emplace_back();
    for (int i = 0; i < points; ++i)
      for (float value : {uniform(0, 9), uniform(-9, 9), uniform(-1, 1), uniform(-10, 30), uniform(-5, 5)})
        sweep.push_back(value);
    m.frames.sweeps.push_back({static_cast<int>(r), m.frames.timestamp_ns, sweep.data(), points, {}});
  }
  return m;
}

class FakeEngine : public Engine {
 public:
  using Tensors = std::vector<TensorInfo>;
  FakeEngine(Tensors inputs, Tensors outputs, void (*body)(FakeEngine&))
      : inputs_(inputs), outputs_(outputs), body_(body) {}
  std::string name() const override { return "fake"; }
  void load(const std::string&) override {}
  Tensors inputs() const override { return inputs_; }
  Tensors outputs() const override { return outputs_; }
  void bind(const std::string& tensor, std::shared_ptr<void> data) override { bound[tensor] = data; }
  void run(void*) override {
    ++runs;
    if (fails) throw Error(Code::engine_run, "the fake engine was told to fail");
    body_(*this);
  }
  float* data(const char* name) { return static_cast<float*>(bound.find(name)->second.get()); }
  std::size_t size(const char* name) const {
    for (const auto* infos : {&inputs_, &outputs_})
      for (const TensorInfo& info : *infos) {
        std::size_t count = 1;
        for (auto extent : info.shape) count *= static_cast<std::size_t>(extent);
        if (info.name == name) return count;
      }
    return 0;
  }
  std::map<std::string, std::shared_ptr<void>, std::less<>> bound;
  int runs = 0;
  bool fails = false;

 protected:
  Tensors inputs_, outputs_;
  void (*body_)(FakeEngine&);
};

// Finite functions of the pixels; each camera's block depends on that camera alone.
inline void run_camera(FakeEngine& e) {
  const std::size_t ni = e.size("images") / 2, nd = e.size("depth") / 2, nc = e.size("context") / 2;
  for (std::size_t camera = 0; camera < 2; ++camera) {
    const float* image = e.data("images") + camera * ni;
    float *depth = e.data("depth") + camera * nd, *context = e.data("context") + camera * nc;
    for (std::size_t i = 0; i < nd; ++i) depth[i] = 0.25f + 0.01f * std::sin(image[i * 7 % ni]);
    for (std::size_t i = 0; i < nc; ++i) context[i] = 1 + 0.1f * image[i * 13 % ni];
  }
}

// A logit per cell from both inputs: a box where there are enough radar points or camera features.
inline void run_bev(FakeEngine& e) {
  const float *camera = e.data("camera_bev"), *radar = e.data("radar_grid");
  float *heatmap = e.data("heatmap"), *box = e.data("box");
  const std::size_t cells = 256, heat = e.size("heatmap"), boxes = e.size("box");
  for (std::size_t i = 0; i < heat; ++i)
    heatmap[i] = -2 + camera[i % cells] + 2 * radar[i % cells] - (i >= cells ? 0.5f : 0.f);
  for (std::size_t i = 0; i < boxes; ++i) box[i] = 0.1f * std::sin(static_cast<float>(i)) + 0.01f * camera[i % cells];
}

inline std::shared_ptr<FakeEngine> camera_engine() {
  return std::make_shared<FakeEngine>(FakeEngine::Tensors{{"images", {2, 3, 16, 32}}},
                                      FakeEngine::Tensors{{"depth", {2, 4, 2, 4}}, {"context", {2, 3, 2, 4}}},
                                      run_camera);
}

inline std::shared_ptr<FakeEngine> bev_engine() {
  return std::make_shared<FakeEngine>(
      FakeEngine::Tensors{{"camera_bev", {1, 4, 16, 16}}, {"radar_grid", {1, 2, 16, 16}}},
      FakeEngine::Tensors{{"heatmap", {1, 2, 16, 16}}, {"box", {1, 20, 16, 16}}}, run_bev);
}

// As bev_engine, with the maps of history_spec; gates are written where they are bound.
inline void run_bev_with_maps(FakeEngine& e) {
  run_bev(e);
  const std::size_t cells = 256;
  const float *camera = e.data("camera_bev"), *radar = e.data("radar_grid"), *history = e.data("history");
  float *fused = e.data("fused"), *segmentation = e.data("segmentation");
  for (std::size_t i = 0, count = e.size("fused"); i < count; ++i) fused[i] = camera[i] + radar[i % (2 * cells)];
  for (std::size_t i = 0; i < cells; ++i) segmentation[i] = history[i] - 1;
  for (const char* name : {"i_cam", "i_rad"}) {
    if (!e.bound.count(name)) continue;
    float* gate = e.data(name);
    for (std::size_t i = 0; i < cells; ++i) gate[i] = static_cast<float>(i) / cells;
  }
}

// As run_bev_with_maps; the run that counts nan_countdown down to 0 puts a NaN and an infinity into the fused map.
inline int nan_countdown = 0;
inline void run_bev_with_a_nan(FakeEngine& e) {
  run_bev_with_maps(e);
  if (nan_countdown <= 0 || --nan_countdown > 0) return;
  e.data("fused")[700] = std::nanf("");
  e.data("fused")[3] = std::numeric_limits<float>::infinity();
}

inline std::shared_ptr<FakeEngine> bev_engine_with_maps(void (*body)(FakeEngine&) = run_bev_with_maps) {
  const TensorInfo camera{"camera_bev", {1, 4, 16, 16}}, radar{"radar_grid", {1, 2, 16, 16}},
      history{"history", {1, 6, 16, 16}}, heatmap{"heatmap", {1, 2, 16, 16}}, box{"box", {1, 20, 16, 16}},
      fused{"fused", {1, 3, 16, 16}}, segmentation{"segmentation", {1, 1, 16, 16}}, i_cam{"i_cam", {1, 1, 16, 16}},
      i_rad{"i_rad", {1, 1, 16, 16}};
  return std::make_shared<FakeEngine>(FakeEngine::Tensors{camera, radar, history},
                                      FakeEngine::Tensors{heatmap, box, fused, segmentation, i_cam, i_rad}, body);
}

template <class Call>
Code code_of(Call&& call) {  // of the Error that the call throws; Code{} where it throws none
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return Code{};
}

}  // namespace imkd::fakes
