// Points -> dense radar grid: a stable counting sort by cell, then the statistics of each cell in the order of its
// points.
#include <algorithm>
#include <cmath>

#include "imkd/ops.hpp"
#include "radar_point.hpp"

namespace imkd {
namespace {

constexpr int kBlock = 16;  // cells written at once: one cache line per channel

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

// use(index, sweep, point) for the points [begin, end) of all sweeps in their order.
template <class Use>
void each_point(const RadarInput* sweeps, std::int64_t begin, std::int64_t end, Use&& use) {
  for (std::int64_t first = 0; first < end; first += sweeps++->count)
    for (std::int64_t i = std::max(begin, first); i < std::min(end, first + sweeps->count); ++i)
      use(i, *sweeps, sweeps->points + (i - first) * 5);
}

// Bins the points and stores those inside the grid in their order.
RadarStats collect(const ModelSpec& spec, const Vec3& ground, const RadarInput* sweeps, int count, Workspace& w,
                   ThreadPool& pool) {
  const Plane grid = Plane::of_radar(spec, ground);
  std::int64_t total = 0;
  for (int s = 0; s < count; ++s) total += sweeps[s].count;
  RadarStats stats;
  const auto store = [&](int cell, const Point& point) {
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
  // As many as the workspace holds are binned in parallel and then compacted; the rest, if any, follows one by one.
  const int parallel = static_cast<int>(std::min<std::int64_t>(total, spec.radar.max_points));
  pool.parallel_for(parallel, [&](int begin, int end) {
    each_point(sweeps, begin, end, [&](std::int64_t i, const RadarInput& sweep, const float* p) {
      w.cell[i] = bin_point(grid, sweep, p, w.points[i]);
    });
  });
  for (int i = 0; i < parallel; ++i) store(w.cell[i], w.points[i]);
  each_point(sweeps, parallel, total, [&](std::int64_t, const RadarInput& sweep, const float* p) {
    Point point;
    const int cell = bin_point(grid, sweep, p, point);
    store(cell, point);
  });
  return stats;
}

void sort_by_cell(Workspace& w, int points, int cells) {
  std::fill(w.starts, w.starts + cells + 1, 0);
  for (int i = 0; i < points; ++i) ++w.starts[w.cell[i] + 1];
  for (int c = 0; c < cells; ++c) w.starts[c + 1] += w.starts[c];
  // starts[c] advances through its interval to the start of the next one; the last loop shifts it back.
  for (int i = 0; i < points; ++i) w.order[w.starts[w.cell[i]]++] = i;
  for (int c = cells; c > 0; --c) w.starts[c] = w.starts[c - 1];
  w.starts[0] = 0;
}

// Writes the cells [begin, begin + count), count <= kBlock.
void write_block(const RadarSpec& radar, const Workspace& w, int begin, int count, std::size_t cells, float* out) {
  const std::size_t features = radar.features.size();
  float block[kMaxFeatures * kBlock];
  std::fill(block, block + features * kBlock, 0.f);
  for (int i = 0; i < count; ++i) {
    const std::int32_t start = w.starts[begin + i];
    const std::int32_t end = w.starts[begin + i + 1];
    if (start == end) continue;
    const Statistics s = summarise([&](int p) -> const Point& { return w.points[w.order[start + p]]; }, end - start);
    for (std::size_t f = 0; f < features; ++f) {
      const RadarFeature& feature = radar.features[f];
      block[f * kBlock + i] = (s.value[static_cast<int>(feature.statistic)] - feature.offset) * feature.scale;
    }
  }
  for (std::size_t f = 0; f < features; ++f)
    std::copy(block + f * kBlock, block + f * kBlock + count, out + f * cells + begin);
}

}  // namespace

std::size_t radar_workspace(const ModelSpec& spec) {
  const std::size_t cells = std::size_t(spec.radar_width()) * spec.radar_height();
  return spec.radar.max_points * (sizeof(Point) + 2 * sizeof(std::int32_t)) + (cells + 1) * sizeof(std::int32_t);
}

RadarStats voxelize_radar(const ModelSpec& spec, const Vec3& ground, const RadarInput* sweeps, int count, float* out,
                          void* workspace, ThreadPool& pool) {
  const int cells = spec.radar_width() * spec.radar_height();
  Workspace w(spec, workspace);
  const RadarStats stats = collect(spec, ground, sweeps, count, w, pool);
  sort_by_cell(w, stats.used, cells);
  pool.parallel_for((cells + kBlock - 1) / kBlock, [&](int first, int last) {
    for (int block = first; block < last; ++block)
      write_block(spec.radar, w, block * kBlock, std::min(kBlock, cells - block * kBlock), cells, out);
  });
  return stats;
}

}  // namespace imkd
