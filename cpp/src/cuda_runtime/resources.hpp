// RAII owners of CUDA streams, events, graphs and memory.
#pragma once
#include <memory>
#include <type_traits>

#include "check.hpp"

namespace imkd::cuda {

// To be called before any call of TensorRT: without a driver its first call returns garbage and its second crashes.
inline void require_device() {
  constexpr const char* kFix = "run imkd-edge doctor, which names what is missing; or use device \"cpu\"";
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess)
    throw Error(Code::device_unavailable, std::string("no GPU: ") + cudaGetErrorString(status), "cudaGetDeviceCount",
                kFix);
  if (count == 0) throw Error(Code::device_unavailable, "no GPU: CUDA reports no device", "cudaGetDeviceCount", kFix);
}

template <class Handle, cudaError_t (*destroy)(Handle)>
struct Destroy {
  // The status is ignored: it reports earlier work, whose own call reports it.
  void operator()(Handle handle) const { destroy(handle); }
};
template <class Handle, cudaError_t (*destroy)(Handle)>
using Owner = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy<Handle, destroy>>;

using OwnStream = Owner<cudaStream_t, cudaStreamDestroy>;
using OwnEvent = Owner<cudaEvent_t, cudaEventDestroy>;
using OwnGraph = Owner<cudaGraph_t, cudaGraphDestroy>;
using OwnGraphExec = Owner<cudaGraphExec_t, cudaGraphExecDestroy>;

inline OwnStream make_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  return OwnStream(stream);
}

inline OwnEvent make_event(unsigned flags) {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, flags), "cudaEventCreateWithFlags");
  return OwnEvent(event);
}

template <class T>
std::shared_ptr<T> device_memory(std::size_t count) {  // not cleared; the host cannot access it
  void* memory = nullptr;
  check(cudaMalloc(&memory, count * sizeof(T)), "cudaMalloc");
  return {static_cast<T*>(memory), [](T* p) { cudaFree(p); }};
}

template <class T>
std::shared_ptr<T> pinned_memory(std::size_t count) {  // not cleared; one address for host and device
  void* memory = nullptr;
  check(cudaHostAlloc(&memory, count * sizeof(T), cudaHostAllocMapped), "cudaHostAlloc");
  return {static_cast<T*>(memory), [](T* p) { cudaFreeHost(p); }};
}

}  // namespace imkd::cuda
