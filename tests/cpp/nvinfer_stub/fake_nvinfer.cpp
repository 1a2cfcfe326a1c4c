#include "fake_nvinfer.hpp"

#include <cuda_host.hpp>

#include <algorithm>
#include <numeric>

using namespace nvinfer1;

namespace fake {

State& state() {
  static State state;
  return state;
}

namespace {

// Records the call. True if it shall fail; the failure is then logged.
bool fails(const std::string& call) {
  cuda().calls.push_back(call);
  if (cuda().fails != call) return false;
  if (!state().logger) return true;
  state().logger->log(ILogger::Severity::kVERBOSE, "chatter");
  for (int i = 0; i < state().repeats; ++i)
    state().logger->log(ILogger::Severity::kERROR, ("the fake fails in " + call).c_str());
  return true;
}

std::size_t size(const Tensor& tensor) {
  return static_cast<std::size_t>(
      std::accumulate(tensor.shape.begin(), tensor.shape.end(), std::int64_t{1}, std::multiplies<>()));
}

const Tensor& find(const char* name) {
  const auto& tensors = state().tensors;
  return *std::find_if(tensors.begin(), tensors.end(), [&](const Tensor& tensor) { return tensor.name == name; });
}

struct CountsAlive {
  CountsAlive() { ++cuda().alive; }
  ~CountsAlive() { --cuda().alive; }
};

struct Context : IExecutionContext, CountsAlive {
  bool setTensorAddress(const char* name, void* data) noexcept override {
    if (fails("setTensorAddress")) return false;
    state().addresses[name] = data;
    return true;
  }
  bool enqueueV3(cudaStream_t stream) noexcept override {
    if (fails("enqueueV3")) return false;
    state().stream = stream;
    put(stream, [] {
      for (const Tensor& out : state().tensors)
        if (!out.is_input) write(out);
    });
    return true;
  }
  static void write(const Tensor& out) {
    for (std::size_t i = 0; i < size(out); ++i) {
      float sum = 0;
      for (const Tensor& in : state().tensors)
        if (in.is_input) sum += read(in, i % size(in));
      if (out.type == DataType::kHALF)
        static_cast<__half*>(state().addresses.at(out.name))[i] = __float2half_rn(sum);
      else
        static_cast<float*>(state().addresses.at(out.name))[i] = sum;
    }
  }
  static float read(const Tensor& in, std::size_t i) {
    const void* values = state().addresses.at(in.name);
    return in.type == DataType::kHALF ? __half2float(static_cast<const __half*>(values)[i])
                                      : static_cast<const float*>(values)[i];
  }
};

struct FakeEngine : ICudaEngine, CountsAlive {
  std::int32_t getNbIOTensors() const noexcept override { return static_cast<std::int32_t>(state().tensors.size()); }
  const char* getIOTensorName(std::int32_t i) const noexcept override {
    return state().tensors[static_cast<std::size_t>(i)].name.c_str();
  }
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
  IExecutionContext* createExecutionContext() noexcept override {
    return fails("createExecutionContext") ? nullptr : new Context;
  }
};

struct Runtime : IRuntime, CountsAlive {
  void setDLACore(std::int32_t core) noexcept override { state().dla = core; }
  ICudaEngine* deserializeCudaEngine(const void* blob, std::size_t size) noexcept override {
    if (fails("deserializeCudaEngine")) return nullptr;
    state().blob.assign(static_cast<const char*>(blob), size);
    return new FakeEngine;
  }
};

}  // namespace
}  // namespace fake

using fake::state;

extern "C" {

void* createInferRuntime_INTERNAL(void* logger, std::int32_t version) {
  state().logger = static_cast<ILogger*>(logger);
  if (fake::fails("createInferRuntime") || version != NV_TENSORRT_VERSION) return nullptr;
  return static_cast<IRuntime*>(new fake::Runtime);
}
std::int32_t getInferLibMajorVersion() { return state().major; }
std::int32_t getInferLibMinorVersion() { return 3; }
std::int32_t getInferLibPatchVersion() { return 0; }

}  // extern "C"
