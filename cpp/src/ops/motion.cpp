// The transform and the radar's velocity of each sweep.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "imkd/error.hpp"
#include "imkd/ops.hpp"
#include "radar_point.hpp"
#include "time_ns.hpp"

namespace imkd {
namespace {

// Of two sweeps of a radar, the one that says more for it decides.
int merit(SensorState state) {
  return state == SensorState::ok        ? 4
         : state == SensorState::late    ? 3
         : state == SensorState::invalid ? 2
         : state == SensorState::stale   ? 1
                                         : 0;
}

void radar_health(const SensorRig& rig, const FrameSet& frames, double max_age, Health& health) {
  health.radars.assign(rig.radars.size(), SensorState::missing);
  health.radar_points_invalid = 0;
  for (const RadarSweep& sweep : frames.sweeps) {
    SensorState& state = health.radars[static_cast<std::size_t>(sweep.radar)];
    const double age = std::abs(seconds_between(sweep.timestamp_ns, frames.timestamp_ns));
    const SensorState found = age > max_age          ? SensorState::stale
                              : !mostly_valid(sweep) ? SensorState::invalid
                              : age > max_age / 2    ? SensorState::late
                                                     : SensorState::ok;
    if (found == SensorState::invalid) health.radar_points_invalid += sweep.count;
    if (merit(found) > merit(state)) state = found;
  }
}

struct Rank {  // newest first, then by radar, then by index
  double age;
  int radar;
  int index;
  bool operator<(const Rank& o) const {
    return age != o.age ? age < o.age : radar != o.radar ? radar < o.radar : index < o.index;
  }
};

RadarInput resolve(const SensorRig& rig, const FrameSet& frames, const RadarSweep& sweep, const EgoMotion& motion) {
  const RadarCalibration& radar = rig.radars[sweep.radar];
  RadarInput input;
  input.points = sweep.points;
  input.count = sweep.count;
  input.radar = sweep.radar;
  input.velocity = radar.velocity;
  input.period = radar.period;
  input.age = float(seconds_between(sweep.timestamp_ns, frames.timestamp_ns));
  const Mat4 T_ref_sweep = motion.T_ref_at(sweep.timestamp_ns, sweep.T_world_ego);
  input.T_ref_radar = compose(T_ref_sweep, radar.T_ego_radar);
  if (radar.velocity == RadialVelocity::compensated) return input;
  const std::optional<Vec3>& twist = motion.ego().twist;
  if (!twist) {
    constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
    input.sensor_velocity = {kUnknown, kUnknown, kUnknown};
    return input;
  }
  // The ego frame's velocity plus yaw rate x lever arm.
  const double x = radar.T_ego_radar[3];
  const double y = radar.T_ego_radar[7];
  input.sensor_velocity = rotate(T_ref_sweep, {(*twist)[0] - (*twist)[2] * y, (*twist)[1] + (*twist)[2] * x, 0});
  return input;
}

// A point that voxelize_radar can use: valid and inside the grid.
bool in_grid(const Plane& grid, const RadarInput& sweep, int index) {
  Point point;
  return bin_point(grid, sweep, sweep.points + std::size_t(index) * 5, point) >= 0;
}

// The number of leading points of all sweeps among which the first max_points inside the grid are: those behind them
// overflow.
std::int64_t points_used(const Plane& grid, const RadarInput* sweeps, int count, int max_points) {
  std::int64_t total = 0;
  for (int s = 0; s < count; ++s) total += sweeps[s].count;
  if (total <= max_points) return total;
  std::int64_t index = 0;
  for (int s = 0; s < count; ++s)
    for (int i = 0; i < sweeps[s].count; ++i, ++index) {
      if (max_points == 0) return index;
      max_points -= in_grid(grid, sweeps[s], i);
    }
  return index;
}

// Marks the radars of which no point is used: all of them lie outside the grid, or overflow.
void mark_unusable(const ModelSpec& spec, const RadarInput* sweeps, int count, Health& health) {
  const Plane grid = Plane::of_radar(spec, {});  // heights are not needed
  const std::int64_t used = points_used(grid, sweeps, count, spec.radar.max_points);
  for (std::size_t radar = 0; radar < health.radars.size(); ++radar) {
    if (!usable(health.radars[radar])) continue;
    bool any = false;
    std::int64_t first = 0;
    for (int s = 0; s < count && !any; first += sweeps[s++].count) {
      if (sweeps[s].radar != static_cast<int>(radar)) continue;
      const int end = static_cast<int>(std::min<std::int64_t>(sweeps[s].count, used - first));
      for (int i = 0; i < end && !any; ++i) any = in_grid(grid, sweeps[s], i);
    }
    if (!any) health.radars[radar] = SensorState::unusable;
  }
}

}  // namespace

int resolve_sweeps(const ModelSpec& spec, const SensorRig& rig, const FrameSet& frames, const EgoMotion& motion,
                   RadarInput* out, Health& health) {
  const int count = static_cast<int>(frames.sweeps.size());
  for (const RadarSweep& sweep : frames.sweeps)
    if (sweep.radar < 0 || sweep.radar >= static_cast<int>(rig.radars.size()))
      throw Error(Code::frame_unknown_sensor, "there is no radar " + std::to_string(sweep.radar), "sweeps",
                  "use an index into the rig's " + std::to_string(rig.radars.size()) + " radars");
  const double max_age = spec.radar.max_age;
  radar_health(rig, frames, max_age, health);

  // Selection of the sweeps in order, without memory for a sort; there are few.
  int used = 0;
  Rank last{-std::numeric_limits<double>::infinity(), 0, 0};
  while (true) {
    Rank next{std::numeric_limits<double>::infinity(), 0, 0};
    for (int i = 0; i < count; ++i) {
      const Rank rank{std::abs(seconds_between(frames.sweeps[i].timestamp_ns, frames.timestamp_ns)),
                      frames.sweeps[i].radar, i};
      if (rank.age <= max_age && last < rank && rank < next) next = rank;
    }
    if (next.age > max_age) break;
    out[used++] = resolve(rig, frames, frames.sweeps[next.index], motion);
    last = next;
  }
  const auto corrupt = [](const RadarInput& sweep) {
    return sweep.count > 0 && !mostly_valid(sweep.points, sweep.count);
  };
  used = static_cast<int>(std::remove_if(out, out + used, corrupt) - out);
  mark_unusable(spec, out, used, health);
  return used;
}

// s, the mean time between the sweeps of a radar, at most kSensorPeriod.
static double period_of(int radar, const RadarInput* sweeps, int count) {
  int number = 0;
  double first = 0, last = 0;
  for (int i = 0; i < count; ++i) {
    if (sweeps[i].radar != radar) continue;
    const double age = sweeps[i].age;
    first = number == 0 ? age : std::min(first, age);
    last = number == 0 ? age : std::max(last, age);
    ++number;
  }
  return last > first ? std::min(kSensorPeriod, (last - first) / (number - 1)) : kSensorPeriod;
}

bool is_displaced(const EgoMotion& motion, const RadarInput* sweeps, int count) {
  if (motion.source() != MotionSource::none) return false;
  for (int i = 0; i < count; ++i)
    if (std::abs(double(sweeps[i].age)) > period_of(sweeps[i].radar, sweeps, count)) return true;
  return false;
}

}  // namespace imkd
