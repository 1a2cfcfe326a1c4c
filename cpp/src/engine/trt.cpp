#include "trt.hpp"

#ifdef IMKD_WITH_TRT
#include <NvInfer.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>

#include "cuda_runtime/resources.hpp"
#include "engine_file.hpp"
#include "imkd/error.hpp"
#include "shared_library.hpp"

namespace imkd {
namespace {

void check(cudaError_t status, Code code, const char* call, const std::string& where) {
  cuda::require(status, code, call, where, "run imkd-edge doctor, which names what is missing");
}

// Collects TensorRT's messages for the text of the next error. TensorRT requires one logger per process: with engines
// on several threads a message may end up in another engine's error.
class Logger : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override {
    if (severity > Severity::kWARNING) return;
    try {
      const std::lock_guard<std::mutex> lock(mutex_);
      messages_.emplace_back(message ? message : "");
      if (messages_.size() > kMostMessages) messages_.pop_front();
    } catch (...) {  // out of memory: the message is discarded
    }
  }

  void clear() {  // before a call whose messages are collected
    const std::lock_guard<std::mutex> lock(mutex_);
    messages_.clear();
  }

  std::string take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::string text;
    for (const std::string& message : messages_) text += (text.empty() ? "" : "; ") + message;
    messages_.clear();
    return text.empty() ? "no message" : text;
  }

 private:
  static constexpr std::size_t kMostMessages = 16;
  std::mutex mutex_;
  std::deque<std::string> messages_;
};

Logger& logger() {
  static auto* logger = new Logger;  // never deleted: TensorRT may log until the process ends
  return *logger;
}

struct Library {  // C functions of libnvinfer; it stays open until the process ends
  void* (*create_runtime)(void* logger, std::int32_t version) = nullptr;
  std::string version;  // "10.3.0"
};

template <class Function>
Function symbol(void* library, const char* name) {
  void* address = dlsym(library, name);
  if (!address)
    throw Error(Code::engine_unavailable, std::string("TensorRT's library has no ") + name, "",
                "install TensorRT 10.3 or newer");
  return reinterpret_cast<Function>(address);
}

Library load_library() {
  void* opened = open_library(
      "TensorRT", {environment_variable("IMKD_TRT_LIBRARY"), "libnvinfer.so." + std::to_string(NV_TENSORRT_MAJOR)},
      "install TensorRT, or name its libnvinfer.so in the environment variable IMKD_TRT_LIBRARY");
  Library library;
  library.create_runtime = symbol<void* (*)(void*, std::int32_t)>(opened, "createInferRuntime_INTERNAL");
  for (const char* part : {"getInferLibMajorVersion", "getInferLibMinorVersion", "getInferLibPatchVersion"})
    library.version +=
        (library.version.empty() ? "" : ".") + std::to_string(symbol<std::int32_t (*)()>(opened, part)());
  if (std::atoi(library.version.c_str()) != NV_TENSORRT_MAJOR)  // its classes are laid out in another way
    throw Error(
        Code::engine_unavailable,
        "the core was built for TensorRT " + std::to_string(NV_TENSORRT_MAJOR) + ", the library is " + library.version,
        "libnvinfer",
        "build the core again on this machine (pip install --force-reinstall), or install "
        "TensorRT " +
            std::to_string(NV_TENSORRT_MAJOR));
  return library;
}

const Library& library() {
  static const Library library = load_library();  // retried after an exception
  return library;
}

Machine this_machine() {
  int device = 0, cuda = 0;
  cudaDeviceProp properties{};
  check(cudaGetDevice(&device), Code::device_unavailable, "cudaGetDevice", "");
  check(cudaDriverGetVersion(&cuda), Code::device_unavailable, "cudaDriverGetVersion", "");
  check(cudaGetDeviceProperties(&properties, device), Code::device_unavailable, "cudaGetDeviceProperties", "");
  return {library().version, std::to_string(cuda / 1000) + "." + std::to_string(cuda % 1000 / 10), driver_version(),
          properties.name, std::to_string(properties.major) + std::to_string(properties.minor)};
}

struct Port {  // one input or output of the engine
  TensorInfo info;
  bool is_input = false;
  bool is_supported = false;   // dense and of a type of Type
  std::shared_ptr<void> data;  // null until bound; run allocates memory for an unbound output
};

std::optional<Type> type_of(nvinfer1::DataType type) {
  switch (type) {
    case nvinfer1::DataType::kFLOAT:
      return Type::float32;
    case nvinfer1::DataType::kHALF:
      return Type::float16;
    case nvinfer1::DataType::kINT8:
      return Type::int8;
    default:
      return std::nullopt;
  }
}

std::size_t bytes(const TensorInfo& info) {
  std::size_t values = size_of(info.type);
  for (std::int64_t extent : info.shape) values *= static_cast<std::size_t>(extent);
  return values;
}

class TrtEngine : public Engine {
 public:
  TrtEngine() {
    cuda::require_device();
    library();
  }
  ~TrtEngine() override {
    unload();
    context_.release();  // what a forked child has left, as CUDA does not survive a fork
    engine_.release();
    runtime_.release();
  }
  std::string name() const override { return "tensorrt"; }
  bool on_device() const override { return true; }

  void load(const std::string& path) override { open(path, std::nullopt); }
  void load_content(const std::string& onnx_path, const std::string& onnx) override { open(onnx_path, onnx); }

  std::vector<TensorInfo> inputs() const override { return infos(true); }
  std::vector<TensorInfo> outputs() const override { return infos(false); }

  void bind(const std::string& tensor, std::shared_ptr<void> data) override {
    origin_.process().require("the engine");
    const cuda::DeviceScope scope(origin_.device());
    Port& port = find(tensor);
    set_address(port, device_address(tensor, data.get()));
    port.data = std::move(data);
  }

  void run(void* stream) override {
    origin_.process().require("the engine");
    const cuda::DeviceScope scope(origin_.device());
    if (!context_) throw Error(Code::engine_run, "no engine is loaded", "", "call load first");
    for (Port& port : ports_) {
      if (port.data) continue;
      if (port.is_input)
        throw Error(Code::engine_run, "input \"" + port.info.name + "\" is not bound", path_, "bind every input first");
      bind_scratch(port);
    }
    const auto target = stream ? static_cast<cudaStream_t>(stream) : own_stream();
    logger().clear();
    if (!context_->enqueueV3(target)) throw failure(Code::engine_run, "enqueueV3");
    if (!stream) check(cudaStreamSynchronize(target), Code::engine_run, "cudaStreamSynchronize", path_);
  }

 private:
  void open(const std::string& path, const std::optional<std::string>& onnx) {
    origin_.process().require("the engine");
    unload();
    cuda::require_device();
    origin_ = {};
    const EngineFile file = read_engine_file(path, this_machine(), onnx);
    path_ = file.path;
    try {
      deserialize(file);
      for (std::int32_t i = 0; i < engine_->getNbIOTensors(); ++i) add_port(engine_->getIOTensorName(i));
    } catch (...) {
      unload();
      throw;
    }
  }

  Error failure(Code code, const char* call) const {
    return Error(code, std::string("TensorRT: ") + call + " failed: " + logger().take(), path_,
                 "run imkd-edge build-engine again, on this machine");
  }

  void deserialize(const EngineFile& file) {
    logger().clear();
    nvinfer1::ILogger* log = &logger();  // exactly this type, as the C function takes a void*
    runtime_.reset(static_cast<nvinfer1::IRuntime*>(library().create_runtime(log, NV_TENSORRT_VERSION)));
    if (!runtime_) throw failure(Code::engine_load, "createInferRuntime");
    if (file.dla >= 0) runtime_->setDLACore(file.dla);
    engine_.reset(runtime_->deserializeCudaEngine(file.bytes.data(), file.bytes.size()));
    if (!engine_) throw failure(Code::engine_load, "deserializeCudaEngine");
    context_.reset(engine_->createExecutionContext());
    if (!context_) throw failure(Code::engine_load, "createExecutionContext");
  }

  void add_port(const char* name) {
    Port port;
    port.info.name = name;
    const nvinfer1::Dims shape = engine_->getTensorShape(name);
    for (std::int32_t i = 0; i < shape.nbDims; ++i) {
      if (shape.d[i] <= 0)
        throw Error(Code::engine_load, "tensor \"" + port.info.name + "\" has a dynamic extent", path_,
                    "export the model with static shapes");
      port.info.shape.push_back(shape.d[i]);
    }
    port.is_input = engine_->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
    const std::optional<Type> type = type_of(engine_->getTensorDataType(name));
    port.is_supported = type && engine_->getTensorFormat(name) == nvinfer1::TensorFormat::kLINEAR;
    port.info.type = type.value_or(Type::float32);
    ports_.push_back(std::move(port));
  }

  std::vector<TensorInfo> infos(bool is_input) const {
    std::vector<TensorInfo> infos;
    for (const Port& port : ports_) {
      if (port.is_input != is_input) continue;
      require_supported(port);
      infos.push_back(port.info);
    }
    return infos;
  }

  void require_supported(const Port& port) const {
    if (port.is_supported) return;
    throw Error(Code::bundle_tensor_mismatch, "tensor \"" + port.info.name + "\" is not dense float32, float16 or int8",
                path_, "build the engine with imkd-edge build-engine");
  }

  Port& find(const std::string& tensor) {
    for (Port& port : ports_) {
      if (port.info.name != tensor) continue;
      require_supported(port);
      return port;
    }
    throw Error(Code::engine_bind, "the engine has no tensor \"" + tensor + "\"", path_,
                "use a name of inputs() or outputs()");
  }

  // The device's address of bound memory. Pageable host memory is refused: a kernel that reads it ends CUDA in this
  // process.
  void* device_address(const std::string& tensor, void* data) const {
    cudaPointerAttributes attributes{};
    if (data) check(cudaPointerGetAttributes(&attributes, data), Code::engine_bind, "cudaPointerGetAttributes", path_);
    if (!data || attributes.type == cudaMemoryTypeUnregistered || !attributes.devicePointer)
      throw Error(Code::engine_bind, "the device cannot access the memory for \"" + tensor + "\"", path_,
                  "allocate it by cudaMalloc, cudaHostAlloc or cudaMallocManaged");
    if (reinterpret_cast<std::uintptr_t>(attributes.devicePointer) % 256 != 0)
      throw Error(Code::engine_bind, "the address for \"" + tensor + "\" is not a multiple of 256 bytes", path_,
                  "bind the start of an allocation");
    return attributes.devicePointer;
  }

  void set_address(const Port& port, void* address) {
    logger().clear();
    if (!context_->setTensorAddress(port.info.name.c_str(), address))
      throw failure(Code::engine_bind, "setTensorAddress");
  }

  // TensorRT writes every output, so an unbound one needs memory too.
  void bind_scratch(Port& port) {
    require_supported(port);
    void* memory = nullptr;
    check(cudaMalloc(&memory, bytes(port.info)), Code::engine_run, "cudaMalloc", path_);
    std::shared_ptr<void> scratch = cuda::own_memory<unsigned char>(memory);
    set_address(port, memory);
    port.data = std::move(scratch);
  }

  cudaStream_t own_stream() {
    if (!stream_) {
      cudaStream_t stream = nullptr;
      check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), Code::engine_run, "cudaStreamCreateWithFlags",
            path_);
      stream_ = cuda::OwnStream(stream);
    }
    return stream_.get();
  }

  void unload() {  // dependents first; memory last, as the context may have its address
    origin_.release([this] {
      context_.reset();
      engine_.reset();
      runtime_.reset();
      ports_.clear();
    });
    path_.clear();
  }

  cuda::Origin origin_;  // the device of the last load
  std::string path_;
  std::vector<Port> ports_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  cuda::OwnStream stream_;
};

}  // namespace

std::unique_ptr<Engine> make_trt_engine() { return std::make_unique<TrtEngine>(); }

}  // namespace imkd
#endif  // IMKD_WITH_TRT
