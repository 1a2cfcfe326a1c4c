// The past in the present frame: each thread finds where one cell lies, once, and blends its four neighbours in every
// channel.
#include "kernel.hpp"
#include "warp_place.hpp"

namespace imkd::cuda {
namespace {

constexpr int kChannels = 16;  // per block, so that small maps fill the device

// This block's channels of one map; near: false where every cell is 0.
template <class T>
__device__ void blend(const Warp& warp, bool near, const T* __restrict__ features, int channels, T* __restrict__ out) {
  const int cells = warp.width * warp.height, cell = blockIdx.x * blockDim.x + threadIdx.x;
  if (cell >= cells) return;
  const int first = blockIdx.y * kChannels, last = min(first + kChannels, channels);
  std::int32_t from[4] = {};
  float weight[4] = {};
  if (near) {
    const Warp::Place place = warp.place(cell / warp.width, cell % warp.width);
#pragma unroll
    for (int tap = 0; tap < 4; ++tap) from[tap] = warp.tap(place, tap, weight[tap]);
  }
  for (int c = first; c < last; ++c) {
    const T* map = features + std::size_t(c) * cells;
    float sum = 0;
#pragma unroll
    for (int tap = 0; tap < 4; ++tap)
      if (weight[tap] > 0) sum += weight[tap] * to_float(map[from[tap]]);  // a weight of 0 hides whatever stands there
    out[std::size_t(c) * cells + cell] = from_float<T>(sum);
  }
}

template <class T>
__global__ void __launch_bounds__(256)
    warp(Warp warp, bool near, const T* __restrict__ features, int channels, T* __restrict__ out) {
  blend(warp, near, features, channels, out);
}

template <class T>
__global__ void __launch_bounds__(256)
    warp_slots(const PastMap* __restrict__ past, const T* __restrict__ maps, int channels, T* __restrict__ out) {
  const PastMap slot = past[blockIdx.z];
  const std::size_t size = std::size_t(channels) * slot.warp.width * slot.warp.height;
  blend(slot.warp, slot.near, maps + slot.place * size, channels, out + blockIdx.z * size);
}

}  // namespace

void warp_bev(const GridSpec& grid, const void* features, int channels, const Mat4& T_then_now, void* out, Type type,
              Stream stream) {
  Warp place(grid);
  const bool near = place.set(grid, T_then_now);
  const dim3 size(blocks(std::int64_t(place.width) * place.height, 256), blocks(channels, kChannels));
  if (channels == 0) return;
  with_type(type, [&](auto* kind) {
    using T = std::remove_pointer_t<decltype(kind)>;
    run("warp_bev", warp<T>, size, dim3(256), stream, place, near, static_cast<const T*>(features), channels,
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

}  // namespace imkd::cuda
