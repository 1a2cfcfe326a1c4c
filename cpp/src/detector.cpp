#include "imkd/detector.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>

#include "contract_check.hpp"
#include "exclusive_call.hpp"
#include "frame_loop.hpp"
#include "imkd/coverage.hpp"
#include "imkd/error.hpp"
#include "imkd/thread_pool.hpp"
#include "rig_warnings.hpp"
#include "sensor_memory.hpp"
#include "time_ns.hpp"

namespace imkd {

struct Detector::State {
  ModelSpec spec;
  SensorRig rig;
  std::unique_ptr<FrameLoop> loop;
  History history;
  std::vector<CameraCoverage> coverage;  // by camera
  ContractCheck check_contract;
  SensorMemory memory;
  bool has_rig = false;
  bool unsigned_bundle = false;
  std::string why_not_cuda;
  EgoMotion motion;
  FrameSet input;  // a copy of the caller's, as its poses are orthonormalised; a member to reuse its memory
  Frame frame;
  Result result;
  CallGate gate;

  State(const ModelSpec& spec, std::unique_ptr<FrameLoop> loop, const std::optional<Contract>& contract)
      : spec(spec), loop(std::move(loop)), history(spec), check_contract(spec, contract) {
    result.health.warnings.reserve(std::size(kWarningCodes));
    frame.images.resize(static_cast<std::size_t>(spec.cameras));
    frame.T_ref_ego.assign(static_cast<std::size_t>(spec.cameras), identity4());
    frame.past.resize(static_cast<std::size_t>(spec.history.frames));
    result.detections.reserve(static_cast<std::size_t>(spec.head.max_detections));
    result.debug.reserve(2);
  }
  void set_rig(const SensorRig& rig);
  void check(const FrameSet& frames) const;
  void clear_result(std::int64_t timestamp_ns);
  void assess_cameras(const FrameSet& frames);
  void resolve_radars(const FrameSet& frames);
  void select_past(const FrameSet& frames);
};

// A rig whose cameras see nothing at all is a mistake of its calibration: no frame could use one of them.
static void check_coverage(const std::vector<CameraCoverage>& coverage) {
  for (const CameraCoverage& camera : coverage)
    if (camera.in_grid > 0) return;
  if (!coverage.empty())
    throw Error(Code::rig_bad_value, "no camera sees the model's grid: " + to_text(coverage), "cameras",
                "correct the calibration: T_ego_camera in metres, z of the ego frame up, the camera's axes x right, y "
                "down, z ahead; K in px of the raw image");
}

void Detector::State::set_rig(const SensorRig& next) {
  SensorRig copy = next.orthonormalised();
  if (has_rig && copy.to_json() == rig.to_json()) return;  // most sources pass the same rig with every frame
  check_cameras(spec, next);
  std::vector<CameraCoverage> next_coverage = camera_coverage(spec, copy);
  check_coverage(next_coverage);
  std::vector<Warning> warnings = rig_warnings(spec, copy, check_contract.contract(), next_coverage);
  std::vector<ImageCrop> crops;
  for (const CameraCalibration& c : next.cameras) crops.push_back(image_crop(spec.image, c.width, c.height));
  crops.resize(frame.images.size());  // the crop of an absent camera is not used
  const std::size_t radars = next.radars.size();
  result.health.radars.reserve(radars);
  result.health.cameras.reserve(next.cameras.size());
  input.cameras.reserve(next.cameras.size());
  input.camera_timestamps_ns.reserve(next.cameras.size());
  input.camera_T_world_ego.reserve(next.cameras.size());
  motion.reserve(next.cameras.size(), kSweepsPerRadar * radars);
  input.sweeps.reserve(kSweepsPerRadar * radars);
  if (frame.sweeps.size() < kSweepsPerRadar * radars) frame.sweeps.resize(kSweepsPerRadar * radars);
  loop->set_rig(copy, crops);
  // Nothing below throws.
  rig = std::move(copy);
  coverage = std::move(next_coverage);
  memory.set_rig(rig, spec.radar.max_age);
  std::fill(frame.images.begin(), frame.images.end(), ImageView{});  // those beyond the rig's cameras stay absent
  check_contract.set_rig(std::move(warnings));
  has_rig = true;
}

// The caller's mistakes.
void Detector::State::check(const FrameSet& frames) const {
  if (frames.cameras.size() != rig.cameras.size())
    throw Error(
        Code::frame_count,
        std::to_string(frames.cameras.size()) + " images for " + std::to_string(rig.cameras.size()) + " cameras",
        "FrameSet::cameras", "give one view per camera of the rig; an absent camera has data == nullptr");
  if (!frames.camera_timestamps_ns.empty() && frames.camera_timestamps_ns.size() != rig.cameras.size())
    throw Error(Code::frame_count,
                std::to_string(frames.camera_timestamps_ns.size()) + " times for " +
                    std::to_string(rig.cameras.size()) + " cameras",
                "FrameSet::camera_timestamps_ns", "give one per camera, or none");
  if (!frames.camera_T_world_ego.empty() && frames.camera_T_world_ego.size() != rig.cameras.size())
    throw Error(Code::frame_count,
                std::to_string(frames.camera_T_world_ego.size()) + " ego poses for " +
                    std::to_string(rig.cameras.size()) + " cameras",
                "FrameSet::camera_T_world_ego", "give one per camera, or none");
  for (std::size_t i = 0; i < rig.cameras.size(); ++i) {
    const ImageView& image = frames.cameras[i];
    const CameraCalibration& camera = rig.cameras[i];
    if (image.data && !fits(camera, image)) {
      if (memory.delivered_fitting(i)) continue;  // a fault of the camera
      throw Error(Code::frame_bad_shape,
                  "image is " + std::to_string(image.width) + "x" + std::to_string(image.height) +
                      ", the calibration is for " + std::to_string(camera.width) + "x" + std::to_string(camera.height),
                  "camera " + camera.name, "give the raw image, or set_rig with the calibration of this size");
    }
    if (image.data) check_layout(image, "camera " + camera.name);
  }
  for (const RadarSweep& sweep : frames.sweeps) {
    if (sweep.radar < 0 || static_cast<std::size_t>(sweep.radar) >= rig.radars.size())
      throw Error(Code::frame_unknown_sensor, "there is no radar " + std::to_string(sweep.radar), "FrameSet::sweeps",
                  "use an index into the rig's " + std::to_string(rig.radars.size()) + " radars");
    if (sweep.count < 0 || (sweep.count > 0 && !sweep.points))
      throw Error(
          Code::frame_bad_shape,
          "a sweep has a count of " + std::to_string(sweep.count) + (sweep.count < 0 ? ", below 0" : " and no points"),
          "radar " + rig.radars[static_cast<std::size_t>(sweep.radar)].name, "give (count, 5) float32, count >= 0");
  }
}

// A frame that throws must not leave the previous frame's boxes or maps.
void Detector::State::clear_result(std::int64_t timestamp_ns) {
  result.timestamp_ns = timestamp_ns;
  result.detections.clear();
  result.segmentation = {};
  result.debug.clear();
  result.health.warnings.clear();
  result.timings_us = {};
  result.replayed = false;
}

void Detector::State::assess_cameras(const FrameSet& frames) {
  result.health.cameras.assign(rig.cameras.size(), SensorState::missing);
  for (std::size_t i = 0; i < rig.cameras.size(); ++i) {
    ImageView& image = frame.images[i];
    image = frames.cameras[i];
    if (!image.data) continue;
    SensorState& state = result.health.cameras[i];
    const std::int64_t time_ns = frames.camera_time(i);
    state = camera_state(coverage[i], seconds_between(time_ns, frames.timestamp_ns));
    const SensorState contents = memory.assess(i, rig.cameras[i], image, time_ns, loop->host_reads(image));
    if (usable(state) && !usable(contents)) state = contents;
    if (usable(state))
      frame.T_ref_ego[i] = rounded_exposure(spec.grid, motion.T_ref_exposure(i));
    else
      image.data = nullptr;
  }
}

void Detector::State::resolve_radars(const FrameSet& frames) {
  if (frame.sweeps.size() < frames.sweeps.size()) frame.sweeps.resize(frames.sweeps.size());
  frame.sweep_count = resolve_sweeps(spec, rig, frames, motion, frame.sweeps.data(), result.health);
  memory.mark_frozen(result.health);
  result.health.mode = mode_of(result.health.cameras, result.health.radars);
  check_contract.set(WarningCode::ego_motion, is_displaced(motion, frame.sweeps.data(), frame.sweep_count),
                     "the ego motion is unknown, and a radar sweep is older than one period: its points stay where the "
                     "vehicle was; give FrameSet::ego, or the sweeps' poses");
  check_contract.set(
      WarningCode::unsigned_bundle, unsigned_bundle,
      "the bundle is not signed: nothing shows who made it; imkd-edge export BUNDLE --sign KEY signs it");
  frame.blind = result.health.mode == Mode::blind;
}

// Selects the past maps of this frame and where to store its own; without a history in the spec this does nothing.
void Detector::State::select_past(const FrameSet& frames) {
  result.health.past_frames = 0;
  result.health.maps_invalid = 0;
  if (frame.past.empty()) return;
  history.advance(frames.timestamp_ns, motion.ego());
  for (std::size_t i = 0; i < frame.past.size(); ++i) {
    frame.past[i] = history.past(static_cast<int>(i) + 1);
    result.health.past_frames += frame.past[i].map >= 0;
  }
  // A blind frame's map holds no observation: it is not stored.
  frame.store_map = frame.blind ? -1 : history.next_map();
}

namespace {

std::unique_ptr<FrameLoop> make_loop(const ModelSpec& spec, std::shared_ptr<Engine> camera, std::shared_ptr<Engine> bev,
                                     const DetectorOptions& options) {
  check_device(options.device, "DetectorOptions::device");
  const bool cuda = options.device == "auto" ? camera->on_device() && bev->on_device() : options.device == "cuda";
  return (cuda ? make_cuda_loop : make_cpu_loop)(spec, std::move(camera), std::move(bev), options);
}

struct Engines {
  std::shared_ptr<Engine> camera, bev;
  Engines(const Bundle& bundle, const std::string& name, int threads)
      : camera(make_engine(name, threads)), bev(make_engine(name, threads)) {
    camera->load_content(bundle.file("camera.onnx"), bundle.read("camera.onnx"));
    bev->load_content(bundle.file("bev.onnx"), bundle.read("bev.onnx"));
  }
};

}  // namespace

Detector::Detector(const ModelSpec& spec, const SensorRig& rig, std::shared_ptr<Engine> camera,
                   std::shared_ptr<Engine> bev, const DetectorOptions& options,
                   const std::optional<Contract>& contract) {
  if (!camera || !bev)
    throw Error(Code::engine_unavailable, "an engine is null", "Detector",
                "give one for the camera part and one for the BEV part");
  ThreadPool::check(options.threads, "DetectorOptions::threads");
  ModelSpec used = spec;
  if (!(options.score_threshold < 0)) used.head.score_threshold = options.score_threshold;
  used.check();
  state_ = std::make_unique<State>(used, make_loop(used, std::move(camera), std::move(bev), options), contract);
  state_->unsigned_bundle = options.unsigned_bundle;
  state_->set_rig(rig);
}

Detector Detector::load(const std::string& path, const SensorRig& rig, const DetectorOptions& options) {
  ThreadPool::check(options.threads, "DetectorOptions::threads");  // before the engines are made
  const Bundle bundle = Bundle::load(path, options.trust);
  std::optional<Engines> engines;
  DeviceChoice choice = load_for_device(
      options.device, options.engine, [&](const std::string& name) { engines.emplace(bundle, name, options.threads); });
  DetectorOptions resolved = options;
  resolved.device = choice.device;
  resolved.unsigned_bundle = bundle.signature.checked && !bundle.signature.present;
  Detector detector(bundle.spec, rig, engines->camera, engines->bev, resolved, bundle.contract);
  detector.state_->why_not_cuda = std::move(choice.why_not_cuda);
  return detector;
}

Detector::~Detector() {
  if (state_ && !state_->gate.process.here()) state_.release();  // its engines' threads are not in a forked child
}
Detector::Detector(Detector&&) noexcept = default;
Detector& Detector::operator=(Detector&& other) noexcept {
  Detector taken(std::move(other));  // itself, where other is *this
  std::swap(state_, taken.state_);
  return *this;
}

void Detector::set_rig(const SensorRig& rig) {
  const ExclusiveCall call(state_->gate, "Detector");
  state_->set_rig(rig);
}

void Detector::reset() {
  const ExclusiveCall call(state_->gate, "Detector");
  state_->history.reset();
  state_->check_contract.reset();
  state_->memory.reset();
}

const ModelSpec& Detector::spec() const { return state_->spec; }
const SensorRig& Detector::rig() const { return state_->rig; }
std::string Detector::device() const { return state_->loop->device(); }
std::string Detector::why_not_cuda() const { return state_->why_not_cuda; }
std::string Detector::why_not_replayed() const { return state_->loop->why_not_replayed(); }
int Detector::gpu() const { return state_->loop->gpu(); }
void* Detector::stream() const { return state_->loop->stream(); }
void Detector::wait_for(void* stream) {
  const ExclusiveCall call(state_->gate, "Detector");
  state_->loop->wait_for(stream);
}
std::vector<Detector::Tensor> Detector::tensors() const {
  state_->gate.process.require("Detector");
  return state_->loop->tensors();
}
std::vector<Detector::DeviceTensor> Detector::device_tensors() const { return state_->loop->device_tensors(); }

const Result& Detector::infer(const FrameSet& given) {
  State& s = *state_;
  const ExclusiveCall call(s.gate, "Detector");
  s.loop->require_engines();
  Stopwatch watch, total;
  const FrameSet& frames = s.input = given;
  s.check(frames);
  s.check_contract.set(WarningCode::ego_invalid, s.memory.take_motion(s.input),
                       "a pose is no rigid transform, stands still while the twist moves or lies beyond a jump of the "
                       "localisation, or a "
                       "twist is not finite or faster than 100 m/s or 2 pi rad/s: it is not used");
  s.clear_result(frames.timestamp_ns);
  s.memory.leave_out_frozen(s.input);
  watch.lap();
  s.motion.set(s.rig, frames, s.spec.radar.max_age);
  set_health(s.motion, s.result.health);
  s.result.ego = s.motion.ego();
  s.assess_cameras(frames);
  s.resolve_radars(frames);
  s.result.timings_us[kRadar] = watch.lap();
  s.select_past(frames);
  if (!s.frame.past.empty()) s.result.timings_us[kWarp] = watch.lap();
  s.loop->run(s.frame, s.result);
  s.check_contract.set(WarningCode::boxes_invalid, s.result.health.boxes_invalid > 0,
                       "the network's outputs are not finite, and boxes at them are left out: is an engine or a weight "
                       "broken, or a float16 too small?");
  s.check_contract.observe(s.rig, frames, s.result.health);
  if (s.frame.store_map >= 0) {
    if (s.result.health.maps_invalid == 0)
      s.history.store(s.frame.store_map);
    else
      s.history.discard(s.frame.store_map);  // a non-finite value would reach every later frame
  }
  if (s.frame.blind) s.result.detections.clear();
  if (!s.check_contract.trained_velocity())
    for (Detection& detection : s.result.detections) detection.vx = detection.vy = std::nanf("");
  s.result.total_us = total.lap();
  return s.result;
}

}  // namespace imkd
