#include "fake_nvinfer.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>

using namespace nvinfer1;

namespace fake {

State& state() {
  static State state;
  return state;
}

namespace {

std::map<char*, std::size_t>& allocations() {
  static std::map<char*, std::size_t> allocations;
  return allocations;
}

// True when the call shall fail; TensorRT's calls also say so.
bool fails(const std::string& call, bool is_tensorrt = true) {
  state().calls.push_back(call);
  if (state().fails != call) return false;
  if (is_tensorrt && state().logger) {
    state().logger->log(ILogger::Severity::kVERBOSE, "chatter");
    for (int i = 0; i < state().repeats; ++i)
      state().logger->log(ILogger::Severity::kERROR, ("the fake was told to fail in " + call).c_str());
  }
  return true;
}

cudaError_t cuda(const char* call) { return fails(call, false) ? cudaErrorLaunchFailure : cudaSuccess; }

std::size_t size(const Tensor& tensor) {
  return static_cast<std::size_t>(std::accumulate(tensor.shape.begin(), tensor.shape.end(), std::int64_t{1}, std::multiplies<>()));
}

const Tensor& find(const char* name) {
  const auto& tensors = state().tensors;
  return *std::find_if(tensors.begin(), tensors.end(), [&](const Tensor& tensor) { return tensor.name == name; });
}

struct Alive {
  Alive() { ++state().alive; }
  ~Alive() { --state().alive; }
};

struct Context : IExecutionContext, Alive {
  bool setTensorAddress(const char* name, void* data) noexcept override {
    if (fails("setTensorAddress")) return false;
    state().addresses[name] = data;
    return true;
  }
  bool enqueueV3(cudaStream_t stream) noexcept override {
    if (fails("enqueueV3")) return false;
    state().stream = stream;
    for (const Tensor& out : state().tensors)
      if (!out.is_input) write(out);
    return true;
  }
  static void write(const Tensor& out) {
    auto* values = static_cast<float*>(state().addresses.at(out.name));
    for (std::size_t i = 0; i < size(out); ++i) {
      values[i] = 0;
      for (const Tensor& in : state().tensors)
        if (in.is_input) values[i] += static_cast<const float*>(state().addresses.at(in.name))[i % size(in)];
    }
  }
};

struct EngineOfFake : ICudaEngine, Alive {
  std::int32_t getNbIOTensors() const noexcept override { return static_cast<std::int32_t>(state().tensors.size()); }
  const char* getIOTensorName(std::int32_t i) const noexcept override { return state().tensors[static_cast<std::size_t>(i)].name.c_str(); }
  Dims getTensorShape(const char* name) const noexcept override {
    Dims dims{};
    for (std::int64_t extent : find(name).shape) dims.d[dims.nbDims++] = extent;
    return dims;
  }
  DataType getTensorDataType(const char* name) const noexcept override { return find(name).type; }
  TensorFormat getTensorFormat(const char* name) const noexcept override { return find(name).format; }
  TensorIOMode getTensorIOMode(const char* name) const noexcept override {
    return find(name).is_input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
  }
  IExecutionContext* createExecutionContext() noexcept override { return fails("createExecutionContext") ? nullptr : new Context; }
};

struct Runtime : IRuntime, Alive {
  void setDLACore(std::int32_t core) noexcept override { state().dla = core; }
  ICudaEngine* deserializeCudaEngine(const void* blob, std::size_t size) noexcept override {
    if (fails("deserializeCudaEngine")) return nullptr;
    state().blob.assign(static_cast<const char*>(blob), size);
    return new EngineOfFake;
  }
};

}  // namespace
}  // namespace fake

using fake::cuda;
using fake::state;

extern "C" {

void* createInferRuntime_INTERNAL(void* logger, std::int32_t version) {
  state().logger = static_cast<ILogger*>(logger);
  if (fake::fails("createInferRuntime") || version != NV_TENSORRT_VERSION) return nullptr;
  return static_cast<IRuntime*>(new fake::Runtime);
}
std::int32_t getInferLibMajorVersion() { return 10; }
std::int32_t getInferLibMinorVersion() { return 3; }
std::int32_t getInferLibPatchVersion() { return 0; }

const char* cudaGetErrorString(cudaError_t error) { return error == cudaErrorLaunchFailure ? "unspecified launch failure" : "no driver"; }

cudaError_t cudaGetDeviceCount(int* count) {
  if (fake::fails("cudaGetDeviceCount", false)) return cudaErrorInsufficientDriver;
  *count = state().devices;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cuda("cudaGetDevice");
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 12060;
  return cuda("cudaDriverGetVersion");
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  std::strcpy(properties->name, "Orin");
  properties->major = 8, properties->minor = 7;
  return cuda("cudaGetDeviceProperties");
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  *attributes = {};
  const auto* p = static_cast<const char*>(pointer);
  for (const auto& [begin, size] : fake::allocations())
    if (p >= begin && p < begin + size) attributes->type = cudaMemoryTypeDevice, attributes->devicePointer = const_cast<void*>(pointer);
  return cuda("cudaPointerGetAttributes");
}

cudaError_t cudaMalloc(void** memory, std::size_t size) {
  if (fake::fails("cudaMalloc", false)) return cudaErrorLaunchFailure;
  *memory = std::aligned_alloc(256, (size + 255) / 256 * 256);
  fake::allocations()[static_cast<char*>(*memory)] = size;
  ++state().alive;
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  state().alive -= static_cast<int>(fake::allocations().erase(static_cast<char*>(memory)));
  std::free(memory);
  return cuda("cudaFree");
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  if (fake::fails("cudaStreamCreateWithFlags", false)) return cudaErrorLaunchFailure;
  *stream = reinterpret_cast<cudaStream_t>(new char);
  ++state().alive;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete reinterpret_cast<char*>(stream);
  --state().alive;
  return cuda("cudaStreamDestroy");
}

cudaError_t cudaStreamSynchronize(cudaStream_t) { return cuda("cudaStreamSynchronize"); }

}  // extern "C"
