#include "imkd/monitor.hpp"

#include <mutex>
#include <optional>

#include "live_item.hpp"
#include "live_options.hpp"
#include "ops/radar_point.hpp"
#include "own_process.hpp"
#include "sensor_memory.hpp"
#include "time_ns.hpp"

namespace imkd {
namespace {

struct MonitorRecord : SensorRecord {
  std::int64_t arrival_ns = 0;  // of the newest item
  bool valid = false;

  void set(bool is_valid, std::uint64_t digest) {
    valid = is_valid;
    set_contents(digest);
  }
};

}  // namespace

struct Monitor::State {
  SensorRig rig;
  std::int64_t max_age, lost_after;  // ns
  int frozen_after;
  std::vector<MonitorRecord> cameras, radars;
  std::optional<std::int64_t> started_ns;
  OwnProcess process;
  std::mutex mutex;

  std::unique_lock<std::mutex> lock() {
    process.require("Monitor");  // the parent may have forked while a call held the lock
    return std::unique_lock<std::mutex>(mutex);
  }

  // False where the item is not newer than the newest one.
  bool set_time(MonitorRecord& record, std::int64_t timestamp_ns, std::int64_t now_ns) {
    if (!started_ns) started_ns = now_ns;
    if (!record.advance(timestamp_ns, max_age)) return false;
    record.arrival_ns = now_ns;
    return true;
  }

  SensorState state_of(const MonitorRecord& record, std::int64_t now_ns) const {
    if (!record.newest_ns) return minus_ns(now_ns, *started_ns) > lost_after ? SensorState::lost : SensorState::missing;
    if (minus_ns(now_ns, record.arrival_ns) > lost_after) return SensorState::lost;
    const std::int64_t age = distance_ns(now_ns, *record.newest_ns);
    if (age > max_age) return SensorState::stale;
    if (!record.valid) return SensorState::invalid;
    if (record.repeats >= frozen_after) return SensorState::frozen;
    return age > max_age / 2 ? SensorState::late : SensorState::ok;
  }
};

Monitor::Monitor(const SensorRig& rig, const ModelSpec& spec, const MonitorOptions& options) {
  rig.check();
  spec.check();
  if (!(options.lost_after > spec.radar.max_age && options.lost_after <= 3600))
    refuse_option("MonitorOptions::lost_after", options.lost_after,
                  "more than spec.radar.max_age, " + number_text(spec.radar.max_age, 6) + " s, and at most 3600 s");
  if (options.frozen_after < 2) refuse_option("MonitorOptions::frozen_after", options.frozen_after, "2 or more");
  state_.reset(
      new State{rig, to_ns(spec.radar.max_age), to_ns(options.lost_after), options.frozen_after, {}, {}, {}, {}, {}});
  reset();
}

Monitor::~Monitor() = default;
Monitor::Monitor(Monitor&&) noexcept = default;
Monitor& Monitor::operator=(Monitor&&) noexcept = default;

void Monitor::observe_camera(int camera, const ImageView& image, std::int64_t timestamp_ns, std::int64_t now_ns) {
  State& s = *state_;
  const CameraCalibration& calibration = checked_camera(s.rig, camera);
  const bool sized = image.data && fits(calibration, image);
  if (sized) check_layout(image, "camera " + calibration.name);
  const ImageContents contents = sized ? contents_of(image) : ImageContents{0, true};
  const auto lock = s.lock();
  MonitorRecord& record = s.cameras[static_cast<std::size_t>(camera)];
  if (s.set_time(record, timestamp_ns, now_ns)) record.set(!contents.flat, contents.digest);
}

void Monitor::observe_radar(const RadarSweep& sweep, std::int64_t now_ns) {
  State& s = *state_;
  check_sweep(s.rig, sweep);
  const bool valid = mostly_valid(sweep);
  const std::uint64_t contents = digest_of(sweep);
  const auto lock = s.lock();
  MonitorRecord& record = s.radars[static_cast<std::size_t>(sweep.radar)];
  if (s.set_time(record, sweep.timestamp_ns, now_ns)) record.set(valid, contents);
}

Health Monitor::check(std::int64_t now_ns) {
  State& s = *state_;
  const auto lock = s.lock();
  if (!s.started_ns) s.started_ns = now_ns;
  Health health;
  for (const MonitorRecord& record : s.cameras) health.cameras.push_back(s.state_of(record, now_ns));
  for (const MonitorRecord& record : s.radars) health.radars.push_back(s.state_of(record, now_ns));
  health.mode = mode_of(health.cameras, health.radars);
  return health;
}

void Monitor::reset() {
  State& s = *state_;
  const auto lock = s.lock();
  s.cameras.assign(s.rig.cameras.size(), {});
  s.radars.assign(s.rig.radars.size(), {});
  s.started_ns.reset();
}

}  // namespace imkd
