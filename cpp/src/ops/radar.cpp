// Points -> dense radar grid: a stable counting sort by cell, then the statistics of each cell in the order of its points.
#include <algorithm>
#include <cmath>

#include "imkd/ops.hpp"

namespace imkd {
namespace {

constexpr double kTwoPi = 6.283185307179586;

struct Point {                   // in the reference ego frame
  float offset_x, offset_y;      // from the cell's centre, m
  float height;                  // above the ground plane, m
  float intensity;               // dB
  float velocity_x, velocity_y;  // horizontal part of the compensated radial velocity, m/s; 0 where unknown or aliased
  float phase_cos, phase_sin;    // 0 where not aliased
  float age;                     // s
};

struct Workspace {
  Point* points;         // (max_points) in the order of arrival
  std::int32_t* cell;    // (max_points)
  std::int32_t* order;   // (max_points) points sorted by cell
  std::int32_t* starts;  // (cells + 1)

  Workspace(const ModelSpec& spec, void* memory)
      : points(static_cast<Point*>(memory)),
        cell(reinterpret_cast<std::int32_t*>(points + spec.radar.max_points)),
        order(cell + spec.radar.max_points),
        starts(order + spec.radar.max_points) {}
};

bool all_finite(const float* p) {
  for (int i = 0; i < 5; ++i)
    if (!std::isfinite(p[i])) return false;
  return true;
}

// Brings one point to the reference frame; returns its cell.
int place(const ModelSpec& spec, const RadarInput& sweep, const float* p, Point& out) {
  const Vec3 local{p[0], p[1], p[2]};
  const double range = std::sqrt(local[0] * local[0] + local[1] * local[1] + local[2] * local[2]);
  const Vec3 ray = rotate(sweep.T_ref_radar, local);
  Vec3 unit{0, 0, 0};
  if (range > 0) unit = {ray[0] / range, ray[1] / range, ray[2] / range};
  const Vec3& own = sweep.sensor_velocity;
  double velocity = p[4];  // m/s, of the target over ground, along the ray
  if (sweep.velocity != RadialVelocity::compensated) velocity += unit[0] * own[0] + unit[1] * own[1] + unit[2] * own[2];
  const bool known = std::isfinite(velocity), aliased = sweep.velocity == RadialVelocity::aliased;

  const double moving = known && !aliased ? velocity : 0;
  const double x = sweep.T_ref_radar[3] + ray[0] + unit[0] * moving * sweep.age;
  const double y = sweep.T_ref_radar[7] + ray[1] + unit[1] * moving * sweep.age;
  const double z = sweep.T_ref_radar[11] + ray[2];
  const int width = spec.radar_width(), height = spec.radar_height();
  const double cell = spec.radar.cell;
  const int column = cell_index(float(x), float(spec.grid.x_min), float(cell), width);
  const int row = cell_index(float(y), float(spec.grid.y_min), float(cell), height);
  if (column == kOutside || row == kOutside) return kOutside;  // no z window: automotive radars measure elevation poorly or not at all

  out.offset_x = float(x - (spec.grid.x_min + (column + 0.5) * cell));
  out.offset_y = float(y - (spec.grid.y_min + (row + 0.5) * cell));
  out.height = float(z - spec.ground(x, y));
  out.intensity = p[3];
  out.velocity_x = float(unit[0] * moving);
  out.velocity_y = float(unit[1] * moving);
  const bool phased = known && aliased;
  out.phase_cos = phased ? float(std::cos(kTwoPi * velocity / sweep.period)) : 0.f;
  out.phase_sin = phased ? float(std::sin(kTwoPi * velocity / sweep.period)) : 0.f;
  out.age = sweep.age;
  return row * width + column;
}

RadarStats collect(const ModelSpec& spec, const RadarInput* sweeps, int count, Workspace& w) {
  RadarStats stats;
  for (int s = 0; s < count; ++s)
    for (int i = 0; i < sweeps[s].count; ++i) {
      const float* p = sweeps[s].points + std::size_t(i) * 5;
      Point point;
      if (!all_finite(p)) {
        ++stats.invalid;
        continue;
      }
      const int cell = place(spec, sweeps[s], p, point);
      if (cell == kOutside)
        ++stats.outside;
      else if (stats.used == spec.radar.max_points)
        ++stats.overflow;
      else {
        w.points[stats.used] = point;
        w.cell[stats.used++] = cell;
      }
    }
  return stats;
}

void sort_by_cell(Workspace& w, int points, int cells) {
  std::fill(w.starts, w.starts + cells + 1, 0);
  for (int i = 0; i < points; ++i) ++w.starts[w.cell[i] + 1];
  for (int c = 0; c < cells; ++c) w.starts[c + 1] += w.starts[c];
  // starts[c] walks through its interval and ends at the next one's start; shift it back afterwards.
  for (int i = 0; i < points; ++i) w.order[w.starts[w.cell[i]]++] = i;
  for (int c = cells; c > 0; --c) w.starts[c] = w.starts[c - 1];
  w.starts[0] = 0;
}

struct Statistics {
  float value[13];  // by RadarStatistic
};

Statistics summarise(const Point* points, const std::int32_t* begin, const std::int32_t* end) {
  const Point& first = points[*begin];
  Point sum{}, low = first, high = first;
  for (const std::int32_t* i = begin; i != end; ++i) {
    const Point& p = points[*i];
    sum.offset_x += p.offset_x, sum.offset_y += p.offset_y, sum.height += p.height, sum.intensity += p.intensity;
    sum.velocity_x += p.velocity_x, sum.velocity_y += p.velocity_y, sum.phase_cos += p.phase_cos, sum.phase_sin += p.phase_sin;
    low.height = std::min(low.height, p.height), low.age = std::min(low.age, p.age);
    high.height = std::max(high.height, p.height), high.intensity = std::max(high.intensity, p.intensity);
  }
  const float n = static_cast<float>(end - begin);
  return {{float(std::log1p(double(n))), high.intensity, sum.intensity / n, sum.velocity_x / n, sum.velocity_y / n, sum.phase_cos / n,
           sum.phase_sin / n, sum.height / n, low.height, high.height, sum.offset_x / n, sum.offset_y / n, low.age}};
}

}  // namespace

std::size_t radar_workspace(const ModelSpec& spec) {
  const std::size_t cells = std::size_t(spec.radar_width()) * spec.radar_height();
  return spec.radar.max_points * (sizeof(Point) + 2 * sizeof(std::int32_t)) + (cells + 1) * sizeof(std::int32_t);
}

RadarStats voxelize_radar(const ModelSpec& spec, const RadarInput* sweeps, int count, float* out, void* workspace, ThreadPool& pool) {
  const int cells = spec.radar_width() * spec.radar_height(), features = static_cast<int>(spec.radar.features.size());
  Workspace w(spec, workspace);
  const RadarStats stats = collect(spec, sweeps, count, w);
  sort_by_cell(w, stats.used, cells);
  pool.parallel_for(cells, [&](int begin, int end) {
    for (int f = 0; f < features; ++f) std::fill(out + std::size_t(f) * cells + begin, out + std::size_t(f) * cells + end, 0.f);
    for (int cell = begin; cell < end; ++cell) {
      if (w.starts[cell] == w.starts[cell + 1]) continue;
      const Statistics s = summarise(w.points, w.order + w.starts[cell], w.order + w.starts[cell + 1]);
      for (int f = 0; f < features; ++f) {
        const RadarFeature& feature = spec.radar.features[f];
        out[std::size_t(f) * cells + cell] = (s.value[static_cast<int>(feature.statistic)] - feature.offset) * feature.scale;
      }
    }
  });
  return stats;
}

}  // namespace imkd
