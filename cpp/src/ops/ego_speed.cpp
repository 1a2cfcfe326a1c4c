// The ego speed estimated from static radar returns.
#include <algorithm>
#include <cmath>

#include "clones.hpp"
#include "imkd/ops.hpp"
#include "radar_point.hpp"
#include "time_ns.hpp"

namespace imkd {
namespace {

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

}  // namespace

EgoSpeed estimate_ego_speed(const SensorRig& rig, const RadarSweep* sweeps, int count, std::int64_t reference_ns,
                            double max_age) {
  Returns returns;
  sample(rig, sweeps, count, reference_ns, max_age, returns);
  return returns.count ? estimate(returns) : EgoSpeed{};
}

}  // namespace imkd
