#include "imkd/synchronizer.hpp"

#include <algorithm>
#include <mutex>

#include "ego_trail.hpp"
#include "frame_rule.hpp"
#include "imkd/ego_motion.hpp"
#include "imkd/error.hpp"
#include "live_item.hpp"
#include "own_process.hpp"
#include "sensor_memory.hpp"
#include "sensor_queue.hpp"
#include "time_ns.hpp"

namespace imkd {
namespace {

// Orthonormalises the pose; false where it is not rigid.
bool take_pose(std::optional<Mat4>& T_world_ego) {
  if (!T_world_ego) return true;
  if (!is_rigid(*T_world_ego)) return false;
  T_world_ego = orthonormalised(*T_world_ego, "ego");
  return true;
}

// Index among the queues: cameras first, then radars, as in the rig.
std::size_t queue_of_reference(const SensorRig& rig, const std::string& name) {
  if (name.empty()) return 0;
  const int camera = rig.camera_index(name), radar = rig.radar_index(name);
  if (camera < 0 && radar < 0)
    throw Error(Code::frame_unknown_sensor, "the rig has no sensor \"" + name + "\"", "SynchronizerOptions::reference",
                "use the name of a camera or radar of the rig");
  return camera >= 0 ? static_cast<std::size_t>(camera) : rig.cameras.size() + static_cast<std::size_t>(radar);
}

}  // namespace

// What the lock guards: the queues, the ego trail and the clock. The decisions are FrameRule's.
struct Synchronizer::State {
  class Locked;

  OwnProcess process;
  SensorRig rig;
  FrameRule rule;
  std::vector<SensorQueue> queues;  // cameras first, then radars, as in the rig
  std::vector<bool> fitted;         // by camera: it has delivered an image of its calibration's size
  ClockStepRule clock;
  EgoTrail trail;
  std::optional<std::int64_t> last_ego_arrival_ns;
  std::size_t preferred, reference;  // the reference sensor: as configured, and at present
  std::optional<std::int64_t> now_ns, started_ns;
  // Time of the last frame that was handed out or expired. A substitute reference sets it to just before its newest
  // item.
  std::int64_t last_frame_ns = kNever;
  SynchronizerCounts counts;
  std::vector<QueueSummary> summaries;  // of the frame that is being decided; a member to reuse its memory
  std::vector<Owner> released;          // owners of discarded items, until Locked ends
  std::mutex mutex;

  State(const SensorRig& rig, const FrameRule& rule, const SynchronizerOptions& options);
  void reset();
  void restart();

  bool on_suspected_clock(std::size_t stream, std::int64_t timestamp_ns, std::int64_t call_ns);
  std::int64_t advance(std::int64_t call_ns);
  bool silent(std::optional<std::int64_t> last_arrival_ns) const;
  void choose_reference();

  std::int64_t floor_of(std::size_t queue) const;
  Pushed push(std::size_t which, SensorItem& item, std::int64_t call_ns);
  Pushed push_ego(Ego ego, std::int64_t timestamp_ns, std::int64_t call_ns);
  Pushed count(Pushed pushed);

  FrameDecision decide(const SensorItem& reference_item);
  void add_image(LiveFrame& live, const SensorQueue& queue) const;
  void add_sweeps(LiveFrame& live, const SensorQueue& queue) const;
  LiveFrame assemble(std::int64_t frame_ns) const;
  void finish(std::int64_t frame_ns);
  std::optional<LiveFrame> pop(std::int64_t call_ns);
};

// Holds the lock. Owners that are released under it are destroyed after it: their deleters may run any code, such as a
// Python finalizer that yields the GIL or calls the synchronizer.
class Synchronizer::State::Locked {
 public:
  explicit Locked(State& state) : state_(state), lock_(mutex_of(state)) {}
  ~Locked() { released_.swap(state_.released); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  static std::mutex& mutex_of(State& state) {
    state.process.require("Synchronizer");
    return state.mutex;
  }

  std::vector<Owner> released_;  // outlives lock_
  State& state_;
  const std::lock_guard<std::mutex> lock_;
};

Synchronizer::State::State(const SensorRig& rig, const FrameRule& rule, const SynchronizerOptions& options)
    : rig(rig),
      rule(rule),
      fitted(rig.cameras.size(), false),
      clock(rig.cameras.size() + rig.radars.size()),
      preferred(queue_of_reference(rig, options.reference)),
      reference(preferred) {
  const auto max_images = static_cast<std::size_t>(options.max_images);
  const auto max_sweeps = static_cast<std::size_t>(options.max_sweeps);
  for (std::size_t i = 0; i < rig.cameras.size(); ++i) queues.emplace_back(true, max_images);
  for (std::size_t i = 0; i < rig.radars.size(); ++i) queues.emplace_back(false, max_sweeps);
}

void Synchronizer::State::reset() {
  for (SensorQueue& queue : queues) queue.clear(released);
  clock.reset();
  trail.clear();
  last_ego_arrival_ns.reset();
  now_ns.reset();
  started_ns.reset();
  reference = preferred;
  last_frame_ns = kNever;
}

void Synchronizer::State::restart() {
  reset();
  ++counts.restarts;
}

// The current time, which never decreases but by a restart. A jump back by more than max_delay restarts.
std::int64_t Synchronizer::State::advance(std::int64_t call_ns) {
  if (now_ns && minus_ns(*now_ns, call_ns) > rule.max_delay) restart();
  if (!started_ns) started_ns = call_ns;
  if (!now_ns || call_ns > *now_ns) now_ns = call_ns;
  choose_reference();
  return *now_ns;
}

bool Synchronizer::State::silent(std::optional<std::int64_t> last_arrival_ns) const {
  return rule.silent(last_arrival_ns, *started_ns, *now_ns);
}

// The preferred sensor, otherwise the first one that is not silent. A substitute starts with its newest item.
void Synchronizer::State::choose_reference() {
  const auto awake = [&](const SensorQueue& queue) { return !silent(queue.last_arrival_ns()); };
  std::size_t candidate = preferred;
  if (!awake(queues[candidate]))
    candidate = static_cast<std::size_t>(std::find_if(queues.begin(), queues.end(), awake) - queues.begin());
  if (candidate == queues.size() || candidate == reference) return;
  reference = candidate;
  const std::deque<SensorItem>& items = queues[reference].items();
  if (reference != preferred && !items.empty())
    last_frame_ns = std::max(last_frame_ns, minus_ns(items.back().timestamp_ns, 1));
}

std::int64_t Synchronizer::State::floor_of(std::size_t queue) const {
  return queues[queue].is_camera() ? rule.image_floor(last_frame_ns, queue == reference)
                                   : rule.sweep_floor(last_frame_ns);
}

// Whether the item of a stream (a queue, or past the queues the ego motion) is to be refused because its clock may have
// stepped back. Where the clock certainly has, everything restarts with this item.
bool Synchronizer::State::on_suspected_clock(std::size_t stream, std::int64_t timestamp_ns, std::int64_t call_ns) {
  const auto observe = [&] {
    return clock.observe(rule, stream, timestamp_ns, call_ns, *now_ns,
                         [this](std::size_t sensor) { return silent(queues[sensor].last_arrival_ns()); });
  };
  const ClockStep step = observe();
  if (step == ClockStep::certain) {
    restart();
    advance(call_ns);
    observe();
  }
  return step == ClockStep::suspected;
}

// Moves from the item only where it is kept.
Pushed Synchronizer::State::push(std::size_t which, SensorItem& item, std::int64_t call_ns) {
  advance(call_ns);
  if (on_suspected_clock(which, item.timestamp_ns, call_ns)) return Pushed::late;
  item.arrival_ns = *now_ns;
  const Pushed admission = rule.admit(item.timestamp_ns, floor_of(which), *now_ns);
  if (admission != Pushed::kept) return admission;
  SensorQueue& queue = queues[which];
  if (!queue.insert(item)) return Pushed::duplicate;
  choose_reference();  // the sensor may have been silent

  if (queue.exceeds_capacity()) {
    if (which == reference && queue.items().front().timestamp_ns > last_frame_ns) ++counts.dropped;
    queue.drop_oldest(released);
  }
  return Pushed::kept;
}

Pushed Synchronizer::State::push_ego(Ego ego, std::int64_t timestamp_ns, std::int64_t call_ns) {
  advance(call_ns);
  const bool possible = ego.twist ? is_possible(*ego.twist) : ego.T_world_ego.has_value();
  if (!possible || !take_pose(ego.T_world_ego)) return Pushed::invalid;
  if (on_suspected_clock(queues.size(), timestamp_ns, call_ns)) return Pushed::late;
  const Pushed admission = rule.admit(timestamp_ns, rule.sweep_floor(last_frame_ns), *now_ns);
  if (admission != Pushed::kept) return admission;
  if (trail.has(timestamp_ns, ego)) return Pushed::duplicate;
  if (!trail.add(timestamp_ns, ego)) return Pushed::invalid;
  last_ego_arrival_ns = *now_ns;
  return Pushed::kept;
}

Pushed Synchronizer::State::count(Pushed pushed) {
  std::int64_t* of[] = {&counts.kept, &counts.late, &counts.duplicate, &counts.future, &counts.invalid};
  ++*of[static_cast<int>(pushed)];
  return pushed;
}

FrameDecision Synchronizer::State::decide(const SensorItem& reference_item) {
  const std::int64_t frame_ns = reference_item.timestamp_ns;
  summaries.clear();
  for (const SensorQueue& queue : queues)
    summaries.push_back({queue.nearest(frame_ns, rule.tolerance) != nullptr, silent(queue.last_arrival_ns())});
  if (last_ego_arrival_ns) {
    const EgoTrail::Entry* newest = trail.newest();
    summaries.push_back({newest && newest->timestamp_ns >= frame_ns, silent(last_ego_arrival_ns)});
  }
  return rule.decide(frame_ns, reference_item.arrival_ns, summaries, *now_ns);
}

void Synchronizer::State::add_image(LiveFrame& live, const SensorQueue& queue) const {
  FrameSet& frames = live.frames;
  const SensorItem* item = queue.nearest(frames.timestamp_ns, rule.tolerance);
  frames.cameras.push_back(item ? item->image : ImageView{});
  frames.camera_timestamps_ns.push_back(item ? item->timestamp_ns : frames.timestamp_ns);
  frames.camera_T_world_ego.push_back(item ? trail.at(item->timestamp_ns).T_world_ego : std::nullopt);
  live.cameras.push_back(item ? item->owner : nullptr);
}

void Synchronizer::State::add_sweeps(LiveFrame& live, const SensorQueue& queue) const {
  for (const SensorItem& item : queue.items()) {
    if (!rule.in_sweep_window(item.timestamp_ns, live.frames.timestamp_ns)) continue;
    live.frames.sweeps.push_back(item.sweep);
    if (!item.sweep.T_world_ego) live.frames.sweeps.back().T_world_ego = trail.at(item.timestamp_ns).T_world_ego;
    live.sweeps.push_back(item.owner);
  }
}

LiveFrame Synchronizer::State::assemble(std::int64_t frame_ns) const {
  LiveFrame live;
  live.frames.timestamp_ns = frame_ns;
  live.frames.ego = trail.at(frame_ns);
  for (const SensorQueue& queue : queues) queue.is_camera() ? add_image(live, queue) : add_sweeps(live, queue);
  return live;
}

// Discards what no later frame can use.
void Synchronizer::State::finish(std::int64_t frame_ns) {
  last_frame_ns = frame_ns;
  for (std::size_t i = 0; i < queues.size(); ++i) queues[i].discard_until(floor_of(i), released);
  trail.discard_before(minus_ns(frame_ns, rule.max_age));
}

std::optional<LiveFrame> Synchronizer::State::pop(std::int64_t call_ns) {
  advance(call_ns);
  while (const SensorItem* next = queues[reference].first_after(last_frame_ns)) {
    const std::int64_t frame_ns = next->timestamp_ns;
    const FrameDecision decision = decide(*next);
    if (decision == FrameDecision::wait) return std::nullopt;
    if (decision == FrameDecision::expired) {
      ++counts.expired;
      finish(frame_ns);
      continue;
    }
    LiveFrame live = assemble(frame_ns);
    const auto& [pose, twist] = live.frames.ego;
    live.complete = decision == FrameDecision::complete && (!last_ego_arrival_ns || pose || twist);
    ++(live.complete ? counts.complete : counts.incomplete);
    finish(frame_ns);
    return live;
  }
  return std::nullopt;
}

Synchronizer::Synchronizer(const SensorRig& rig, const ModelSpec& spec, const SynchronizerOptions& options) {
  rig.check();
  spec.check();
  state_ = std::make_unique<State>(rig, FrameRule(options, spec.radar.max_age), options);
}

Synchronizer::~Synchronizer() {
  if (state_ && !state_->process.here()) state_.release();  // the parent may have forked in the middle of a call
}
Synchronizer::Synchronizer(Synchronizer&&) noexcept = default;
Synchronizer& Synchronizer::operator=(Synchronizer&& other) noexcept {
  Synchronizer taken(std::move(other));  // itself, where other is *this
  std::swap(state_, taken.state_);
  return *this;
}

Pushed Synchronizer::push_camera(int camera, const ImageView& image, std::int64_t timestamp_ns, std::int64_t now_ns,
                                 std::shared_ptr<const void> owner) {
  State& state = *state_;
  const CameraCalibration& calibration = checked_camera(state.rig, camera);
  if (image.data && !fits(calibration, image)) {
    const State::Locked locked(state);
    if (state.fitted[static_cast<std::size_t>(camera)]) {
      state.advance(now_ns);
      return state.count(Pushed::invalid);
    }
  }
  check_image(state.rig, camera, image);
  SensorItem item{timestamp_ns, 0, image, {}, std::move(owner)};  // outlives the lock, as its owner must
  if (!item.owner) item.owner = copy_image(item.image);
  const State::Locked locked(state);
  state.fitted[static_cast<std::size_t>(camera)] = true;
  return state.count(state.push(static_cast<std::size_t>(camera), item, now_ns));
}

Pushed Synchronizer::push_radar(const RadarSweep& sweep, std::int64_t now_ns, std::shared_ptr<const void> owner) {
  State& state = *state_;
  check_sweep(state.rig, sweep);
  SensorItem item{sweep.timestamp_ns, 0, {}, sweep, std::move(owner)};  // outlives the lock, as its owner must
  if (!item.owner) item.owner = copy_points(item.sweep);
  const State::Locked locked(state);
  if (!take_pose(item.sweep.T_world_ego)) {
    state.advance(now_ns);
    return state.count(Pushed::invalid);
  }
  return state.count(state.push(state.rig.cameras.size() + static_cast<std::size_t>(sweep.radar), item, now_ns));
}

Pushed Synchronizer::push_ego(const Ego& ego, std::int64_t timestamp_ns, std::int64_t now_ns) {
  const State::Locked locked(*state_);
  return state_->count(state_->push_ego(ego, timestamp_ns, now_ns));
}

std::optional<LiveFrame> Synchronizer::pop(std::int64_t now_ns) {
  const State::Locked locked(*state_);
  return state_->pop(now_ns);
}

void Synchronizer::reset() {
  const State::Locked locked(*state_);
  state_->reset();
}

SynchronizerCounts Synchronizer::counts() const {
  const State::Locked locked(*state_);
  return state_->counts;
}

}  // namespace imkd
