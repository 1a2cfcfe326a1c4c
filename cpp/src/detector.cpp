#include "imkd/detector.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "buffers.hpp"
#include "history.hpp"
#include "imkd/error.hpp"
#include "imkd/ops.hpp"
#include "imkd/thread_pool.hpp"

namespace imkd {
namespace {

double seconds(std::int64_t from_ns, std::int64_t to_ns) { return (static_cast<double>(to_ns) - static_cast<double>(from_ns)) * 1e-9; }

bool usable(SensorState state) { return state == SensorState::ok || state == SensorState::late; }

Mode mode_of(const Health& health) {
  const auto cameras = std::count_if(health.cameras.begin(), health.cameras.end(), usable);
  const auto radars = std::count_if(health.radars.begin(), health.radars.end(), usable);
  if (cameras == 0) return radars == 0 ? Mode::blind : Mode::radar_only;
  if (radars == 0) return Mode::camera_only;
  const bool all = cameras == static_cast<long>(health.cameras.size()) && radars == static_cast<long>(health.radars.size());
  return all ? Mode::full : Mode::partial;
}

class Stopwatch {  // µs since the last lap
 public:
  float lap() {
    const auto now = std::chrono::steady_clock::now();
    const float time = std::chrono::duration<float, std::micro>(now - last_).count();
    last_ = now;
    return time;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace

struct Detector::State {
  ModelSpec spec;
  SensorRig rig;
  std::shared_ptr<Engine> camera, bev;
  ThreadPool pool;
  SizeTable table;
  std::array<std::shared_ptr<float>, kBuffers> data;  // null where nobody needs it
  History history;
  std::vector<float> lift_scratch;
  std::vector<std::max_align_t> radar_scratch, decode_scratch;
  std::vector<float> vehicles;   // probabilities of the segmentation
  std::vector<ImageCrop> crops;  // by camera
  LiftTable lift_table;
  std::vector<ImageView> images;   // of this frame; those that are unusable have no data
  std::vector<RadarInput> sweeps;  // grows only when a frame brings more sweeps than any before
  Result result;

  State(const ModelSpec& spec, int threads, bool debug) : spec(spec), pool(threads), table(size_table(spec, debug)), history(spec) {}
  void connect();
  void set_rig(const SensorRig& rig);
  void check(const FrameSet& frames) const;
  void assess_cameras(const FrameSet& frames);
  void run_cameras(Stopwatch& watch);
  void run_radars(const FrameSet& frames, Stopwatch& watch);
  void run_history(const FrameSet& frames, Stopwatch& watch);
  void run_bev(Stopwatch& watch);
  void read_maps();
  void clear(Buffer buffer) { std::memset(data[buffer].get(), 0, table[buffer].size() * sizeof(float)); }
};

// Allocates every buffer and hands the engines theirs.
void Detector::State::connect() {
  check_tensors(camera->inputs(), table, Port::camera_input, "camera.onnx, inputs");
  check_tensors(camera->outputs(), table, Port::camera_output, "camera.onnx, outputs");
  check_tensors(bev->inputs(), table, Port::bev_input, "bev.onnx, inputs");
  check_tensors(bev->outputs(), table, Port::bev_output, "bev.onnx, outputs");
  for (int i = 0; i < kBuffers; ++i) {
    if (table[i].need != Need::always) continue;
    data[i] = allocate(table[i].size());
    const bool of_camera = table[i].port == Port::camera_input || table[i].port == Port::camera_output;
    (of_camera ? camera : bev)->bind(table[i].name, data[i]);
  }
  const auto blocks = [](std::size_t bytes) { return bytes / sizeof(std::max_align_t) + 1; };
  lift_scratch.resize(lift_workspace(spec));
  radar_scratch.resize(blocks(radar_workspace(spec)));
  decode_scratch.resize(blocks(decode_workspace(spec)));
  images.resize(static_cast<std::size_t>(spec.cameras));
  if (data[kSegmentation]) vehicles.resize(table[kSegmentation].size());
  result.detections.reserve(static_cast<std::size_t>(spec.head.max_detections));
  result.debug.reserve(2);
}

void Detector::State::set_rig(const SensorRig& next) {
  next.check();
  if (!crops.empty() && next.to_json() == rig.to_json()) return;  // most sources repeat one rig with every frame
  if (next.cameras.size() != static_cast<std::size_t>(spec.cameras))
    throw Error(Code::rig_mismatch,
                "the rig has " + std::to_string(next.cameras.size()) + " cameras, the model was made for " + std::to_string(spec.cameras),
                "rig", "use a rig with that many cameras, or a bundle trained for this rig");
  std::vector<ImageCrop> next_crops;
  for (const CameraCalibration& c : next.cameras) next_crops.push_back(image_crop(spec.image, c.width, c.height));
  LiftTable next_table = imkd::lift_table(spec, next, next_crops.data());
  SensorRig copy = next;
  const std::size_t radars = next.radars.size();
  result.health.radars.reserve(radars), result.health.cameras.reserve(next.cameras.size());
  if (sweeps.size() < 16 * radars) sweeps.resize(16 * radars);
  rig = std::move(copy), crops = std::move(next_crops), lift_table = std::move(next_table);  // nothing from here on throws
}

// What only a mistake in the caller's program can bring.
void Detector::State::check(const FrameSet& frames) const {
  if (frames.cameras.size() != rig.cameras.size())
    throw Error(Code::frame_count, std::to_string(frames.cameras.size()) + " images for " + std::to_string(rig.cameras.size()) + " cameras",
                "FrameSet::cameras", "give one view per camera of the rig; an absent camera has data == nullptr");
  if (!frames.camera_timestamps_ns.empty() && frames.camera_timestamps_ns.size() != rig.cameras.size())
    throw Error(Code::frame_count,
                std::to_string(frames.camera_timestamps_ns.size()) + " times for " + std::to_string(rig.cameras.size()) + " cameras",
                "FrameSet::camera_timestamps_ns", "give one per camera, or none");
  for (std::size_t i = 0; i < rig.cameras.size(); ++i) {
    const ImageView& image = frames.cameras[i];
    const CameraCalibration& camera = rig.cameras[i];
    if (image.data && (image.width != camera.width || image.height != camera.height))
      throw Error(Code::frame_bad_shape,
                  "image is " + std::to_string(image.width) + "x" + std::to_string(image.height) + ", calibrated for " +
                      std::to_string(camera.width) + "x" + std::to_string(camera.height),
                  "camera " + camera.name, "give the raw image, or set_rig with the calibration of this size");
  }
  for (const RadarSweep& sweep : frames.sweeps) {
    if (sweep.radar < 0 || static_cast<std::size_t>(sweep.radar) >= rig.radars.size())
      throw Error(Code::frame_unknown_sensor, "there is no radar " + std::to_string(sweep.radar), "FrameSet::sweeps",
                  "use an index into the rig's " + std::to_string(rig.radars.size()) + " radars");
    if (sweep.count < 0 || (sweep.count > 0 && !sweep.points))
      throw Error(Code::frame_bad_shape, "a sweep has no points but a count of " + std::to_string(sweep.count),
                  "radar " + rig.radars[static_cast<std::size_t>(sweep.radar)].name, "give (count, 5) float32");
  }
}

void Detector::State::assess_cameras(const FrameSet& frames) {
  result.health.cameras.assign(rig.cameras.size(), SensorState::missing);
  for (std::size_t i = 0; i < rig.cameras.size(); ++i) {
    images[i] = frames.cameras[i];
    if (!images[i].data) continue;
    const double age = frames.camera_timestamps_ns.empty() ? 0 : std::abs(seconds(frames.camera_timestamps_ns[i], frames.timestamp_ns));
    SensorState& state = result.health.cameras[i];
    state = age > spec.radar.max_age ? SensorState::stale : age > spec.radar.max_age / 2 ? SensorState::late : SensorState::ok;
    if (!usable(state)) images[i].data = nullptr;
  }
}

// images -> camera_bev; a camera that is absent puts nothing into it.
void Detector::State::run_cameras(Stopwatch& watch) {
  const bool any = std::any_of(images.begin(), images.end(), [](const ImageView& image) { return image.data; });
  preprocess_images(images.data(), crops.data(), spec.cameras, spec.image, data[kImages].get(), pool);
  result.timings_us[kPreprocess] = watch.lap();
  if (any) camera->run();
  for (Buffer buffer : {kDepth, kContext}) {
    const std::size_t block = table[buffer].size() / images.size();
    for (std::size_t i = 0; i < images.size(); ++i)
      if (!images[i].data) std::memset(data[buffer].get() + i * block, 0, block * sizeof(float));
  }
  result.timings_us[kCamera] = watch.lap();
  if (any)
    lift(spec, lift_table, data[kDepth].get(), data[kContext].get(), data[kCameraBev].get(), lift_scratch.data(), pool);
  else
    clear(kCameraBev);
  result.timings_us[kLift] = watch.lap();
}

void Detector::State::run_radars(const FrameSet& frames, Stopwatch& watch) {
  if (sweeps.size() < frames.sweeps.size()) sweeps.resize(frames.sweeps.size());
  const int count = resolve_sweeps(spec, rig, frames, sweeps.data(), result.health);
  const RadarStats stats = voxelize_radar(spec, sweeps.data(), count, data[kRadarGrid].get(), radar_scratch.data(), pool);
  result.health.radar_points = stats.used;
  result.health.radar_points_invalid = stats.invalid;
  result.health.radar_points_outside = stats.outside;
  result.health.radar_points_overflow = stats.overflow;
  result.timings_us[kRadar] = watch.lap();
}

// The past fused maps, seen from the present frame; without any in the spec this costs nothing.
void Detector::State::run_history(const FrameSet& frames, Stopwatch& watch) {
  result.health.past_frames = 0;
  result.timings_us[kWarp] = 0;
  if (!data[kHistory]) return;
  Ego ego = frames.ego;
  if (!ego.twist && result.health.ego_speed_estimated) ego.twist = Vec3{result.health.ego_speed, 0, 0};
  history.advance(frames.timestamp_ns, ego);
  result.health.past_frames = history.fill(data[kHistory].get(), pool);
  result.timings_us[kWarp] = watch.lap();
}

void Detector::State::run_bev(Stopwatch& watch) {
  bev->run();
  result.timings_us[kBev] = watch.lap();
  result.health.mode = mode_of(result.health);
  if (!data[kFused] || result.health.mode == Mode::blind) return;  // what a network says to zeros is no observation
  history.store(data[kFused].get());
  result.timings_us[kWarp] += watch.lap();
}

// The maps among the outputs, as views that the result hands out.
void Detector::State::read_maps() {
  const int rows = spec.grid.height(), columns = spec.grid.width();
  if (data[kSegmentation]) {
    const float* logits = data[kSegmentation].get();
    const bool blind = result.health.mode == Mode::blind;
    for (std::size_t i = 0; i < vehicles.size(); ++i) vehicles[i] = blind ? 0.f : 1 / (1 + std::exp(-logits[i]));
    result.segmentation = {"segmentation", rows, columns, vehicles.data()};
  }
  for (Buffer gate : {kCameraGate, kRadarGate})
    if (data[gate]) result.debug.push_back({table[gate].name, rows, columns, data[gate].get()});
}

Detector::Detector(const ModelSpec& spec, const SensorRig& rig, std::shared_ptr<Engine> camera, std::shared_ptr<Engine> bev,
                   const DetectorOptions& options) {
  if (!camera || !bev)
    throw Error(Code::engine_unavailable, "an engine is missing", "Detector", "give one for the camera part and one for the BEV part");
  constexpr int kMaxThreads = DetectorOptions::kMaxThreads;
  if (options.threads < 0 || options.threads > kMaxThreads)
    throw Error(Code::device_unavailable, std::to_string(options.threads) + " threads", "DetectorOptions::threads",
                "from 1 to " + std::to_string(kMaxThreads) + ", or 0 for one per core");
  ModelSpec used = spec;
  if (!(options.score_threshold < 0)) used.head.score_threshold = options.score_threshold;
  used.check();
  state_ = std::make_unique<State>(used, options.threads, options.debug);
  state_->camera = std::move(camera), state_->bev = std::move(bev);
  state_->set_rig(rig);
  state_->connect();
}

Detector Detector::load(const std::string& path, const SensorRig& rig, const DetectorOptions& options) {
  const Bundle bundle = Bundle::load(path);
  std::shared_ptr<Engine> camera = make_engine(options.engine, options.threads), bev = make_engine(options.engine, options.threads);
  camera->load(bundle.file("camera.onnx"));
  bev->load(bundle.file("bev.onnx"));
  return {bundle.spec, rig, camera, bev, options};
}

Detector::~Detector() = default;
Detector::Detector(Detector&&) noexcept = default;
Detector& Detector::operator=(Detector&&) noexcept = default;

void Detector::set_rig(const SensorRig& rig) { state_->set_rig(rig); }
void Detector::reset() { state_->history.reset(); }
const ModelSpec& Detector::spec() const { return state_->spec; }
const SensorRig& Detector::rig() const { return state_->rig; }

const Result& Detector::infer(const FrameSet& frames) {
  State& s = *state_;
  Stopwatch watch, total;
  s.check(frames);
  s.result.timestamp_ns = frames.timestamp_ns;
  s.result.detections.clear();  // first: a failing engine must not leave the last frame's boxes, nor its maps
  s.result.segmentation = {};
  s.result.debug.clear();
  s.assess_cameras(frames);
  s.run_cameras(watch);
  s.run_radars(frames, watch);
  s.run_history(frames, watch);
  s.run_bev(watch);
  Health& health = s.result.health;
  health.boxes_invalid = decode(s.spec, s.data[kHeatmap].get(), s.data[kBox].get(), s.result.detections, s.decode_scratch.data(), s.pool);
  if (health.mode == Mode::blind) s.result.detections.clear();
  s.read_maps();
  s.result.timings_us[kDecode] = watch.lap();
  s.result.total_us = total.lap();
  return s.result;
}

std::vector<Detector::Tensor> Detector::tensors() const {
  std::vector<Tensor> tensors;
  for (int i = 0; i < kBuffers; ++i)
    if (state_->data[i]) tensors.push_back({state_->table[i].name, state_->data[i].get(), state_->table[i].shape});
  return tensors;
}

}  // namespace imkd
