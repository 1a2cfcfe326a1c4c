// The lift's table, and the lift: a warp sums one cell in the table's order, a block writes 32 cells as whole cache
// lines.
#include <vector>

#include "frustum.hpp"
#include "scan.hpp"

namespace imkd::cuda {
namespace {

constexpr int kTile = 32;      // cells of a block, pixels and channels of a transposed tile
constexpr int kWarps = 8;      // of a block
constexpr int kLanesWide = 4;  // channels per lane in a pass
constexpr int kPass = 32 * kLanesWide;

std::size_t feature_pixels(const ModelSpec& spec) {
  return std::size_t(spec.image.feature_height()) * spec.image.feature_width();
}
std::size_t cells_of(const ModelSpec& spec) { return std::size_t(spec.grid.width()) * spec.grid.height(); }

// ---- table: count, scan, fill in any order, then sort each cell's points ----
struct Scratch {
  double* depths;          // (bins) m, centres
  std::int32_t* cell;      // (points) of each frustum point
  std::int32_t* count;     // (cells)
  std::int32_t* filled;    // (cells)
  std::int32_t* unsorted;  // (points)
  std::size_t bytes;

  Scratch(const ModelSpec& spec, void* memory) {
    Arena arena(memory);
    depths = arena.take<double>(spec.depth.bins);
    cell = arena.take<std::int32_t>(lift_points(spec));
    count = arena.take<std::int32_t>(2 * cells_of(spec));
    filled = count ? count + cells_of(spec) : nullptr;
    unsorted = arena.take<std::int32_t>(lift_points(spec));
    bytes = arena.bytes();
  }
};

// Finds and counts the cells of one camera; of one that has not moved it counts those of the last time.
__global__ void __launch_bounds__(128) place_frustum(Frustum frustum, bool moved, int h, int w, int bins,
                                                     const double* depths, std::int32_t* cell, std::int32_t* count) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel >= h * w) return;
  double x = 0, y = 0;
  const bool visible = moved && frustum.ray(pixel / w, pixel % w, x, y);
  for (int bin = 0; bin < bins; ++bin) {
    std::int32_t& stored = cell[bin * h * w + pixel];
    const int c = !moved ? stored : visible ? frustum.cell(x, y, depths[bin]) : kOutside;
    if (moved) stored = c;
    if (c != kOutside) atomicAdd(count + c, 1);
  }
}

__global__ void __launch_bounds__(kScanThreads) scan_cells(const std::int32_t* count, int cells, std::int32_t* rows) {
  int before = 0;
  for (int base = 0; base < cells; base += kScanThreads) {
    const int c = base + threadIdx.x;
    int total = 0;
    const int sum = block_scan(c < cells ? count[c] : 0, total);
    if (c < cells) rows[c] = before + sum;
    before += total;
  }
  if (threadIdx.x == 0) rows[cells] = before;
}

__global__ void __launch_bounds__(256) group_table(const std::int32_t* cell, int points, const std::int32_t* rows,
                                                   std::int32_t* filled, std::int32_t* unsorted) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= points || cell[i] == kOutside) return;
  unsorted[rows[cell[i]] + atomicAdd(filled + cell[i], 1)] = i;
}

__global__ void __launch_bounds__(256) order_table(const std::int32_t* cell, const std::int32_t* unsorted, int cells,
                                                   int pixels, int per_camera, LiftTable table) {
  const int slot = blockIdx.x * blockDim.x + threadIdx.x;
  if (slot >= table.rows[cells]) return;
  const int point = unsorted[slot], begin = table.rows[cell[point]], end = table.rows[cell[point] + 1];
  int rank = 0;
  for (int k = begin; k < end; ++k) rank += unsorted[k] < point;
  table.points[begin + rank] = point;
  table.pixels[begin + rank] = point / per_camera * pixels + point % pixels;
}

// ---- lift ----
// (N,C,pixels) -> (N,pixels,C)
template <class T>
__global__ void __launch_bounds__(256)
    transpose(const T* __restrict__ in, int channels, int pixels, T* __restrict__ out) {
  __shared__ T tile[kTile][kTile + 1];
  const int p0 = blockIdx.x * kTile;
  const int c0 = blockIdx.y * kTile;
  const std::size_t image = std::size_t(blockIdx.z) * channels * pixels;
  for (int c = threadIdx.y; c < kTile && c0 + c < channels; c += kWarps)
    if (p0 + int(threadIdx.x) < pixels)
      tile[c][threadIdx.x] = in[image + std::size_t(c0 + c) * pixels + p0 + threadIdx.x];
  __syncthreads();
  for (int p = threadIdx.y; p < kTile && p0 + p < pixels; p += kWarps)
    if (c0 + int(threadIdx.x) < channels)
      out[image + std::size_t(p0 + p) * channels + c0 + threadIdx.x] = tile[threadIdx.x][p];
}

// Adds the points [begin, end) of one cell for this lane's channels: first + lane, + 32, ...; evidence is the sum of
// depth.
template <class T>
__device__ void sum_cell(const LiftTable& table, const T* depth, const T* context, int begin, int end, int channels,
                         int first, float (&sum)[kLanesWide], float& evidence) {
  const int lane = threadIdx.x;
  for (int base = begin; base < end; base += 32) {
    const bool mine = base + lane < end;
    const int pixel = mine ? table.pixels[base + lane] : 0;
    const float weight = mine ? to_float(depth[table.points[base + lane]]) : 0.f;
    const int count = min(32, end - base);
    for (int k = 0; k < count; ++k) {
      const float w = __shfl_sync(~0u, weight, k);
      const T* from = context + std::size_t(__shfl_sync(~0u, pixel, k)) * channels + first + lane;
      evidence += w;
#pragma unroll
      for (int j = 0; j < kLanesWide; ++j)
        if (first + lane + 32 * j < channels) sum[j] += w * to_float(from[32 * j]);
    }
  }
}

template <class T, class Out>
__global__ void __launch_bounds__(32 * kWarps)
    lift_sum(LiftTable table, const T* __restrict__ depth, const T* __restrict__ context, int channels, int cells,
             Out* __restrict__ out) {
  __shared__ float tile[kPass][kTile + 1];
  __shared__ float evidences[kTile];
  const int cell0 = blockIdx.x * kTile;
  const int lane = threadIdx.x;
  const int warp = threadIdx.y;
  for (int first = 0; first < channels; first += kPass) {
    for (int c = warp; c < kTile && cell0 + c < cells; c += kWarps) {
      float sum[kLanesWide] = {};
      float evidence = 0;
      sum_cell(table, depth, context, table.rows[cell0 + c], table.rows[cell0 + c + 1], channels, first, sum, evidence);
#pragma unroll
      for (int j = 0; j < kLanesWide; ++j) tile[lane + 32 * j][c] = sum[j];
      if (lane == 0) evidences[c] = evidence;
    }
    __syncthreads();
    const int cell = cell0 + lane;
    for (int c = warp; c < kPass && first + c < channels; c += kWarps)
      if (cell < cells) out[std::size_t(first + c) * cells + cell] = from_float<Out>(tile[c][lane]);
    if (first == 0 && warp == 0 && cell < cells)
      out[std::size_t(channels) * cells + cell] = from_float<Out>(evidences[lane]);
    __syncthreads();  // the next pass writes the tile
  }
}

// Clears the tensor of each absent camera.
template <class T>
__global__ void __launch_bounds__(256) clear_camera(const ImageView* images, std::size_t each, T* __restrict__ out) {
  if (images[blockIdx.y].data) return;
  T* camera = out + blockIdx.y * each;
  for (std::size_t i = blockIdx.x * blockDim.x + threadIdx.x; i < each; i += std::size_t(gridDim.x) * blockDim.x)
    camera[i] = from_float<T>(0.f);
}

}  // namespace

void clear_absent(const ImageView* images, int count, void* tensor, std::size_t each, Type type, Stream stream) {
  with_type(type, [&](auto* kind) {
    using T = std::remove_pointer_t<decltype(kind)>;
    run("clear_absent", clear_camera<T>, dim3(16, count), dim3(256), stream, images, each, static_cast<T*>(tensor));
  });
}

std::size_t lift_points(const ModelSpec& spec) { return spec.cameras * feature_pixels(spec) * spec.depth.bins; }
std::size_t lift_table_workspace(const ModelSpec& spec) { return Scratch(spec, nullptr).bytes; }
std::size_t lift_workspace(const ModelSpec& spec, Layout layout, Type type) {
  return layout == Layout::channels_last ? 0
                                         : spec.cameras * feature_pixels(spec) * spec.context_channels * size_of(type);
}

void lift_table(const ModelSpec& spec, const SensorRig& rig, const ImageCrop* crops, const LiftTable& table,
                void* workspace, Stream stream) {
  const Scratch s(spec, workspace);
  // Computed on the host: pow differs between libraries, the edges must not.
  std::vector<double> depths(spec.depth.bins);
  for (int bin = 0; bin < spec.depth.bins; ++bin) depths[bin] = spec.depth.edge(bin + 0.5);
  check(cudaMemcpyAsync(s.depths, depths.data(), depths.size() * sizeof(double), cudaMemcpyHostToDevice, stream),
        "lift_table");
  update_lift_table(spec, rig, crops, nullptr, nullptr, table, workspace, stream);
}

void update_lift_table(const ModelSpec& spec, const SensorRig& rig, const ImageCrop* crops, const Mat4* T_ref_ego,
                       const bool* moved, const LiftTable& table, void* workspace, Stream stream) {
  const int h = spec.image.feature_height();
  const int w = spec.image.feature_width();
  const int cells = static_cast<int>(cells_of(spec));
  const int pixels = h * w;
  const int per_camera = pixels * spec.depth.bins;
  const int points = static_cast<int>(lift_points(spec));
  const Scratch s(spec, workspace);
  check(cudaMemsetAsync(s.count, 0, 2 * std::size_t(cells) * sizeof(std::int32_t), stream), "lift_table");
  static_assert(kOutside == -1);  // all bits set: no point of a camera that the rig lacks is in a cell
  const std::size_t used = rig.cameras.size() * static_cast<std::size_t>(per_camera);
  if (const std::size_t absent = lift_points(spec) - used)
    check(cudaMemsetAsync(s.cell + used, 0xff, absent * sizeof(std::int32_t), stream), "lift_table");
  for (std::size_t n = 0; n < rig.cameras.size(); ++n) {
    Frustum frustum(spec, ground_of(spec, rig), rig.cameras[n], crops[n]);
    if (T_ref_ego) frustum.T_ego_camera = compose(T_ref_ego[n], frustum.T_ego_camera);
    run("lift_table: place", place_frustum, dim3(blocks(pixels, 128)), dim3(128), stream, frustum, !moved || moved[n],
        h, w, spec.depth.bins, s.depths, s.cell + n * per_camera, s.count);
  }
  run("lift_table: scan", scan_cells, dim3(1), dim3(kScanThreads), stream, s.count, cells, table.rows);
  run("lift_table: group", group_table, dim3(blocks(points, 256)), dim3(256), stream, s.cell, points, table.rows,
      s.filled, s.unsorted);
  run("lift_table: order", order_table, dim3(blocks(points, 256)), dim3(256), stream, s.cell, s.unsorted, cells, pixels,
      per_camera, table);
}

void lift(const ModelSpec& spec, const LiftTable& table, const void* depth, const void* context, Layout layout,
          Type type, void* out, Type out_type, void* workspace, Stream stream) {
  const int pixels = static_cast<int>(feature_pixels(spec));
  const int channels = spec.context_channels;
  const int cells = static_cast<int>(cells_of(spec));
  with_type(type, [&](auto* kind) {
    using T = std::remove_pointer_t<decltype(kind)>;
    const bool channels_last = layout == Layout::channels_last;
    const T* by_pixel = static_cast<const T*>(channels_last ? context : workspace);
    if (!channels_last)
      run("lift: transpose", transpose<T>, dim3(blocks(pixels, kTile), blocks(channels, kTile), spec.cameras),
          dim3(32, kWarps), stream, static_cast<const T*>(context), channels, pixels, static_cast<T*>(workspace));
    with_type(out_type, [&](auto* out_kind) {
      using Out = std::remove_pointer_t<decltype(out_kind)>;
      run("lift: sum", lift_sum<T, Out>, dim3(blocks(cells, kTile)), dim3(32, kWarps), stream, table,
          static_cast<const T*>(depth), by_pixel, channels, cells, static_cast<Out*>(out));
    });
  });
}

}  // namespace imkd::cuda
