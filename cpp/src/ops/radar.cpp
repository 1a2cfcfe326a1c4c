// Points -> dense radar grid: a stable counting sort by cell, then the statistics of each cell in the order of its points.
#include <algorithm>
#include <cmath>

#include "imkd/ops.hpp"

namespace imkd {
namespace {

constexpr double kTwoPi = 6.283185307179586;
constexpr int kBlock = 16;    // cells written together: each channel gets a whole cache line
constexpr int kInvalid = -2;  // beside kOutside
constexpr int kStatistics = 13;
constexpr int kMaxFeatures = 256;  // as ModelSpec::check has it

struct Grid {
  double x_min, y_min, cell;
  int width, height;
  explicit Grid(const ModelSpec& spec)
      : x_min(spec.grid.x_min), y_min(spec.grid.y_min), cell(spec.radar.cell), width(spec.radar_width()), height(spec.radar_height()) {}
};

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

// Brings one point to the reference frame; returns its cell, kOutside or kInvalid.
int place(const ModelSpec& spec, const Grid& grid, const RadarInput& sweep, const float* p, Point& out) {
  if (!all_finite(p)) return kInvalid;
  const Vec3 local{p[0], p[1], p[2]};
  const Vec3 ray = rotate(sweep.T_ref_radar, local);
  const double range = std::sqrt(local[0] * local[0] + local[1] * local[1] + local[2] * local[2]);
  const double nearness = range > 0 ? 1 / range : 0;  // a return at the radar itself has no direction
  const Vec3 unit{ray[0] * nearness, ray[1] * nearness, ray[2] * nearness};
  const Vec3& own = sweep.sensor_velocity;
  double velocity = p[4];  // m/s, of the target over ground, along the ray
  if (sweep.velocity != RadialVelocity::compensated) velocity += unit[0] * own[0] + unit[1] * own[1] + unit[2] * own[2];
  const bool known = std::isfinite(velocity), aliased = sweep.velocity == RadialVelocity::aliased;

  const double moving = known && !aliased ? velocity : 0;
  const double x = sweep.T_ref_radar[3] + ray[0] + unit[0] * moving * sweep.age;
  const double y = sweep.T_ref_radar[7] + ray[1] + unit[1] * moving * sweep.age;
  const double z = sweep.T_ref_radar[11] + ray[2];
  const int column = cell_index(float(x), float(grid.x_min), float(grid.cell), grid.width);
  const int row = cell_index(float(y), float(grid.y_min), float(grid.cell), grid.height);
  if (column == kOutside || row == kOutside) return kOutside;  // no z window: automotive radars measure elevation poorly or not at all

  out.offset_x = float(x - (grid.x_min + (column + 0.5) * grid.cell));
  out.offset_y = float(y - (grid.y_min + (row + 0.5) * grid.cell));
  out.height = float(z - spec.ground(x, y));
  out.intensity = p[3];
  out.velocity_x = float(unit[0] * moving);
  out.velocity_y = float(unit[1] * moving);
  const bool phased = known && aliased;
  out.phase_cos = phased ? float(std::cos(kTwoPi * velocity / sweep.period)) : 0.f;
  out.phase_sin = phased ? float(std::sin(kTwoPi * velocity / sweep.period)) : 0.f;
  out.age = sweep.age;
  return row * grid.width + column;
}

// use(index, sweep, point) for the points [begin, end) of all sweeps in their order.
template <class Use>
void each_point(const RadarInput* sweeps, std::int64_t begin, std::int64_t end, Use&& use) {
  for (std::int64_t first = 0; first < end; first += sweeps++->count)
    for (std::int64_t i = std::max(begin, first); i < std::min(end, first + sweeps->count); ++i)
      use(i, *sweeps, sweeps->points + (i - first) * 5);
}

// Places the points and keeps the good ones in their order.
RadarStats collect(const ModelSpec& spec, const RadarInput* sweeps, int count, Workspace& w, ThreadPool& pool) {
  const Grid grid(spec);
  std::int64_t total = 0;
  for (int s = 0; s < count; ++s) total += sweeps[s].count;
  RadarStats stats;
  const auto keep = [&](int cell, const Point& point) {
    if (cell == kInvalid) {
      ++stats.invalid;
    } else if (cell == kOutside) {
      ++stats.outside;
    } else if (stats.used == spec.radar.max_points) {
      ++stats.overflow;
    } else {
      w.points[stats.used] = point;
      w.cell[stats.used++] = cell;
    }
  };
  // As many as the workspace holds are placed in parallel and then moved up; the rest, if any, follows one by one.
  const int together = static_cast<int>(std::min<std::int64_t>(total, spec.radar.max_points));
  pool.parallel_for(together, [&](int begin, int end) {
    each_point(sweeps, begin, end,
               [&](std::int64_t i, const RadarInput& sweep, const float* p) { w.cell[i] = place(spec, grid, sweep, p, w.points[i]); });
  });
  for (int i = 0; i < together; ++i) keep(w.cell[i], w.points[i]);
  each_point(sweeps, together, total, [&](std::int64_t, const RadarInput& sweep, const float* p) {
    Point point;
    const int cell = place(spec, grid, sweep, p, point);
    keep(cell, point);
  });
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
  float value[kStatistics];  // by RadarStatistic
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
  const float share = 1.f / static_cast<float>(end - begin);
  return {{float(std::log1p(double(end - begin))), high.intensity, sum.intensity * share, sum.velocity_x * share, sum.velocity_y * share,
           sum.phase_cos * share, sum.phase_sin * share, sum.height * share, low.height, high.height, sum.offset_x * share,
           sum.offset_y * share, low.age}};
}

// Grid cells [begin, begin + count), count <= kBlock.
void write_block(const RadarSpec& radar, const Workspace& w, int begin, int count, std::size_t cells, float* out) {
  const std::size_t features = radar.features.size();
  float block[kMaxFeatures * kBlock];
  std::fill(block, block + features * kBlock, 0.f);
  for (int i = 0; i < count; ++i) {
    const std::int32_t start = w.starts[begin + i], end = w.starts[begin + i + 1];
    if (start == end) continue;
    const Statistics s = summarise(w.points, w.order + start, w.order + end);
    for (std::size_t f = 0; f < features; ++f) {
      const RadarFeature& feature = radar.features[f];
      block[f * kBlock + i] = (s.value[static_cast<int>(feature.statistic)] - feature.offset) * feature.scale;
    }
  }
  for (std::size_t f = 0; f < features; ++f) std::copy(block + f * kBlock, block + f * kBlock + count, out + f * cells + begin);
}

}  // namespace

std::size_t radar_workspace(const ModelSpec& spec) {
  const std::size_t cells = std::size_t(spec.radar_width()) * spec.radar_height();
  return spec.radar.max_points * (sizeof(Point) + 2 * sizeof(std::int32_t)) + (cells + 1) * sizeof(std::int32_t);
}

RadarStats voxelize_radar(const ModelSpec& spec, const RadarInput* sweeps, int count, float* out, void* workspace, ThreadPool& pool) {
  const int cells = spec.radar_width() * spec.radar_height();
  Workspace w(spec, workspace);
  const RadarStats stats = collect(spec, sweeps, count, w, pool);
  sort_by_cell(w, stats.used, cells);
  pool.parallel_for((cells + kBlock - 1) / kBlock, [&](int first, int last) {
    for (int block = first; block < last; ++block)
      write_block(spec.radar, w, block * kBlock, std::min(kBlock, cells - block * kBlock), cells, out);
  });
  return stats;
}

}  // namespace imkd
