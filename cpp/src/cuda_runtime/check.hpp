// Turns a failed CUDA call into an Error.
#pragma once
#include <cuda_runtime_api.h>

#include <string>

#include "imkd/error.hpp"

namespace imkd::cuda {

inline void require(cudaError_t status, Code code, const char* call, const std::string& where, const char* fix) {
  if (status != cudaSuccess) throw Error(code, std::string(call) + ": " + cudaGetErrorString(status), where, fix);
}

// For calls of a running detector.
inline void check(cudaError_t status, const char* call, const std::string& where = {}) {
  require(status, Code::device_failed, call, where, "load the detector again");
}

}  // namespace imkd::cuda
