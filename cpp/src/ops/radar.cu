// Points -> dense radar grid. Atomics only count and reserve memory; every sum runs in the order in which the points
// arrived.
#include "radar_point.hpp"
#include "scan.hpp"

namespace imkd::cuda {
namespace {

struct Scratch {
  std::int32_t* cell;       // (max_points) of the points being binned
  std::int32_t* used;       // (max_points) used points in order of arrival: index among all points of all sweeps
  std::int32_t* used_cell;  // (max_points)
  std::int32_t* slot;       // (max_points) index within the cell, unsorted
  std::int32_t* unsorted;   // (max_points) index in used, by cell, unsorted within it
  Point* points;            // (max_points) by cell, in order of arrival
  std::int32_t* count;      // (cells + 1) points of each cell; the last: reserved entries of points
  std::int32_t* start;      // (cells) a cell's first entry of points; only of cells with points
  std::size_t bytes;

  Scratch(const ModelSpec& spec, void* memory) {
    const std::size_t most = spec.radar.max_points;
    const std::size_t cells = std::size_t(spec.radar_width()) * spec.radar_height();
    Arena arena(memory);
    for (std::int32_t** array : {&cell, &used, &used_cell, &slot, &unsorted}) *array = arena.take<std::int32_t>(most);
    points = arena.take<Point>(most);
    count = arena.take<std::int32_t>(cells + 1);
    start = arena.take<std::int32_t>(cells);
    bytes = arena.bytes();
  }
};

struct Features {  // channels of the grid, in the spec's order
  int count;
  struct Feature {
    int statistic;
    float offset;
    float scale;
  } feature[kMaxFeatures];

  explicit Features(const RadarSpec& radar) : count(static_cast<int>(radar.features.size())) {
    for (int f = 0; f < count; ++f) {
      const RadarFeature& from = radar.features[f];
      feature[f] = {static_cast<int>(from.statistic), from.offset, from.scale};
    }
  }
};

constexpr int kNoPoint = -3;  // no cell: see kOutside, kInvalid

struct Sweeps {
  const RadarInput* first;
  int count;
  // The five floats of a point and its sweep, by its index among the points of all sweeps; null beyond the last one.
  __device__ const float* find(const RadarInput*& sweep, int index) const {
    for (sweep = first; sweep < first + count; ++sweep) {
      if (index < sweep->count) return sweep->points + std::size_t(index) * 5;
      index -= sweep->count;
    }
    return nullptr;
  }
};

__global__ void __launch_bounds__(128) place_points(Plane grid, Sweeps sweeps, int first, int points, Scratch s) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= points) return;
  const RadarInput* sweep = nullptr;
  const float* p = sweeps.find(sweep, first + i);
  Point point;
  s.cell[i] = p ? bin_point(grid, *sweep, p, point) : kNoPoint;
}

// Groups the used points by cell, unsorted within it. One block, after every count is known.
__device__ void group_points(const Scratch& s, int used, int cells) {
  __syncthreads();
  for (int i = threadIdx.x; i < used; i += kScanThreads)
    if (s.slot[i] == 0) s.start[s.used_cell[i]] = atomicAdd(s.count + cells, s.count[s.used_cell[i]]);
  __syncthreads();
  for (int i = threadIdx.x; i < used; i += kScanThreads) s.unsorted[s.start[s.used_cell[i]] + s.slot[i]] = i;
}

// Compacts the first max_points points inside the grid, counts them by cell, and counts the others; after the last
// chunk it groups them. One block.
__global__ void __launch_bounds__(kScanThreads)
    keep_points(Scratch s, int first, int points, int max_points, int cells, bool last, RadarStats* stats) {
  int inside = stats->used + stats->overflow;
  int invalid = stats->invalid;
  int outside = stats->outside;
  for (int base = 0; base < points; base += kScanThreads) {
    const int i = base + threadIdx.x;
    const int cell = i < points ? s.cell[i] : kNoPoint;
    invalid += __syncthreads_count(cell == kInvalid);
    outside += __syncthreads_count(cell == kOutside);
    int total = 0;
    const int to = inside + block_scan(cell >= 0, total);
    if (cell >= 0 && to < max_points) {
      s.used[to] = first + i;
      s.used_cell[to] = cell;
      s.slot[to] = atomicAdd(s.count + cell, 1);
    }
    inside += total;
  }
  if (threadIdx.x == 0) *stats = {min(inside, max_points), invalid, outside, max(inside - max_points, 0)};
  if (last) group_points(s, min(inside, max_points), cells);
}

__global__ void __launch_bounds__(128) order_points(Plane grid, Sweeps sweeps, Scratch s, const RadarStats* stats) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= stats->used) return;
  const int cell = s.used_cell[i];
  const int begin = s.start[cell];
  const int end = begin + s.count[cell];
  int rank = 0;
  for (int k = begin; k < end; ++k) rank += s.unsorted[k] < i;
  const RadarInput* sweep = nullptr;
  const float* p = sweeps.find(sweep, s.used[i]);
  bin_point(grid, *sweep, p, s.points[begin + rank]);
}

template <class T>
__global__ void __launch_bounds__(128) write_grid(Scratch s, int cells, Features features, T* __restrict__ out) {
  // By thread, in shared memory: a thread's own array with a variable index would be in local memory.
  __shared__ float values[kStatistics][128];
  const int cell = blockIdx.x * blockDim.x + threadIdx.x;
  if (cell >= cells) return;
  const int count = s.count[cell];
  if (count > 0) {
    const Point* points = s.points + s.start[cell];
    const Statistics all = summarise([=](int i) -> const Point& { return points[i]; }, count);
#pragma unroll
    for (int k = 0; k < kStatistics; ++k) values[k][threadIdx.x] = all.value[k];
  }
  for (int f = 0; f < features.count; ++f) {
    const Features::Feature& feature = features.feature[f];
    const float value = count > 0 ? (values[feature.statistic][threadIdx.x] - feature.offset) * feature.scale : 0.f;
    out[std::size_t(f) * cells + cell] = from_float<T>(value);
  }
}

}  // namespace

std::size_t radar_workspace(const ModelSpec& spec) { return Scratch(spec, nullptr).bytes; }

void voxelize_radar(const ModelSpec& spec, const Vec3& ground, const RadarInput* first_sweep, int count, int points,
                    void* out, Type type, RadarStats* stats, void* workspace, Stream stream) {
  const Sweeps sweeps{first_sweep, count};
  const Plane grid = Plane::of_radar(spec, ground);
  const int cells = grid.cells();
  const int most = spec.radar.max_points;
  int chunk = 0;
  const Scratch s(spec, workspace);
  check(cudaMemsetAsync(stats, 0, sizeof(RadarStats), stream), "voxelize_radar");
  check(cudaMemsetAsync(s.count, 0, (std::size_t(cells) + 1) * sizeof(std::int32_t), stream), "voxelize_radar");

  // Chunks of max_points: one, unless the sweeps have more points.
  for (int first = 0; first < points; first += chunk) {
    chunk = points - first < most ? points - first : most;
    run("voxelize_radar: place", place_points, dim3(blocks(chunk, 128)), dim3(128), stream, grid, sweeps, first, chunk,
        s);
    run("voxelize_radar: keep", keep_points, dim3(1), dim3(kScanThreads), stream, s, first, chunk, most, cells,
        first + chunk == points, stats);
  }

  // Within a cell in order of arrival.
  const int used = points < most ? points : most;
  if (used > 0)
    run("voxelize_radar: order", order_points, dim3(blocks(used, 128)), dim3(128), stream, grid, sweeps, s, stats);

  // Write the channels.
  const Features features(spec.radar);
  with_type(type, [&](auto* kind) {
    using T = std::remove_pointer_t<decltype(kind)>;
    run("voxelize_radar: write", write_grid<T>, dim3(blocks(cells, 128)), dim3(128), stream, s, cells, features,
        static_cast<T*>(out));
  });
}

}  // namespace imkd::cuda
