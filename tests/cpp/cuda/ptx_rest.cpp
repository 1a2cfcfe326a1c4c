// What the frame loop asks of CUDA beyond what ptxrun, the translator of PTX, has: no memory of the caller's is known
// to the device, and there are no graphs (an engine on the CPU makes none). Work in a stream runs at once.
#include <cuda_runtime_api.h>

#include "fake_cuda.hpp"

#define HIDDEN __attribute__((visibility("hidden")))

extern "C" {
HIDDEN cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void*) {
  *attributes = {};
  return cudaSuccess;
}
HIDDEN cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 0;
  return cudaSuccess;
}
HIDDEN cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) { return cudaErrorNotSupported; }
HIDDEN cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*) { return cudaErrorNotSupported; }
HIDDEN cudaError_t cudaGraphInstantiate(cudaGraphExec_t*, cudaGraph_t, unsigned long long) {
  return cudaErrorNotSupported;
}
HIDDEN cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) { return cudaErrorNotSupported; }
HIDDEN cudaError_t cudaGraphDestroy(cudaGraph_t) { return cudaErrorNotSupported; }
HIDDEN cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) { return cudaErrorNotSupported; }
}

namespace fake {
HIDDEN void put(cudaStream_t, std::function<void()> work) { work(); }
HIDDEN Cuda& cuda() {  // counts nothing here
  static Cuda cuda;
  return cuda;
}
}  // namespace fake
