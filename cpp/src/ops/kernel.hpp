// Shared by the .cu files. They compile with nvcc and, in the tests, as C++ against a header that runs kernels on the
// CPU.
#pragma once
#if defined(__CUDACC__)
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#else
#include "cuda_host.hpp"
#endif

#include "cuda_runtime/check.hpp"
#include "device.hpp"
#include "imkd/cuda.hpp"

namespace imkd {

__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }

}  // namespace imkd

namespace imkd::cuda {

template <class T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float value) {
  return __float2half_rn(value);
}

constexpr int blocks(long long items, int per_block) { return static_cast<int>((items + per_block - 1) / per_block); }

template <class... P, class... A>
void run(const char* what, void (*kernel)(P...), dim3 grid, dim3 block, Stream stream, A... arguments) {
#if defined(__CUDACC__)
  kernel<<<grid, block, 0, stream>>>(static_cast<P>(arguments)...);
#else
  fake::put(stream, [=] {
    gpuhost::run(grid, block, [=] { kernel(static_cast<P>(arguments)...); });
    if (gpuhost::observer) gpuhost::observer->kernel(what, gpuhost::ctx().barriers, gpuhost::ctx().exchanges);
  });
#endif
  check(cudaGetLastError(), what);
}

// Calls use(T*) with the C++ type of a tensor's elements.
template <class Use>
void with_type(Type type, Use&& use) {
  if (type == Type::float16)
    use(static_cast<__half*>(nullptr));
  else
    use(static_cast<float*>(nullptr));
}

// Consecutive arrays of a workspace, each aligned to 256 bytes. Without memory it only counts bytes.
class Arena {
 public:
  explicit Arena(void* memory = nullptr) : memory_(static_cast<unsigned char*>(memory)) {}
  template <class T>
  T* take(std::size_t count) {
    T* array = memory_ ? reinterpret_cast<T*>(memory_ + used_) : nullptr;
    used_ += (count * sizeof(T) + 255) / 256 * 256;
    return array;
  }
  std::size_t bytes() const { return used_; }

 private:
  unsigned char* memory_;
  std::size_t used_ = 0;
};

}  // namespace imkd::cuda
