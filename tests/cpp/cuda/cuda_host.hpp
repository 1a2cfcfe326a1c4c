// The part of CUDA C++ that the kernels use, for a C++ compiler; gpuhost.hpp runs them.
#pragma once
#include <cuda_runtime_api.h>

#include <cmath>

#include "fake_cuda.hpp"
#include "gpuhost.hpp"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __shared__ thread_local /* block-scope: one copy per OS thread = per running block */

using std::max;
using std::min;

inline void __syncthreads() { gpuhost::block_barrier(); }
inline int __syncthreads_count(int p) { return gpuhost::block_barrier(p != 0); }
template <class T>
T gpuhost_pick(unsigned mask, T v, unsigned lane) {
  return gpuhost::unbits<T>(gpuhost::warp_exchange(mask, gpuhost::bits(v))[lane]);
}
inline unsigned gpuhost_lane() { return gpuhost::ctx().tid & 31; }
template <class T>
T __shfl_sync(unsigned mask, T v, int lane) {
  return gpuhost_pick(mask, v, lane & 31);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned d) {
  const unsigned lane = gpuhost_lane();
  return gpuhost_pick(mask, v, lane >= d ? lane - d : lane);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const std::array<uint64_t, 32> all = gpuhost::warp_exchange(mask, predicate != 0);
  unsigned word = 0;
  for (unsigned lane = 0; lane < 32; ++lane) word |= unsigned(mask >> lane & 1 & all[lane]) << lane;
  return word;
}
inline void __syncwarp(unsigned mask = ~0u) { gpuhost::warp_exchange(mask, 0); }
inline int __popcll(unsigned long long word) { return __builtin_popcountll(word); }
template <class T>
T atomicAdd(T* p, T v) {  // relaxed, as on the device
  return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
inline unsigned __float_as_uint(float f) { return gpuhost::unbits<unsigned>(gpuhost::bits(f)); }
inline float __uint_as_float(unsigned i) { return gpuhost::unbits<float>(gpuhost::bits(i)); }

struct __half {
  uint16_t x;
};
inline __half __float2half_rn(float f) {
  uint32_t u = __float_as_uint(f), s = u >> 16 & 0x8000;
  u &= 0x7fffffff;
  if (u > 0x7f800000) return {uint16_t(0x7fff)};
  if (u >= 0x477ff000) return {uint16_t(s | 0x7c00)};
  if (u < 0x38800000) {
    float m = __uint_as_float(u) + 0.5f;
    return {uint16_t(s | (__float_as_uint(m) - 0x3f000000))};
  }
  u += 0xfff + (u >> 13 & 1);
  return {uint16_t(s | ((u - 0x38000000) >> 13))};
}
inline float __half2float(__half h) {
  uint32_t s = uint32_t(h.x & 0x8000) << 16, e = h.x >> 10 & 31, m = h.x & 1023;
  if (e == 31) return __uint_as_float(s | 0x7f800000 | m << 13);
  if (e) return __uint_as_float(s | (e + 112) << 23 | m << 13);
  float r = float(m) * 5.9604644775390625e-8f;
  return s ? -r : r;
}
