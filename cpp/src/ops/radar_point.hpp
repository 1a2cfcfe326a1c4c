// One radar point in the reference frame, and the statistics of a cell's points. The CPU op and its CUDA twin share
// them.
#pragma once
#include <cmath>

#include "plane.hpp"

namespace imkd {

constexpr double kTwoPi = 6.283185307179586;
constexpr int kInvalid = -2;  // no cell: see kOutside
constexpr int kStatistics = 13;

struct Point {     // in the reference ego frame
  float offset_x;  // m, from the cell's centre
  float offset_y;
  float height;      // m, above the ground plane
  float intensity;   // dB
  float velocity_x;  // m/s, horizontal part of the compensated radial velocity; 0 where unknown or aliased
  float velocity_y;
  float phase_cos;  // 0 where not aliased
  float phase_sin;
  float age;  // s
};

// Five finite numbers within the bounds; a NaN fails each comparison. The squares of float32 are exact in double, so
// that the range is the same on every machine.
IMKD_HD inline bool valid_point(const float* p) {
  const double x = p[0], y = p[1], z = p[2];
  return x * x + y * y + z * z >= kMinRange * kMinRange && std::isfinite(p[0]) && std::isfinite(p[1]) &&
         std::isfinite(p[2]) && std::fabs(p[3]) <= kMaxIntensity && std::fabs(p[4]) <= kMaxVelocity;
}

// Whether at least half of a sweep's points are valid, and one is: those of a corrupt packet are mere numbers.
inline bool mostly_valid(const float* points, int count) {
  std::int64_t valid = 0;
  for (int i = 0; i < count; ++i) valid += valid_point(points + std::size_t(i) * 5);
  return valid > 0 && 2 * valid >= count;
}
inline bool mostly_valid(const RadarSweep& sweep) { return mostly_valid(sweep.points, sweep.count); }

// Transforms one point to the reference frame; returns its cell, kOutside or kInvalid.
IMKD_HD inline int bin_point(const Plane& grid, const RadarInput& sweep, const float* p, Point& out) {
  if (!valid_point(p)) return kInvalid;
  const Vec3 local{p[0], p[1], p[2]};
  const Vec3 ray = rotate(sweep.T_ref_radar, local);
  const double inverse_range = 1 / std::sqrt(local[0] * local[0] + local[1] * local[1] + local[2] * local[2]);
  const Vec3 unit{ray[0] * inverse_range, ray[1] * inverse_range, ray[2] * inverse_range};

  // Compensate the radar's own motion: velocity becomes that of the target over ground, along the ray, m/s.
  const Vec3& sensor = sweep.sensor_velocity;
  double velocity = p[4];
  if (sweep.velocity != RadialVelocity::compensated)
    velocity += unit[0] * sensor[0] + unit[1] * sensor[1] + unit[2] * sensor[2];
  const bool known = std::isfinite(velocity);
  const bool aliased = sweep.velocity == RadialVelocity::aliased;

  // Extrapolate a moving target to the reference time.
  const double moving = known && !aliased ? velocity : 0;
  const double x = sweep.T_ref_radar[3] + ray[0] + unit[0] * moving * sweep.age;
  const double y = sweep.T_ref_radar[7] + ray[1] + unit[1] * moving * sweep.age;
  const double z = sweep.T_ref_radar[11] + ray[2];
  const int cell = grid.at(x, y);
  if (cell == kOutside) return kOutside;  // no z window: automotive radars measure elevation poorly or not at all

  out.offset_x = float(x - grid.x(cell % grid.width + 0.5));
  out.offset_y = float(y - grid.y(cell / grid.width + 0.5));
  out.height = float(z - grid.ground(x, y));
  out.intensity = p[3];
  out.velocity_x = float(unit[0] * moving);
  out.velocity_y = float(unit[1] * moving);
  const bool phased = known && aliased;
  out.phase_cos = phased ? float(std::cos(kTwoPi * velocity / sweep.period)) : 0.f;
  out.phase_sin = phased ? float(std::sin(kTwoPi * velocity / sweep.period)) : 0.f;
  out.age = sweep.age;
  return cell;
}

struct Statistics {
  float value[kStatistics];  // by RadarStatistic
};

// The statistics of the points at(0) ... at(count - 1), summed in this order; count > 0.
template <class At>
IMKD_HD Statistics summarise(At&& at, int count) {
  Point sum{};
  Point low = at(0);
  Point high = low;
  for (int i = 0; i < count; ++i) {
    const Point& p = at(i);
    sum.offset_x += p.offset_x;
    sum.offset_y += p.offset_y;
    sum.height += p.height;
    sum.intensity += p.intensity;
    sum.velocity_x += p.velocity_x;
    sum.velocity_y += p.velocity_y;
    sum.phase_cos += p.phase_cos;
    sum.phase_sin += p.phase_sin;
    low.height = p.height < low.height ? p.height : low.height;
    low.age = p.age < low.age ? p.age : low.age;
    high.height = high.height < p.height ? p.height : high.height;
    high.intensity = high.intensity < p.intensity ? p.intensity : high.intensity;
  }
  const float share = 1.f / static_cast<float>(count);
  return {{float(std::log1p(double(count))), high.intensity, sum.intensity * share, sum.velocity_x * share,
           sum.velocity_y * share, sum.phase_cos * share, sum.phase_sin * share, sum.height * share, low.height,
           high.height, sum.offset_x * share, sum.offset_y * share, low.age}};
}

}  // namespace imkd
