#include "imkd/monitor.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <optional>

#include "live_item.hpp"
#include "live_options.hpp"
#include "ops/radar_point.hpp"
#include "own_process.hpp"
#include "time_ns.hpp"

namespace imkd {
namespace {

class Digest {  // FNV-1a, 64 bits
 public:
  void add(std::uint64_t value) { hash_ = (hash_ ^ value) * 1099511628211u; }
  std::uint64_t value() const { return hash_; }

 private:
  std::uint64_t hash_ = 14695981039346656037u;
};

// Of 64 x 64 pixels spread over the image, of NV12 their luma: enough to detect a sensor's noise.
std::uint64_t digest(const ImageView& image) {
  constexpr int kSide = 64;
  const int channels = image.chroma ? 1 : 3;
  const std::ptrdiff_t pixel_stride = image.chroma ? 1 : image.pixel_stride;
  Digest digest;
  for (int i = 0; i < kSide; ++i)
    for (int j = 0; j < kSide; ++j) {
      const std::uint8_t* pixel = image.data + std::int64_t(i) * image.height / kSide * image.row_stride +
                                  std::int64_t(j) * image.width / kSide * pixel_stride;
      for (int channel = 0; channel < channels; ++channel) digest.add(pixel[channel * image.channel_stride]);
    }
  return digest.value();
}

std::uint64_t digest(const RadarSweep& sweep) {
  Digest digest;
  for (std::size_t i = 0; i < std::size_t(sweep.count) * 5; ++i) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, sweep.points + i, sizeof bits);
    digest.add(bits);
  }
  return digest.value();
}

struct SensorRecord {
  std::optional<std::int64_t> newest_ns;  // time of the newest item
  std::int64_t arrival_ns = 0;            // of the newest item
  bool valid = false;
  int repeats = 0;  // consecutive items with these contents
  std::uint64_t contents = 0;

  void set_contents(bool is_valid, std::uint64_t digest) {
    repeats = digest == contents ? repeats + 1 : 1;
    valid = is_valid;
    contents = digest;
  }
};

}  // namespace

struct Monitor::State {
  SensorRig rig;
  std::int64_t max_age, lost_after;  // ns
  int frozen_after;
  std::vector<SensorRecord> cameras, radars;
  std::optional<std::int64_t> started_ns;
  OwnProcess process;
  std::mutex mutex;

  std::unique_lock<std::mutex> lock() {
    process.require("Monitor");  // the parent may have forked while a call held the lock
    return std::unique_lock<std::mutex>(mutex);
  }

  // False where the item is not newer than the newest one.
  bool set_time(SensorRecord& record, std::int64_t timestamp_ns, std::int64_t now_ns) {
    if (!started_ns) started_ns = now_ns;
    const bool restart = record.newest_ns && minus_ns(*record.newest_ns, timestamp_ns) > max_age;
    if (record.newest_ns && !restart && timestamp_ns <= *record.newest_ns) return false;
    record.newest_ns = timestamp_ns;
    record.arrival_ns = now_ns;
    return true;
  }

  SensorState state_of(const SensorRecord& record, std::int64_t now_ns) const {
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
    refuse_option("MonitorOptions::lost_after", options.lost_after, "more than spec.radar.max_age, at most 3600 s");
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
  const bool valid = image.data && image.width == calibration.width && image.height == calibration.height;
  const std::uint64_t contents = valid ? digest(image) : 0;
  const auto lock = s.lock();
  SensorRecord& record = s.cameras[static_cast<std::size_t>(camera)];
  if (s.set_time(record, timestamp_ns, now_ns)) record.set_contents(valid, contents);
}

void Monitor::observe_radar(const RadarSweep& sweep, std::int64_t now_ns) {
  State& s = *state_;
  check_sweep(s.rig, sweep);
  const bool valid = any_valid(sweep);
  const std::uint64_t contents = digest(sweep);
  const auto lock = s.lock();
  SensorRecord& record = s.radars[static_cast<std::size_t>(sweep.radar)];
  if (s.set_time(record, sweep.timestamp_ns, now_ns)) record.set_contents(valid, contents);
}

Health Monitor::check(std::int64_t now_ns) {
  State& s = *state_;
  const auto lock = s.lock();
  if (!s.started_ns) s.started_ns = now_ns;
  Health health;
  for (const SensorRecord& record : s.cameras) health.cameras.push_back(s.state_of(record, now_ns));
  for (const SensorRecord& record : s.radars) health.radars.push_back(s.state_of(record, now_ns));
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
