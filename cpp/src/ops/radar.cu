// Points -> dense radar grid. Atomics only count and hand out places; the order of a cell's points, and so every sum,
// is that of arrival.
#include "radar_point.hpp"
#include "scan.hpp"

namespace imkd::cuda {
namespace {

struct Scratch {
  std::int32_t* cell;       // (max_points) of the points being placed
  std::int32_t* kept;       // (max_points) good points by arrival: their number among all points of all sweeps
  std::int32_t* kept_cell;  // (max_points)
  std::int32_t* slot;       // (max_points) place within the cell, in no order
  std::int32_t* unsorted;   // (max_points) numbers in kept, by cell, in no order
  Point* points;            // (max_points) by cell, in the order of arrival
  std::int32_t* count;      // (cells + 1) points of each cell; behind them, how many places are handed out
  std::int32_t* start;      // (cells) where a cell's points begin; only cells that have some
  std::size_t bytes;

  Scratch(const ModelSpec& spec, void* memory) {
    const std::size_t most = spec.radar.max_points, cells = std::size_t(spec.radar_width()) * spec.radar_height();
    Parts parts(memory);
    for (std::int32_t** part : {&cell, &kept, &kept_cell, &slot, &unsorted}) *part = parts.take<std::int32_t>(most);
    points = parts.take<Point>(most);
    count = parts.take<std::int32_t>(cells + 1);
    start = parts.take<std::int32_t>(cells);
    bytes = parts.bytes();
  }
};

struct Features {  // what is written, in the spec's order
  int count;
  struct Feature {
    int statistic;
    float offset, scale;
  } feature[kMaxFeatures];
};

constexpr int kNoPoint = -3;  // beside kOutside and kInvalid

struct Sweeps {
  const RadarInput* first;
  int count;
  // The point with this number among all sweeps' points: five floats, null beyond the last one; sweep becomes its own.
  __device__ const float* find(const RadarInput*& sweep, int number) const {
    for (sweep = first; sweep < first + count; ++sweep) {
      if (number < sweep->count) return sweep->points + std::size_t(number) * 5;
      number -= sweep->count;
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
  s.cell[i] = p ? place(grid, *sweep, p, point) : kNoPoint;
}

// Keeps the first max_points good points, and counts. One block.
__global__ void __launch_bounds__(kScanThreads)
    keep_points(Scratch s, int first, int points, int max_points, RadarStats* stats) {
  int good = stats->used + stats->overflow, invalid = stats->invalid, outside = stats->outside;
  for (int base = 0; base < points; base += kScanThreads) {
    const int i = base + threadIdx.x, cell = i < points ? s.cell[i] : kNoPoint;
    invalid += __syncthreads_count(cell == kInvalid);
    outside += __syncthreads_count(cell == kOutside);
    int total = 0;
    const int to = good + block_scan(cell >= 0, total);
    if (cell >= 0 && to < max_points) s.kept[to] = first + i, s.kept_cell[to] = cell;
    good += total;
  }
  if (threadIdx.x == 0) *stats = {min(good, max_points), invalid, outside, max(good - max_points, 0)};
}

__global__ void __launch_bounds__(256) count_cells(Scratch s, const RadarStats* stats) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < stats->used) s.slot[i] = atomicAdd(s.count + s.kept_cell[i], 1);
}

__global__ void __launch_bounds__(256) hand_out(Scratch s, const RadarStats* stats, int cells) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < stats->used && s.slot[i] == 0) s.start[s.kept_cell[i]] = atomicAdd(s.count + cells, s.count[s.kept_cell[i]]);
}

__global__ void __launch_bounds__(256) group_points(Scratch s, const RadarStats* stats) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < stats->used) s.unsorted[s.start[s.kept_cell[i]] + s.slot[i]] = i;
}

__global__ void __launch_bounds__(128) order_points(Plane grid, Sweeps sweeps, Scratch s, const RadarStats* stats) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= stats->used) return;
  const int cell = s.kept_cell[i], begin = s.start[cell], end = begin + s.count[cell];
  int rank = 0;
  for (int k = begin; k < end; ++k) rank += s.unsorted[k] < i;
  const RadarInput* sweep = nullptr;
  const float* p = sweeps.find(sweep, s.kept[i]);
  place(grid, *sweep, p, s.points[begin + rank]);
}

template <class T>
__global__ void __launch_bounds__(128) write_grid(Scratch s, int cells, Features features, T* __restrict__ out) {
  __shared__ float values[kStatistics]
                         [128];  // by thread: an array that is indexed by a variable would live in local memory
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
    const Features::Feature& kind = features.feature[f];
    const float value = count > 0 ? (values[kind.statistic][threadIdx.x] - kind.offset) * kind.scale : 0.f;
    out[std::size_t(f) * cells + cell] = from_float<T>(value);
  }
}

}  // namespace

std::size_t radar_workspace(const ModelSpec& spec) { return Scratch(spec, nullptr).bytes; }

void voxelize_radar(const ModelSpec& spec, const RadarInput* first_sweep, int count, int points, void* out, Type type,
                    RadarStats* stats, void* workspace, Stream stream) {
  const Sweeps sweeps{first_sweep, count};
  const Plane grid = Plane::of_radar(spec);
  const int cells = grid.cells(), most = spec.radar.max_points;
  int some = 0;
  const Scratch s(spec, workspace);
  check(cudaMemsetAsync(stats, 0, sizeof(RadarStats), stream), "voxelize_radar");
  check(cudaMemsetAsync(s.count, 0, (std::size_t(cells) + 1) * sizeof(std::int32_t), stream), "voxelize_radar");
  for (int first = 0; first < points; first += some) {  // once, unless there may be more than the model's maximum
    some = points - first < most ? points - first : most;
    run("voxelize_radar: place", place_points, dim3(blocks(some, 128)), dim3(128), stream, grid, sweeps, first, some,
        s);
    run("voxelize_radar: keep", keep_points, dim3(1), dim3(kScanThreads), stream, s, first, some, most, stats);
  }
  const int kept = points < most ? points : most;
  if (kept > 0) {
    run("voxelize_radar: count", count_cells, dim3(blocks(kept, 256)), dim3(256), stream, s, stats);
    run("voxelize_radar: hand out", hand_out, dim3(blocks(kept, 256)), dim3(256), stream, s, stats, cells);
    run("voxelize_radar: group", group_points, dim3(blocks(kept, 256)), dim3(256), stream, s, stats);
    run("voxelize_radar: order", order_points, dim3(blocks(kept, 128)), dim3(128), stream, grid, sweeps, s, stats);
  }
  Features features{static_cast<int>(spec.radar.features.size()), {}};
  for (int f = 0; f < features.count; ++f) {
    const RadarFeature& kind = spec.radar.features[f];
    features.feature[f] = {static_cast<int>(kind.statistic), kind.offset, kind.scale};
  }
  with_type(type, [&](auto* kind) {
    using T = std::remove_pointer_t<decltype(kind)>;
    run("voxelize_radar: write", write_grid<T>, dim3(blocks(cells, 128)), dim3(128), stream, s, cells, features,
        static_cast<T*>(out));
  });
}

}  // namespace imkd::cuda
