// Engine: runs one ONNX part on preallocated, bound buffers.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace imkd {

enum class Type { float32, float16, int8 };
constexpr std::size_t size_of(Type type) { return type == Type::float32 ? 4 : type == Type::float16 ? 2 : 1; }  // bytes
const char* name_of(Type type);  // of NumPy: "float32"

struct TensorInfo {
  std::string name;
  std::vector<std::int64_t> shape;  // dense, row-major
  Type type = Type::float32;
};

class Engine {
 public:
  virtual ~Engine() = default;
  virtual std::string name() const = 0;  // "onnxruntime", "tensorrt", ...
  // Loads an ONNX file, "tensorrt" also NAME.engine; may take minutes. Throws Error 50x.
  virtual void load(const std::string& onnx_path) = 0;
  // As load, with the content of the ONNX file, which was read and checked before; the path stands in messages, and
  // leads "tensorrt" to its engine. An engine without a method of its own reads the file again.
  virtual void load_content(const std::string& onnx_path, const std::string& /*onnx*/) { load(onnx_path); }
  virtual std::vector<TensorInfo> inputs() const = 0;
  virtual std::vector<TensorInfo> outputs() const = 0;
  // Binds memory of the tensor's type, shared with the engine. Every input is bound before the first run; an output
  // that is not bound need not be computed. For "tensorrt" the device can access the memory (cudaMalloc, cudaHostAlloc,
  // cudaMallocManaged), and its address is a multiple of 256 bytes. Throws Error engine_bind.
  virtual void bind(const std::string& tensor, std::shared_ptr<void> data) = 0;
  // True where run(stream) only enqueues work on the GPU.
  virtual bool on_device() const { return false; }
  // Why a CUDA graph cannot capture run(stream); empty: it can capture and replay it.
  virtual std::string why_not_captured() const { return ""; }
  // Called by the frame loop on the GPU where on_device(), before the first bind: memory bound from then on is the
  // device's, and every run has this stream.
  virtual void use_stream(void* /* cudaStream_t */) {}
  // Reads the bound inputs and writes the bound outputs; throws Error engine_run.
  //   stream: a cudaStream_t in which the work is enqueued; without one, and for engines on the CPU, run returns when
  //   the outputs are written
  virtual void run(void* stream = nullptr) = 0;

  // The frame loop whose memory is bound; it runs no engine that another one has bound since.
  const void* user() const { return user_; }
  void set_user(const void* user) { user_ = user; }

 private:
  const void* user_ = nullptr;
};

std::vector<std::string> native_engines();  // names of the engines in this build
// threads: 0: one per core; at most ThreadPool::kMaxThreads. Throws Error engine_unavailable, device_unavailable.
std::unique_ptr<Engine> make_engine(const std::string& name, int threads);

}  // namespace imkd
