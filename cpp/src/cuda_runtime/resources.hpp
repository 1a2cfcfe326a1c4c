// RAII owners of CUDA streams, events, graphs, memory and the thread's device.
#pragma once
#include <memory>
#include <type_traits>

#include "check.hpp"
#include "own_process.hpp"

namespace imkd::cuda {

// To be called before any call of TensorRT: without a driver its first call returns garbage and its second crashes.
inline void require_device() {
  constexpr const char* kFix = "run imkd-edge doctor, which names what is missing; or use device \"cpu\"";
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorInitializationError)
    throw Error(Code::device_unavailable, std::string("no GPU: ") + cudaGetErrorString(status), "cudaGetDeviceCount",
                "a forked child cannot use CUDA if its parent did: start it by \"spawn\", or fork before the first "
                "use of CUDA");
  if (status != cudaSuccess)
    throw Error(Code::device_unavailable, std::string("no GPU: ") + cudaGetErrorString(status), "cudaGetDeviceCount",
                kFix);
  if (count == 0) throw Error(Code::device_unavailable, "no GPU: CUDA reports no device", "cudaGetDeviceCount", kFix);
}

// The calling thread's device until the end of the scope; then the caller's again.
class DeviceScope {
 public:
  explicit DeviceScope(int device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (device != before_) check(cudaSetDevice(device), "cudaSetDevice");
    changed_ = device != before_;
  }
  ~DeviceScope() {
    if (changed_) cudaSetDevice(before_);
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

// Where a resource was made, and is to be freed: a device, in a process. A forked child cannot use CUDA and frees
// nothing.
class Origin {
 public:
  const OwnProcess& process() const { return process_; }
  int device() const { return device_; }
  template <class Free>
  void release(Free&& free) const noexcept {
    if (!process_.here()) return;
    int before = device_;
    cudaGetDevice(&before);
    if (before != device_) cudaSetDevice(device_);
    free();  // its status reports earlier work, whose own call reports it
    if (before != device_) cudaSetDevice(before);
  }

 private:
  static int current() {
    int device = 0;
    cudaGetDevice(&device);  // where it fails, so does the call that makes the resource
    return device;
  }
  OwnProcess process_;
  int device_ = current();
};

template <class Handle, cudaError_t (*destroy)(Handle)>
struct Destroy {
  Origin origin;
  void operator()(Handle handle) const {
    origin.release([handle] { destroy(handle); });
  }
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
std::shared_ptr<T> own_memory(void* memory) {  // of cudaMalloc
  return {static_cast<T*>(memory), [origin = Origin()](T* p) { origin.release([p] { cudaFree(p); }); }};
}

inline std::size_t at_least_a_byte(std::size_t size) { return size ? size : 1; }  // the driver refuses 0

template <class T>
std::shared_ptr<T> device_memory(std::size_t count) {  // not cleared; the host cannot access it
  void* memory = nullptr;
  check(cudaMalloc(&memory, at_least_a_byte(count * sizeof(T))), "cudaMalloc");
  return own_memory<T>(memory);
}

template <class T>
std::shared_ptr<T> pinned_memory(std::size_t count) {  // not cleared; one address for host and device
  void* memory = nullptr;
  check(cudaHostAlloc(&memory, at_least_a_byte(count * sizeof(T)), cudaHostAllocMapped), "cudaHostAlloc");
  return {static_cast<T*>(memory), [origin = Origin()](T* p) { origin.release([p] { cudaFreeHost(p); }); }};
}

}  // namespace imkd::cuda
