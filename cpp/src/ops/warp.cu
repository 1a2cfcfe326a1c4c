// Past maps in the present frame. Each thread computes the four taps of one cell once and blends them in every channel.
#include "kernel.hpp"
#include "past_map.hpp"

namespace imkd::cuda {
namespace {

constexpr int kChannels = 16;  // per block, so that small maps fill the device

// This block's channels of one map; empty: every cell is 0.
template <class T>
__device__ void blend(const Warp& warp, bool empty, const T* __restrict__ features, int channels, T* __restrict__ out) {
  const int cells = warp.width * warp.height;
  const int cell = blockIdx.x * blockDim.x + threadIdx.x;
  if (cell >= cells) return;
  const int first = blockIdx.y * kChannels;
  const int last = min(first + kChannels, channels);
  std::int32_t from[4] = {};
  float weight[4] = {};
  if (!empty) {
    const Warp::Sample sample = warp.sample(cell / warp.width, cell % warp.width);
#pragma unroll
    for (int tap = 0; tap < 4; ++tap) from[tap] = warp.tap(sample, tap, weight[tap]);
  }
  for (int c = first; c < last; ++c) {
    const T* map = features + std::size_t(c) * cells;
    float sum = 0;
    // A neighbour of weight 0 counts as 0, even where it is infinite or NaN.
#pragma unroll
    for (int tap = 0; tap < 4; ++tap)
      if (weight[tap] > 0) sum += weight[tap] * to_float(map[from[tap]]);
    out[std::size_t(c) * cells + cell] = from_float<T>(sum);
  }
}

template <class T>
__global__ void __launch_bounds__(256)
    warp(Warp warp, bool empty, const T* __restrict__ features, int channels, T* __restrict__ out) {
  blend(warp, empty, features, channels, out);
}

template <class T>
__global__ void __launch_bounds__(256)
    warp_slots(const PastMap* __restrict__ past, const T* __restrict__ maps, int channels, T* __restrict__ out) {
  const PastMap slot = past[blockIdx.z];
  const std::size_t size = std::size_t(channels) * slot.warp.width * slot.warp.height;
  blend(slot.warp, slot.empty, maps + slot.map * size, channels, out + blockIdx.z * size);
}

// Copies a map to its index; each block with non-finite values adds the number of its threads that met one.
template <class T>
__global__ void __launch_bounds__(256) copy_map(const T* __restrict__ map, std::size_t size, const std::int32_t* index,
                                                T* __restrict__ maps, std::int32_t* invalid) {
  const std::int32_t to = *index;
  if (to < 0) return;
  T* out = maps + to * size;
  bool bad = false;
  const std::size_t stride = std::size_t(gridDim.x) * blockDim.x;
  for (std::size_t i = std::size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size; i += stride) {
    const T value = map[i];
    out[i] = value;
    bad |= !std::isfinite(to_float(value));
  }
  const int threads = __syncthreads_count(bad);
  if (threadIdx.x == 0 && threads > 0) atomicAdd(invalid, threads);
}

}  // namespace

void warp_bev(const GridSpec& grid, const Vec3& ground, const void* features, int channels, const Mat4& T_then_now,
              void* out, Type type, Stream stream) {
  Warp sampling(grid);
  const bool empty = !sampling.set(grid, ground, T_then_now);
  const dim3 size(blocks(std::int64_t(sampling.width) * sampling.height, 256), blocks(channels, kChannels));
  if (channels == 0) return;
  with_type(type, [&](auto* kind) {
    using T = std::remove_pointer_t<decltype(kind)>;
    run("warp_bev", warp<T>, size, dim3(256), stream, sampling, empty, static_cast<const T*>(features), channels,
        static_cast<T*>(out));
  });
}

void warp_past(const GridSpec& grid, const PastMap* past, int slots, const void* maps, int channels, void* out,
               Type type, Stream stream) {
  const dim3 size(blocks(std::int64_t(grid.width()) * grid.height(), 256), blocks(channels, kChannels), slots);
  if (channels == 0 || slots == 0) return;
  with_type(type, [&](auto* kind) {
    using T = std::remove_pointer_t<decltype(kind)>;
    run("warp_past", warp_slots<T>, size, dim3(256), stream, past, static_cast<const T*>(maps), channels,
        static_cast<T*>(out));
  });
}

void store_map(const void* map, std::size_t size, Type type, const std::int32_t* index, void* maps,
               std::int32_t* invalid, Stream stream) {
  constexpr int kMostBlocks = 512;  // enough to fill the device
  const int needed = blocks(static_cast<long long>(size), 256);
  check(cudaMemsetAsync(invalid, 0, sizeof *invalid, stream), "store_map");
  with_type(type, [&](auto* kind) {
    using T = std::remove_pointer_t<decltype(kind)>;
    run("store_map", copy_map<T>, dim3(needed < kMostBlocks ? needed : kMostBlocks), dim3(256), stream,
        static_cast<const T*>(map), size, index, static_cast<T*>(maps), invalid);
  });
}

}  // namespace imkd::cuda
