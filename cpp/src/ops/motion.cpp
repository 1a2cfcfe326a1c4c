// The pose and the radar's velocity of each sweep, and the ego speed estimated from static returns.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "clones.hpp"
#include "imkd/error.hpp"
#include "imkd/ops.hpp"
#include "radar_point.hpp"
#include "time_ns.hpp"

namespace imkd {
namespace {

// ---- ego speed ----
constexpr int kMaxReturns = 1024;                  // sampled evenly
constexpr double kMinSpeed = -15, kMaxSpeed = 60;  // m/s
constexpr double kCoarseStep = 0.25;               // m/s
constexpr double kInlier = 0.5;                    // m/s, |residual| of a static return
constexpr double kNeighbourhood = 2;               // m/s, speeds of the same maximum
constexpr int kMinInliers = 10;
constexpr double kMinShare = 0.25;  // of all returns
constexpr float kDistinct = 1.1f;   // support of the best speed against the best elsewhere

constexpr float kNoAlias = 1e9f;  // m/s, a period that wraps no velocity

struct Returns {
  int count = 0;
  float forward[kMaxReturns];   // x of the unit direction in the ego frame
  float velocity[kMaxReturns];  // m/s, as measured
  float period[kMaxReturns];    // m/s; kNoAlias where not aliased
};

// Velocity of a return over ground at an ego speed, wrapped to the nearest alias.
inline float residual(float velocity, float forward, float period, float per_metre, float speed) {
  // 1.5 * 2^23: adding and subtracting it rounds to the nearest integer, in any vector width.
  constexpr float kRound = 12582912.f;
  const float v = velocity + forward * speed;
  return v - period * ((v * per_metre + kRound) - kRound);
}

// The support of each speed first + i * step: sum of 1 - (residual / width)^2 over the inliers.
IMKD_CLONES void support(const Returns& r, float first, float step, int speeds, float width, float* out) {
  const float narrow = 1 / width;
  for (int i = 0; i < speeds; ++i) out[i] = 0;
  for (int p = 0; p < r.count; ++p) {
    const float velocity = r.velocity[p];
    const float forward = r.forward[p];
    const float period = r.period[p];
    const float per_metre = 1 / period;
    for (int i = 0; i < speeds; ++i) {
      const float q = residual(velocity, forward, period, per_metre, first + float(i) * step) * narrow;
      const float gain = 1 - q * q;
      out[i] += gain > 0 ? gain : 0.f;
    }
  }
}

// Whether a sweep measures raw velocity and is not older than max_age.
bool is_raw(const SensorRig& rig, const RadarSweep& sweep, std::int64_t reference_ns, double max_age) {
  return rig.radars[sweep.radar].velocity != RadialVelocity::compensated &&
         std::abs(seconds_between(sweep.timestamp_ns, reference_ns)) <= max_age;
}

void sample(const SensorRig& rig, const RadarSweep* sweeps, int count, std::int64_t reference_ns, double max_age,
            Returns& out) {
  std::int64_t total = 0;
  std::int64_t index = 0;
  for (int s = 0; s < count; ++s)
    if (is_raw(rig, sweeps[s], reference_ns, max_age)) total += sweeps[s].count;
  const std::int64_t step = std::max<std::int64_t>(1, (total + kMaxReturns - 1) / kMaxReturns);
  for (int s = 0; s < count; ++s) {
    if (!is_raw(rig, sweeps[s], reference_ns, max_age)) continue;
    const RadarCalibration& radar = rig.radars[sweeps[s].radar];
    for (int i = 0; i < sweeps[s].count; ++i, ++index) {
      const float* p = sweeps[s].points + std::size_t(i) * 5;
      if (index % step || !valid_point(p)) continue;
      const Vec3 ray = rotate(radar.T_ego_radar, {p[0], p[1], p[2]});
      out.forward[out.count] = float(ray[0] / std::sqrt(ray[0] * ray[0] + ray[1] * ray[1] + ray[2] * ray[2]));
      out.velocity[out.count] = p[4];
      out.period[out.count++] = radar.velocity == RadialVelocity::aliased ? float(radar.period) : kNoAlias;
    }
  }
}

EgoSpeed estimate(const Returns& r) {
  constexpr int kSpeeds = int((kMaxSpeed - kMinSpeed) / kCoarseStep) + 1;
  float coarse[kSpeeds];
  support(r, float(kMinSpeed), float(kCoarseStep), kSpeeds, float(2 * kInlier), coarse);
  const int best = static_cast<int>(std::max_element(coarse, coarse + kSpeeds) - coarse);
  float rival = 0;  // the best support elsewhere: of an alias, or of another rigid body
  for (int i = 0; i < kSpeeds; ++i)
    if (std::abs(i - best) * kCoarseStep > kNeighbourhood) rival = std::max(rival, coarse[i]);

  // Refine the best coarse speed.
  float speed = float(kMinSpeed + best * kCoarseStep);
  for (float step = float(kCoarseStep) / 4; step > 0.003f; step /= 4) {
    constexpr int kReach = 4;
    float fine[2 * kReach + 1];
    support(r, speed - kReach * step, step, 2 * kReach + 1, float(kInlier), fine);
    speed += float(std::max_element(fine, fine + 2 * kReach + 1) - fine - kReach) * step;
  }

  // Median residual of the inliers, and whether the estimate is valid.
  EgoSpeed result;
  float inliers[kMaxReturns];
  for (int i = 0; i < r.count; ++i) {
    const float q = std::abs(residual(r.velocity[i], r.forward[i], r.period[i], 1 / r.period[i], speed));
    if (q < float(kInlier)) inliers[result.inliers++] = q;
  }
  result.speed = speed;
  if (result.inliers > 0) {
    std::nth_element(inliers, inliers + result.inliers / 2, inliers + result.inliers);
    result.residual = inliers[result.inliers / 2];
  }
  result.valid =
      result.inliers >= kMinInliers && result.inliers >= kMinShare * r.count && coarse[best] > kDistinct * rival;
  return result;
}

// ---- sweeps ----
// The frame's twist: odometry, else between the reference pose and that of the nearest sweep at least 10 ms away.
std::optional<Vec3> odometry_twist(const FrameSet& frames) {
  if (frames.ego.twist) return frames.ego.twist;
  if (!frames.ego.T_world_ego) return std::nullopt;
  const RadarSweep* nearest = nullptr;
  double best = std::numeric_limits<double>::infinity();
  for (const RadarSweep& sweep : frames.sweeps) {
    const double age = std::abs(seconds_between(sweep.timestamp_ns, frames.timestamp_ns));
    if (!sweep.T_world_ego || age < 0.01 || age >= best) continue;
    best = age;
    nearest = &sweep;
  }
  if (!nearest || best > 1) return std::nullopt;
  const Mat4 T_ref_sweep = compose(inverse_rigid(*frames.ego.T_world_ego), *nearest->T_world_ego);
  return twist_between(T_ref_sweep, -seconds_between(nearest->timestamp_ns, frames.timestamp_ns));
}

void radar_health(const SensorRig& rig, const FrameSet& frames, double max_age, Health& health) {
  health.radars.assign(rig.radars.size(), SensorState::missing);
  for (std::size_t radar = 0; radar < rig.radars.size(); ++radar) {
    bool delivered = false;
    bool usable = false;
    double newest = std::numeric_limits<double>::infinity();
    for (const RadarSweep& sweep : frames.sweeps) {
      if (sweep.radar != static_cast<int>(radar)) continue;
      const double age = std::abs(seconds_between(sweep.timestamp_ns, frames.timestamp_ns));
      delivered = true;
      newest = std::min(newest, age);
      usable = usable || (age <= max_age && any_valid(sweep));
    }
    if (!delivered) continue;
    health.radars[radar] = newest > max_age       ? SensorState::stale
                           : !usable              ? SensorState::invalid
                           : newest > max_age / 2 ? SensorState::late
                                                  : SensorState::ok;
  }
}

// The ego motion: odometry, else a forward speed estimated from the returns. Sets health.ego_speed*.
std::optional<Vec3> ego_twist(const SensorRig& rig, const FrameSet& frames, double max_age, Health& health) {
  health.ego_speed_estimated = false;
  health.ego_speed = 0;
  health.ego_speed_residual = 0;
  std::optional<Vec3> twist = odometry_twist(frames);
  if (!twist) {
    Returns returns;
    const int count = static_cast<int>(frames.sweeps.size());
    sample(rig, frames.sweeps.data(), count, frames.timestamp_ns, max_age, returns);
    const EgoSpeed ego = returns.count ? estimate(returns) : EgoSpeed{};
    if (ego.valid) {
      health.ego_speed_estimated = true;
      health.ego_speed_residual = ego.residual;
      twist = Vec3{ego.speed, 0, 0};
    }
  }
  if (twist) health.ego_speed = float((*twist)[0]);
  return twist;
}

struct Rank {  // newest first, then by radar, then by index
  double age;
  int radar;
  int index;
  bool operator<(const Rank& o) const {
    return age != o.age ? age < o.age : radar != o.radar ? radar < o.radar : index < o.index;
  }
};

RadarInput resolve(const SensorRig& rig, const FrameSet& frames, const RadarSweep& sweep,
                   const std::optional<Vec3>& twist) {
  const RadarCalibration& radar = rig.radars[sweep.radar];
  RadarInput input;
  input.points = sweep.points;
  input.count = sweep.count;
  input.radar = sweep.radar;
  input.velocity = radar.velocity;
  input.period = radar.period;
  const double age = seconds_between(sweep.timestamp_ns, frames.timestamp_ns);
  input.age = float(age);
  Mat4 T_ref_sweep = identity4();
  if (frames.ego.T_world_ego && sweep.T_world_ego)
    T_ref_sweep = compose(inverse_rigid(*frames.ego.T_world_ego), *sweep.T_world_ego);
  else if (twist)
    T_ref_sweep = after(*twist, -age);
  input.T_ref_radar = compose(T_ref_sweep, radar.T_ego_radar);
  if (radar.velocity == RadialVelocity::compensated) return input;
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

EgoSpeed estimate_ego_speed(const SensorRig& rig, const RadarSweep* sweeps, int count) {
  Returns returns;
  sample(rig, sweeps, count, 0, std::numeric_limits<double>::infinity(), returns);
  return returns.count ? estimate(returns) : EgoSpeed{};
}

int resolve_sweeps(const ModelSpec& spec, const SensorRig& rig, const FrameSet& frames, RadarInput* out,
                   Health& health) {
  const int count = static_cast<int>(frames.sweeps.size());
  for (const RadarSweep& sweep : frames.sweeps)
    if (sweep.radar < 0 || sweep.radar >= static_cast<int>(rig.radars.size()))
      throw Error(Code::frame_unknown_sensor, "there is no radar " + std::to_string(sweep.radar), "sweeps",
                  "use an index into the rig's " + std::to_string(rig.radars.size()) + " radars");
  const double max_age = spec.radar.max_age;
  radar_health(rig, frames, max_age, health);
  const std::optional<Vec3> twist = ego_twist(rig, frames, max_age, health);

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
    out[used++] = resolve(rig, frames, frames.sweeps[next.index], twist);
    last = next;
  }
  mark_unusable(spec, out, used, health);
  return used;
}

}  // namespace imkd
