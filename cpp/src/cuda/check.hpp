// Every call of CUDA ends here.
#pragma once
#include <cuda_runtime_api.h>

#include <string>

#include "imkd/error.hpp"

namespace imkd::cuda {

inline void require(cudaError_t status, Code code, const char* call, const std::string& where, const char* fix) {
  if (status != cudaSuccess) throw Error(code, std::string(call) + ": " + cudaGetErrorString(status), where, fix);
}

// What fails in a running detector.
inline void check(cudaError_t status, const char* call, const std::string& where = {}) {
  require(status, Code::device_failed, call, where, "load the detector anew");
}

}  // namespace imkd::cuda
