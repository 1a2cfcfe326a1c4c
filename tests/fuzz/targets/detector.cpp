// A detector whose frames, rigs and network outputs are the input: images of every layout, radar points, times and
// poses of any value. The order of calls is part of the input.
#include "imkd/detector.hpp"

#include "fakes.hpp"
#include "sensors.hpp"

using namespace imkd;
using fuzz::Input;

namespace {

std::vector<float> noise;  // takes the place of every so many outputs of the BEV network

void run_noisy(fakes::FakeEngine& engine) {
  fakes::run_bev_with_maps(engine);
  for (const char* name : {"heatmap", "box", "fused", "segmentation"}) {
    float* values = engine.data(name);
    const std::size_t count = engine.size(name);
    for (std::size_t i = 0; i < noise.size(); ++i) values[(i * 37 + 5) % count] = noise[i];
  }
}

ModelSpec spec() {
  ModelSpec spec = fakes::history_spec();
  spec.radar.max_points = 40;  // some frames hold more; and the scratch memory of few points is quick to make
  return spec;
}

SensorRig rig_of(Input& input) {
  SensorRig rig = fakes::small_rig();
  for (CameraCalibration& camera : rig.cameras) {
    if (input.flag()) camera.T_ego_camera[11] = input.number();
    if (input.flag()) camera.K[0] = camera.K[4] = input.number();
    if (!input.flag()) continue;
    camera.distortion = static_cast<Distortion>(input.below(4));
    camera.coefficients.resize(static_cast<std::size_t>(input.below(9)));
    for (double& one : camera.coefficients) one = input.number();
  }
  for (RadarCalibration& radar : rig.radars) {
    radar.T_ego_radar = input.flag() ? input.pose() : radar.T_ego_radar;
    radar.velocity = static_cast<RadialVelocity>(input.below(3));
    if (radar.velocity == RadialVelocity::aliased) radar.period = input.number();
  }
  if (input.flag()) rig.ground_plane = Vec3{input.number(), input.number(), input.number()};
  if (input.below(4) == 0) rig.cameras.pop_back();
  if (input.below(4) == 0) rig.radars.clear();
  return rig;
}

FrameSet frames_of(Input& input, fuzz::Sensors& sensors, const SensorRig& rig, std::int64_t& now) {
  FrameSet frames;
  frames.timestamp_ns = now = input.time(now);
  for (const CameraCalibration& camera : rig.cameras) frames.cameras.push_back(sensors.image(input, camera));
  if (input.flag())
    for (std::size_t i = 0; i < rig.cameras.size(); ++i) frames.camera_timestamps_ns.push_back(input.time(now));
  if (input.flag())
    for (std::size_t i = 0; i < rig.cameras.size(); ++i)
      frames.camera_T_world_ego.push_back(input.flag() ? std::optional(input.pose()) : std::nullopt);
  for (int count = input.below(6); count > 0; --count)
    frames.sweeps.push_back(sensors.sweep(input, std::max<std::size_t>(rig.radars.size(), 1), now));
  frames.ego = input.ego();
  return frames;
}

void check(const Result& result, const Detector& detector) {
  const Health& health = result.health;
  fuzz::require(health.cameras.size() == detector.rig().cameras.size(), "every camera has a state");
  fuzz::require(health.radars.size() == detector.rig().radars.size(), "every radar has a state");
  fuzz::require(health.mode != Mode::blind || result.detections.empty(), "a blind frame has no box");
  float last = 1;
  for (const Detection& d : result.detections) {
    for (float number : {d.x, d.y, d.z, d.length, d.width, d.height, d.yaw, d.vx, d.vy})
      fuzz::require(std::isfinite(number), "a box is finite");
    fuzz::require(d.score >= 0 && d.score <= last, "scores are in 0..1, the best first");
    fuzz::require(d.label >= 0 && d.label < 2, "a label is a class");
    last = d.score;
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  DetectorOptions options;
  options.threads = 1;
  options.debug = input.flag();
  noise = input.values<float>(static_cast<std::size_t>(input.below(24)));
  Detector detector(spec(), fakes::small_rig(), fakes::camera_engine(), fakes::bev_engine_with_maps(run_noisy),
                    options);
  std::int64_t now = 1'000'000'000;
  for (int calls = 0; calls < 8 && input.left() > 0; ++calls) {
    fuzz::Sensors sensors;
    const int call = input.below(8);
    if (call == 0) {
      fuzz::accepted([&] { detector.set_rig(rig_of(input)); });
    } else if (call == 1) {
      detector.reset();
    } else {
      const FrameSet frames = frames_of(input, sensors, detector.rig(), now);
      fuzz::accepted([&] { check(detector.infer(frames), detector); });
    }
  }
  return 0;
}
