#include "imkd/synchronizer.hpp"

#include <algorithm>
#include <cmath>
#include <deque>
#include <mutex>

#include "ego_trail.hpp"
#include "imkd/error.hpp"
#include "live_item.hpp"
#include "time_ns.hpp"

namespace imkd {
namespace {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::min();

using Owner = std::shared_ptr<const void>;

struct Item {  // an image or a sweep
  std::int64_t timestamp_ns = 0, arrival_ns = 0;
  ImageView image;
  RadarSweep sweep;
  Owner owner;
};

struct Stream {  // of one sensor: cameras first, then radars, as in the rig
  bool camera = false;
  int index = 0;
  std::deque<Item> items;  // rising times
  std::optional<std::int64_t> heard_ns;
};

template <class Numbers>
bool finite(const Numbers& numbers) {
  return std::all_of(numbers.begin(), numbers.end(), [](double v) { return std::isfinite(v); });
}

bool valid(const Ego& ego) {
  if (ego.twist && !finite(*ego.twist)) return false;
  try {
    if (ego.T_world_ego) check_rigid(*ego.T_world_ego, "ego");
  } catch (const Error&) {
    return false;
  }
  return true;
}

void check_options(const SynchronizerOptions& o, double max_age) {
  const auto refuse = [](const char* name, const std::string& fix) {
    throw Error(Code::spec_bad_value, "is out of range", std::string("SynchronizerOptions::") + name, fix);
  };
  if (!(o.tolerance > 0 && o.tolerance <= max_age)) refuse("tolerance", "above 0, at most spec.radar.max_age");
  for (const auto& [name, value] : {std::pair<const char*, double>{"timeout", o.timeout},
                                    {"max_delay", o.max_delay},
                                    {"max_future", o.max_future},
                                    {"lost_after", o.lost_after}})
    if (!(value >= 0 && value <= 3600)) refuse(name, "from 0 to 3600 s");
  if (o.max_images < 1 || o.max_images > 4096) refuse("max_images", "from 1 to 4096");
  if (o.max_sweeps < 1 || o.max_sweeps > 4096) refuse("max_sweeps", "from 1 to 4096");
}

}  // namespace

struct Synchronizer::State {
  class Locked;

  SensorRig rig;
  SynchronizerOptions options;
  std::int64_t tolerance, timeout, max_delay, max_future, lost_after, max_age;  // ns
  std::vector<Stream> streams;
  EgoTrail trail;
  std::optional<std::int64_t> ego_heard_ns;
  std::size_t preferred = 0, reference = 0;  // the reference sensor by choice, and at present
  std::optional<std::int64_t> now_ns, started_ns;
  std::int64_t done_ns = kNever;  // time of the last frame handed out
  SynchronizerCounts counts;
  std::vector<Owner> released;  // of items that are no more, until Locked ends
  std::mutex mutex;

  State(const SensorRig& rig, const ModelSpec& spec, const SynchronizerOptions& options);
  void reset();
  std::int64_t advance(std::int64_t given_ns);
  bool silent(const std::optional<std::int64_t>& heard_ns) const;
  void choose_reference();
  Pushed gate(std::int64_t timestamp_ns, std::int64_t floor_ns) const;
  std::int64_t floor_of(std::size_t stream) const;
  Pushed push(std::size_t stream, Item& item, std::int64_t given_ns);
  Pushed count(Pushed pushed);
  Pushed push_ego(const Ego& ego, std::int64_t timestamp_ns, std::int64_t given_ns);
  const Item* nearest(const Stream& stream, std::int64_t time) const;
  bool all_there(std::int64_t time, bool patience) const;
  const Item* pending() const;
  LiveFrame frame(std::int64_t time) const;
  std::optional<LiveFrame> pop(std::int64_t given_ns);
  void finish(std::int64_t time);
  void drop_oldest(Stream& stream);
};

// The lock. What was let go of under it is destroyed after it: an owner may run any code, such as a Python finalizer
// that gives the GIL up or calls the synchronizer.
class Synchronizer::State::Locked {
 public:
  explicit Locked(State& state) : state_(state), lock_(state.mutex) {}
  ~Locked() { released_.swap(state_.released); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  std::vector<Owner> released_;  // outlives lock_
  State& state_;
  const std::lock_guard<std::mutex> lock_;
};

Synchronizer::State::State(const SensorRig& rig, const ModelSpec& spec, const SynchronizerOptions& o)
    : rig(rig),
      options(o),
      tolerance(to_ns(o.tolerance)),
      timeout(to_ns(o.timeout)),
      max_delay(to_ns(o.max_delay)),
      max_future(to_ns(o.max_future)),
      lost_after(to_ns(o.lost_after)),
      max_age(to_ns(spec.radar.max_age)) {
  for (std::size_t i = 0; i < rig.cameras.size(); ++i) streams.push_back({true, static_cast<int>(i), {}, {}});
  for (std::size_t i = 0; i < rig.radars.size(); ++i) streams.push_back({false, static_cast<int>(i), {}, {}});
  if (!o.reference.empty()) {
    const int camera = rig.camera_index(o.reference), radar = rig.radar_index(o.reference);
    if (camera < 0 && radar < 0)
      throw Error(Code::frame_unknown_sensor, "the rig has no sensor \"" + o.reference + "\"",
                  "SynchronizerOptions::reference", "use a name of the rig");
    preferred = static_cast<std::size_t>(camera >= 0 ? camera : static_cast<int>(rig.cameras.size()) + radar);
  }
  reference = preferred;
}

void Synchronizer::State::reset() {
  for (Stream& stream : streams) {
    while (!stream.items.empty()) drop_oldest(stream);
    stream.heard_ns.reset();
  }
  trail.clear();
  ego_heard_ns.reset(), now_ns.reset(), started_ns.reset();
  reference = preferred;
  done_ns = kNever;
}

// The time that counts as now: it does not go back, or everything starts afresh.
std::int64_t Synchronizer::State::advance(std::int64_t given_ns) {
  if (now_ns && minus_ns(*now_ns, given_ns) > max_delay) reset(), ++counts.restarts;
  if (!started_ns) started_ns = given_ns;
  if (!now_ns || given_ns > *now_ns) now_ns = given_ns;
  choose_reference();
  return *now_ns;
}

bool Synchronizer::State::silent(const std::optional<std::int64_t>& heard_ns) const {
  return minus_ns(*now_ns, heard_ns.value_or(*started_ns)) > lost_after;
}

// The preferred sensor, else the first that is not silent; one that steps in starts with its newest item.
void Synchronizer::State::choose_reference() {
  std::size_t chosen = preferred;
  for (std::size_t i = 0; silent(streams[chosen].heard_ns) && i < streams.size(); ++i)
    if (!silent(streams[i].heard_ns)) chosen = i;
  if (chosen == reference || silent(streams[chosen].heard_ns)) return;
  reference = chosen;
  const std::deque<Item>& items = streams[chosen].items;
  if (chosen != preferred && !items.empty()) done_ns = std::max(done_ns, minus_ns(items.back().timestamp_ns, 1));
}

// Items at or before this time are of no use any more.
std::int64_t Synchronizer::State::floor_of(std::size_t stream) const {
  if (done_ns == kNever) return kNever;
  if (!streams[stream].camera) return minus_ns(done_ns, max_age);
  return stream == reference ? done_ns : minus_ns(done_ns, tolerance);
}

Pushed Synchronizer::State::gate(std::int64_t timestamp_ns, std::int64_t floor_ns) const {
  if (minus_ns(timestamp_ns, *now_ns) > max_future) return Pushed::future;
  if (minus_ns(*now_ns, timestamp_ns) > max_delay || timestamp_ns <= floor_ns) return Pushed::late;
  return Pushed::kept;
}

void Synchronizer::State::drop_oldest(Stream& stream) {
  released.push_back(std::move(stream.items.front().owner));
  stream.items.pop_front();
}

// Takes the item only where it is kept.
Pushed Synchronizer::State::push(std::size_t which, Item& item, std::int64_t given_ns) {
  item.arrival_ns = advance(given_ns);
  Stream& stream = streams[which];
  const Pushed refused = gate(item.timestamp_ns, floor_of(which));
  if (refused != Pushed::kept) return refused;
  auto place = stream.items.end();
  while (place != stream.items.begin() && std::prev(place)->timestamp_ns >= item.timestamp_ns) --place;
  if (place != stream.items.end() && place->timestamp_ns == item.timestamp_ns) return Pushed::duplicate;
  stream.items.insert(place, std::move(item));
  stream.heard_ns = *now_ns;
  choose_reference();  // it may have been silent
  if (stream.items.size() > static_cast<std::size_t>(stream.camera ? options.max_images : options.max_sweeps)) {
    if (which == reference && stream.items.front().timestamp_ns > done_ns) ++counts.dropped;
    drop_oldest(stream);
  }
  return Pushed::kept;
}

Pushed Synchronizer::State::push_ego(const Ego& ego, std::int64_t timestamp_ns, std::int64_t given_ns) {
  advance(given_ns);
  if (!valid(ego)) return Pushed::invalid;
  const Pushed refused = gate(timestamp_ns, done_ns == kNever ? kNever : minus_ns(done_ns, max_age));
  if (refused != Pushed::kept) return refused;
  if (trail.has(timestamp_ns)) return Pushed::duplicate;
  if (!trail.add(timestamp_ns, ego)) return Pushed::invalid;
  ego_heard_ns = *now_ns;
  return Pushed::kept;
}

const Item* Synchronizer::State::nearest(const Stream& stream, std::int64_t time) const {
  const Item* best = nullptr;
  for (const Item& item : stream.items) {
    const std::int64_t off = distance_ns(item.timestamp_ns, time);
    if (off <= tolerance && (!best || off < distance_ns(best->timestamp_ns, time))) best = &item;
  }
  return best;
}

// Whether every sensor has something near that time and the ego motion has reached it; with patience false silent ones
// do not matter.
bool Synchronizer::State::all_there(std::int64_t time, bool patience) const {
  const bool reached = trail.newest() && trail.newest()->timestamp_ns >= time;
  if (ego_heard_ns && !reached && (patience || !silent(ego_heard_ns))) return false;
  return std::all_of(streams.begin(), streams.end(), [&](const Stream& stream) {
    return nearest(stream, time) || (!patience && silent(stream.heard_ns));
  });
}

const Item* Synchronizer::State::pending() const {
  for (const Item& item : streams[reference].items)
    if (item.timestamp_ns > done_ns) return &item;
  return nullptr;
}

LiveFrame Synchronizer::State::frame(std::int64_t time) const {
  LiveFrame live;
  live.complete = all_there(time, true);
  live.frames.timestamp_ns = time;
  live.frames.ego = trail.at(time);
  for (const Stream& stream : streams) {
    if (stream.camera) {
      const Item* item = nearest(stream, time);
      live.frames.cameras.push_back(item ? item->image : ImageView{});
      live.frames.camera_timestamps_ns.push_back(item ? item->timestamp_ns : time);
      live.cameras.push_back(item ? item->owner : nullptr);
      continue;
    }
    for (const Item& item : stream.items) {
      if (minus_ns(time, item.timestamp_ns) > max_age || minus_ns(item.timestamp_ns, time) > tolerance) continue;
      live.frames.sweeps.push_back(item.sweep);
      if (!item.sweep.T_world_ego) live.frames.sweeps.back().T_world_ego = trail.at(item.timestamp_ns).T_world_ego;
      live.sweeps.push_back(item.owner);
    }
  }
  return live;
}

// Forgets what no later frame can use.
void Synchronizer::State::finish(std::int64_t time) {
  done_ns = time;
  for (std::size_t i = 0; i < streams.size(); ++i)
    while (!streams[i].items.empty() && streams[i].items.front().timestamp_ns <= floor_of(i)) drop_oldest(streams[i]);
  trail.forget(minus_ns(time, max_age));
}

std::optional<LiveFrame> Synchronizer::State::pop(std::int64_t given_ns) {
  const std::int64_t now = advance(given_ns);
  while (const Item* next = pending()) {
    const std::int64_t time = next->timestamp_ns;
    if (minus_ns(now, time) > max_delay + timeout) {
      ++counts.expired;
      finish(time);
      continue;
    }
    if (!all_there(time, false) && minus_ns(now, next->arrival_ns) < timeout) return std::nullopt;
    LiveFrame live = frame(time);
    ++(live.complete ? counts.complete : counts.incomplete);
    finish(time);
    return live;
  }
  return std::nullopt;
}

Pushed Synchronizer::State::count(Pushed pushed) {
  std::int64_t* of[] = {&counts.kept, &counts.late, &counts.duplicate, &counts.future, &counts.invalid};
  ++*of[static_cast<int>(pushed)];
  return pushed;
}

Synchronizer::Synchronizer(const SensorRig& rig, const ModelSpec& spec, const SynchronizerOptions& options) {
  rig.check();
  spec.check();
  check_options(options, spec.radar.max_age);
  state_ = std::make_unique<State>(rig, spec, options);
}

Synchronizer::~Synchronizer() = default;
Synchronizer::Synchronizer(Synchronizer&&) noexcept = default;
Synchronizer& Synchronizer::operator=(Synchronizer&&) noexcept = default;

Pushed Synchronizer::push_camera(int camera, const ImageView& image, std::int64_t timestamp_ns, std::int64_t now_ns,
                                 std::shared_ptr<const void> owner) {
  State& s = *state_;
  check_image(s.rig, camera, image);
  Item item{timestamp_ns, 0, image, {}, std::move(owner)};
  if (!item.owner) item.owner = copy_image(item.image);
  const State::Locked locked(s);
  return s.count(s.push(static_cast<std::size_t>(camera), item, now_ns));
}

Pushed Synchronizer::push_radar(const RadarSweep& sweep, std::int64_t now_ns, std::shared_ptr<const void> owner) {
  State& s = *state_;
  check_sweep(s.rig, sweep);
  Item item{sweep.timestamp_ns, 0, {}, sweep, std::move(owner)};
  if (!item.owner) item.owner = copy_points(item.sweep);
  const State::Locked locked(s);
  if (sweep.T_world_ego && !valid({sweep.T_world_ego, {}})) return s.count((s.advance(now_ns), Pushed::invalid));
  return s.count(s.push(s.rig.cameras.size() + static_cast<std::size_t>(sweep.radar), item, now_ns));
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
