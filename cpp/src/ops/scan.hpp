// Exclusive sums over a block, and over an array by a single block.
#pragma once
#include "kernel.hpp"

namespace imkd::cuda {

constexpr int kScanThreads = 1024;  // 32 warps

// Sum of value over the threads before this one in a block of kScanThreads; total: over all threads.
__device__ inline int block_scan(int value, int& total) {
  __shared__ int sums[32];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const auto within_warp = [lane](int sum) {
    for (int d = 1; d < 32; d *= 2) {
      const int before = __shfl_up_sync(~0u, sum, d);
      if (lane >= d) sum += before;
    }
    return sum;
  };
  const int up_to = within_warp(value);
  if (lane == 31) sums[warp] = up_to;
  __syncthreads();
  if (warp == 0) sums[lane] = within_warp(sums[lane]);
  __syncthreads();
  total = sums[31];
  const int before = up_to - value + (warp > 0 ? sums[warp - 1] : 0);
  __syncthreads();  // the next call writes sums
  return before;
}

}  // namespace imkd::cuda
