// Where each sweep was taken, how fast its radar moved, and the ego speed where nobody knows it.
#include <algorithm>
#include <cmath>
#include <limits>

#include "clones.hpp"
#include "health.hpp"
#include "imkd/error.hpp"
#include "imkd/ops.hpp"
#include "radar_point.hpp"

namespace imkd {
namespace {

double age_s(std::int64_t reference_ns, std::int64_t timestamp_ns) {
  std::int64_t difference = 0;
  if (__builtin_sub_overflow(reference_ns, timestamp_ns, &difference)) return std::numeric_limits<double>::infinity();
  return double(difference) * 1e-9;
}

// ---- ego speed ----
constexpr int kMaxReturns = 1024;                  // sampled evenly
constexpr double kMinSpeed = -15, kMaxSpeed = 60;  // m/s
constexpr double kCoarseStep = 0.25;               // m/s
constexpr double kInlier = 0.5;                    // m/s, |residual| of a static return
constexpr double kNeighbourhood = 2;               // m/s, speeds that belong to the same maximum
constexpr int kMinInliers = 10;
constexpr double kMinShare = 0.25;  // of all returns
constexpr float kDistinct = 1.1f;   // support of the best speed against the best elsewhere

struct Returns {
  int count = 0;
  float forward[kMaxReturns];   // x of the unit direction in the ego frame
  float velocity[kMaxReturns];  // m/s, as measured
  float period[kMaxReturns];    // m/s; a huge one where not aliased
};

// Velocity that a return would have over ground if the ego drove at `speed`, wrapped to the nearest alias.
inline float residual(float velocity, float forward, float period, float per_metre, float speed) {
  constexpr float kRound =
      12582912.f;  // 1.5 * 2^23: adding and subtracting it rounds to the nearest integer, in any vector width
  const float v = velocity + forward * speed;
  return v - period * ((v * per_metre + kRound) - kRound);
}

// How well each speed first + i * step explains the returns: sum of 1 - (residual / width)^2 over the inliers.
IMKD_CLONES void support(const Returns& r, float first, float step, int speeds, float width, float* out) {
  const float narrow = 1 / width;
  for (int i = 0; i < speeds; ++i) out[i] = 0;
  for (int p = 0; p < r.count; ++p) {
    const float velocity = r.velocity[p], forward = r.forward[p], period = r.period[p], per_metre = 1 / period;
    for (int i = 0; i < speeds; ++i) {
      const float q = residual(velocity, forward, period, per_metre, first + float(i) * step) * narrow;
      const float gain = 1 - q * q;
      out[i] += gain > 0 ? gain : 0.f;
    }
  }
}

bool usable(const float* p) { return valid_point(p) && (p[0] != 0 || p[1] != 0 || p[2] != 0); }

// Sweeps of radars that measure raw velocity, not older than max_age.
bool wanted(const SensorRig& rig, const RadarSweep& sweep, std::int64_t reference_ns, double max_age) {
  return rig.radars[sweep.radar].velocity != RadialVelocity::compensated &&
         std::abs(age_s(reference_ns, sweep.timestamp_ns)) <= max_age;
}

void sample(const SensorRig& rig, const RadarSweep* sweeps, int count, std::int64_t reference_ns, double max_age,
            Returns& out) {
  std::int64_t total = 0, seen = 0;
  for (int s = 0; s < count; ++s)
    if (wanted(rig, sweeps[s], reference_ns, max_age)) total += sweeps[s].count;
  const std::int64_t step = std::max<std::int64_t>(1, (total + kMaxReturns - 1) / kMaxReturns);
  for (int s = 0; s < count; ++s) {
    if (!wanted(rig, sweeps[s], reference_ns, max_age)) continue;
    const RadarCalibration& radar = rig.radars[sweeps[s].radar];
    for (int i = 0; i < sweeps[s].count; ++i, ++seen) {
      const float* p = sweeps[s].points + std::size_t(i) * 5;
      if (seen % step || !usable(p)) continue;
      const Vec3 ray = rotate(radar.T_ego_radar, {p[0], p[1], p[2]});
      out.forward[out.count] = float(ray[0] / std::sqrt(ray[0] * ray[0] + ray[1] * ray[1] + ray[2] * ray[2]));
      out.velocity[out.count] = p[4];
      out.period[out.count++] = radar.velocity == RadialVelocity::aliased ? float(radar.period) : 1e9f;
    }
  }
}

EgoSpeed estimate(const Returns& r) {
  constexpr int kSpeeds = int((kMaxSpeed - kMinSpeed) / kCoarseStep) + 1;
  float coarse[kSpeeds];
  support(r, float(kMinSpeed), float(kCoarseStep), kSpeeds, float(2 * kInlier), coarse);
  const int best = static_cast<int>(std::max_element(coarse, coarse + kSpeeds) - coarse);
  float rival = 0;  // the best elsewhere: an alias, or a second body that moves as one
  for (int i = 0; i < kSpeeds; ++i)
    if (std::abs(i - best) * kCoarseStep > kNeighbourhood) rival = std::max(rival, coarse[i]);

  float speed = float(kMinSpeed + best * kCoarseStep);
  for (float step = float(kCoarseStep) / 4; step > 0.003f; step /= 4) {
    constexpr int kReach = 4;
    float fine[2 * kReach + 1];
    support(r, speed - kReach * step, step, 2 * kReach + 1, float(kInlier), fine);
    speed += float(std::max_element(fine, fine + 2 * kReach + 1) - fine - kReach) * step;
  }
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
// The frame's twist: odometry, else from the pose of the sweep nearest to the reference that is at least 10 ms away.
bool known_twist(const FrameSet& frames, Vec3& twist) {
  if (frames.ego.twist) return twist = *frames.ego.twist, true;
  if (!frames.ego.T_world_ego) return false;
  const RadarSweep* nearest = nullptr;
  double best = std::numeric_limits<double>::infinity();
  for (const RadarSweep& sweep : frames.sweeps) {
    const double age = std::abs(age_s(frames.timestamp_ns, sweep.timestamp_ns));
    if (sweep.T_world_ego && age >= 0.01 && age < best) best = age, nearest = &sweep;
  }
  if (!nearest || best > 1) return false;
  const Mat4 T_ref_sweep = compose(inverse_rigid(*frames.ego.T_world_ego), *nearest->T_world_ego);
  twist = twist_between(T_ref_sweep, -age_s(frames.timestamp_ns, nearest->timestamp_ns));
  return true;
}

void radar_health(const SensorRig& rig, const FrameSet& frames, double max_age, Health& health) {
  health.radars.assign(rig.radars.size(), SensorState::missing);
  for (std::size_t radar = 0; radar < rig.radars.size(); ++radar) {
    bool delivered = false, usable = false;
    double newest = std::numeric_limits<double>::infinity();
    for (const RadarSweep& sweep : frames.sweeps) {
      if (sweep.radar != static_cast<int>(radar)) continue;
      const double age = std::abs(age_s(frames.timestamp_ns, sweep.timestamp_ns));
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

struct Rank {  // newest first, then by radar, then as given
  double age;
  int radar, index;
  bool operator<(const Rank& o) const {
    return age != o.age ? age < o.age : radar != o.radar ? radar < o.radar : index < o.index;
  }
};

RadarInput resolve(const SensorRig& rig, const FrameSet& frames, const RadarSweep& sweep, const Vec3* twist) {
  const RadarCalibration& radar = rig.radars[sweep.radar];
  RadarInput input;
  input.points = sweep.points;
  input.count = sweep.count;
  input.velocity = radar.velocity;
  input.period = radar.period;
  const double age = age_s(frames.timestamp_ns, sweep.timestamp_ns);
  input.age = float(age);
  Mat4 T_ref_sweep = identity4();
  if (frames.ego.T_world_ego && sweep.T_world_ego)
    T_ref_sweep = compose(inverse_rigid(*frames.ego.T_world_ego), *sweep.T_world_ego);
  else if (twist)
    T_ref_sweep = after(*twist, -age);
  input.T_ref_radar = compose(T_ref_sweep, radar.T_ego_radar);
  if (radar.velocity == RadialVelocity::compensated) return input;
  const double unknown = std::numeric_limits<double>::quiet_NaN();
  if (!twist)
    input.sensor_velocity = {unknown, unknown, unknown};
  else {  // the ego frame's own velocity plus yaw rate x lever arm
    const double x = radar.T_ego_radar[3], y = radar.T_ego_radar[7];
    input.sensor_velocity = rotate(T_ref_sweep, {(*twist)[0] - (*twist)[2] * y, (*twist)[1] + (*twist)[2] * x, 0});
  }
  return input;
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
      throw Error(Code::frame_unknown_sensor, "radar " + std::to_string(sweep.radar) + " is not in the rig", "sweeps",
                  "use the rig's order");
  const double max_age = spec.radar.max_age;
  radar_health(rig, frames, max_age, health);
  health.ego_speed_estimated = false;
  health.ego_speed = health.ego_speed_residual = 0;

  Vec3 twist{};
  bool known = known_twist(frames, twist);
  if (!known) {
    Returns returns;
    sample(rig, frames.sweeps.data(), count, frames.timestamp_ns, max_age, returns);
    const EgoSpeed ego = returns.count ? estimate(returns) : EgoSpeed{};
    if (ego.valid) {
      known = health.ego_speed_estimated = true;
      health.ego_speed_residual = ego.residual;
      twist = {ego.speed, 0, 0};
    }
  }
  if (known) health.ego_speed = float(twist[0]);

  int used = 0;
  Rank last{-std::numeric_limits<double>::infinity(), 0, 0};
  while (true) {  // selection instead of a sort: no memory, and there are few sweeps
    Rank next{std::numeric_limits<double>::infinity(), 0, 0};
    for (int i = 0; i < count; ++i) {
      const Rank rank{std::abs(age_s(frames.timestamp_ns, frames.sweeps[i].timestamp_ns)), frames.sweeps[i].radar, i};
      if (rank.age <= max_age && last < rank && rank < next) next = rank;
    }
    if (next.age > max_age) return used;
    out[used++] = resolve(rig, frames, frames.sweeps[next.index], known ? &twist : nullptr);
    last = next;
  }
}

}  // namespace imkd
