// Engine: runs one ONNX part with preallocated, bound buffers.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace imkd {

enum class Type { float32, float16, int8 };
constexpr std::size_t size_of(Type type) { return type == Type::float32 ? 4 : type == Type::float16 ? 2 : 1; }  // bytes
const char* name_of(Type type);  // NumPy's

struct TensorInfo {
  std::string name;
  std::vector<std::int64_t> shape;  // dense, row-major
  Type type = Type::float32;
};

class Engine {
 public:
  virtual ~Engine() = default;
  virtual std::string name() const = 0;  // "onnxruntime", "tensorrt", ...
  virtual void load(
      const std::string& onnx_path) = 0;  // may take minutes; throws Error 50x; "tensorrt" takes NAME.engine too
  virtual std::vector<TensorInfo> inputs() const = 0;
  virtual std::vector<TensorInfo> outputs() const = 0;
  // Every input is bound once before the first run; an output that is not bound is not wanted, and run neither hands it
  // out nor need compute it. The memory, of the tensor's type, is shared: it lives as long as any engine that may touch
  // it. For "tensorrt" the device must reach it (cudaMalloc, cudaHostAlloc, cudaMallocManaged), at a multiple of 256
  // bytes.
  virtual void bind(const std::string& tensor, std::shared_ptr<void> data) = 0;  // throws Error engine_bind
  // True where run(stream) only puts work into the stream, and so may be recorded and replayed by a CUDA graph.
  virtual bool on_device() const { return false; }
  // Reads and writes the bound memory; throws Error engine_run.
  //   stream: a cudaStream_t into which the work is only put; without one, and for engines on the CPU, the outputs are
  //   there on return
  virtual void run(void* stream = nullptr) = 0;
};

std::vector<std::string> native_engines();  // what this build of the core has
std::unique_ptr<Engine> make_engine(const std::string& name,
                                    int threads);  // 0: one per core; throws Error engine_unavailable

}  // namespace imkd
