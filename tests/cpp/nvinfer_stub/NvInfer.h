// The part of TensorRT that trt.cpp uses, declared from its documentation, for machines without the real NvInfer.h. The
// binary layout is NOT TensorRT's: link code compiled against this file to the fake in this folder only.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#define NV_TENSORRT_MAJOR 10
#define NV_TENSORRT_VERSION 100300L

namespace nvinfer1 {

class ILogger {
 public:
  enum class Severity : std::int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
  virtual void log(Severity severity, char const* message) noexcept = 0;
  virtual ~ILogger() = default;
};

struct Dims {
  static constexpr std::int32_t MAX_DIMS{8};
  std::int32_t nbDims;
  std::int64_t d[MAX_DIMS];
};

enum class DataType : std::int32_t { kFLOAT = 0, kHALF = 1, kINT8 = 2, kINT32 = 3 };
enum class TensorFormat : std::int32_t { kLINEAR = 0, kCHW2 = 1 };
enum class TensorIOMode : std::int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };

class IExecutionContext {
 public:
  virtual ~IExecutionContext() = default;
  virtual bool setTensorAddress(char const* name, void* data) noexcept = 0;
  virtual bool enqueueV3(cudaStream_t stream) noexcept = 0;
};

class ICudaEngine {
 public:
  virtual ~ICudaEngine() = default;
  virtual std::int32_t getNbIOTensors() const noexcept = 0;
  virtual char const* getIOTensorName(std::int32_t index) const noexcept = 0;
  virtual Dims getTensorShape(char const* name) const noexcept = 0;
  virtual DataType getTensorDataType(char const* name) const noexcept = 0;
  virtual TensorFormat getTensorFormat(char const* name) const noexcept = 0;
  virtual TensorIOMode getTensorIOMode(char const* name) const noexcept = 0;
  virtual IExecutionContext* createExecutionContext() noexcept = 0;
};

class IRuntime {
 public:
  virtual ~IRuntime() = default;
  virtual void setDLACore(std::int32_t core) noexcept = 0;
  virtual ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept = 0;
};

}  // namespace nvinfer1
