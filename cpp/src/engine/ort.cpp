#include "ort.hpp"

#ifdef IMKD_WITH_ORT
#include <mutex>

#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>
#include <onnxruntime_session_options_config_keys.h>

#include "own_process.hpp"
#include "shared_library.hpp"

namespace imkd {
namespace {

std::mutex library_mutex;
std::string library_path;  // of set_ort_library

// Library and environment stay until the process ends, as sessions may be destroyed in any order.
Ort::Env& environment() {
  const std::lock_guard<std::mutex> lock(library_mutex);
  static Ort::Env* env = nullptr;
  if (env) return *env;
  void* library =
      open_library("ONNX Runtime",
                   {library_path, environment_variable("IMKD_ORT_LIBRARY"), "libonnxruntime.so.1", "libonnxruntime.so"},
                   "install ONNX Runtime, or name its libonnxruntime.so in the environment variable IMKD_ORT_LIBRARY");
  const auto get_base = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
  const OrtApi* api = get_base ? get_base()->GetApi(ORT_API_VERSION) : nullptr;
  if (!api)
    throw Error(Code::engine_unavailable,
                "ONNX Runtime's library does not have API version " + std::to_string(ORT_API_VERSION),
                get_base ? std::string("version ") + get_base()->GetVersionString() : "",
                "install ONNX Runtime 1." + std::to_string(ORT_API_VERSION) + " or newer");
  Ort::InitApi(api);
  env = new Ort::Env(ORT_LOGGING_LEVEL_FATAL, "imkd");  // errors are exceptions, nothing is printed
  return *env;
}

struct Port {  // one input or output of the graph
  TensorInfo info;
  bool is_input = false, is_float = false;
  std::shared_ptr<void> data;  // null until bound
};

class OrtEngine : public Engine {
 public:
  explicit OrtEngine(int threads) : environment_(environment()), threads_(threads) {}
  ~OrtEngine() override {
    if (process_.here()) return;  // a session's destructor waits for threads that a forked child lacks
    binding_.release();
    session_.release();
  }
  std::string name() const override { return "onnxruntime"; }

  void load(const std::string& onnx_path) override {
    open(onnx_path,
         [&](const Ort::SessionOptions& options) { return Ort::Session(environment_, onnx_path.c_str(), options); });
  }

  void load_content(const std::string& onnx_path, const std::string& onnx) override {
    open(onnx_path, [&](const Ort::SessionOptions& options) {
      return Ort::Session(environment_, onnx.data(), onnx.size(), options);
    });
  }

  std::vector<TensorInfo> inputs() const override { return infos(true); }
  std::vector<TensorInfo> outputs() const override { return infos(false); }

  void bind(const std::string& tensor, std::shared_ptr<void> data) override {
    process_.require("the engine");
    Port& port = find(tensor);
    std::size_t count = 1;
    for (std::int64_t extent : port.info.shape) {
      if (extent <= 0)
        throw Error(Code::engine_bind, "tensor \"" + tensor + "\" has a dynamic extent", path_,
                    "export the model with static shapes");
      count *= static_cast<std::size_t>(extent);
    }
    guard(Code::engine_bind, "", [&] {
      const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
      const Ort::Value value = Ort::Value::CreateTensor<float>(memory, static_cast<float*>(data.get()), count,
                                                               port.info.shape.data(), port.info.shape.size());
      port.is_input ? binding_.BindInput(tensor.c_str(), value) : binding_.BindOutput(tensor.c_str(), value);
    });
    port.data = std::move(data);
  }

  void run(void*) override {
    process_.require("the engine");
    for (const Port& port : ports_)
      if (port.is_input && !port.data)
        throw Error(Code::engine_run, "input \"" + port.info.name + "\" is not bound", path_, "bind every input first");
    if (ports_.empty()) throw Error(Code::engine_run, "no model is loaded", "", "call load first");
    guard(Code::engine_run, "", [&] { session_.Run(run_options_, binding_); });
  }

 private:
  template <class MakeSession>
  void open(const std::string& onnx_path, MakeSession&& make_session) {
    process_.require("the engine");
    path_ = onnx_path;
    guard(Code::engine_load,
          "export the model again, or check the file and the limits of this process (ulimit -u, ulimit -v)", [&] {
            Ort::SessionOptions options;
            options.SetIntraOpNumThreads(threads_);
            options.SetInterOpNumThreads(1);
            options.SetExecutionMode(ORT_SEQUENTIAL);
            options.SetGraphOptimizationLevel(ORT_ENABLE_ALL);
            // Idle workers must not occupy the cores that the ops use.
            options.AddConfigEntry(kOrtSessionOptionsConfigAllowIntraOpSpinning, "0");
            // Q/DQ pairs are computed in float: integer kernels saturate on some CPUs.
            options.AddConfigEntry(kOrtSessionOptionsDisableQuantQDQ, "1");

            ports_.clear();
            binding_ = Ort::IoBinding{nullptr};  // it must not outlive its session
            session_ = make_session(options);
            binding_ = Ort::IoBinding(session_);
            Ort::AllocatorWithDefaultOptions allocator;
            for (std::size_t i = 0; i < session_.GetInputCount(); ++i)
              add_port(session_.GetInputNameAllocated(i, allocator).get(), session_.GetInputTypeInfo(i), true);
            for (std::size_t i = 0; i < session_.GetOutputCount(); ++i)
              add_port(session_.GetOutputNameAllocated(i, allocator).get(), session_.GetOutputTypeInfo(i), false);
          });
  }

  template <class Call>
  void guard(Code code, const char* fix, Call&& call) const {
    try {
      call();
    } catch (const Ort::Exception& error) {
      std::string text = error.what();
      text.erase(text.find_last_not_of(" \n") + 1);
      throw Error(code, "ONNX Runtime: " + text, path_, fix);
    }
  }

  void add_port(const char* name, const Ort::TypeInfo& type, bool is_input) {
    Port port{{name, {}}, is_input, false, nullptr};
    if (type.GetONNXType() == ONNX_TYPE_TENSOR) {
      const auto tensor = type.GetTensorTypeAndShapeInfo();
      port.info.shape = tensor.GetShape();
      port.is_float = tensor.GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    }
    ports_.push_back(std::move(port));
  }

  std::vector<TensorInfo> infos(bool is_input) const {
    std::vector<TensorInfo> infos;
    for (const Port& port : ports_) {
      if (port.is_input != is_input) continue;
      if (!port.is_float)
        throw Error(Code::bundle_tensor_mismatch, "tensor \"" + port.info.name + "\" is not float32", path_,
                    "export the model with float32 inputs and outputs");
      infos.push_back(port.info);
    }
    return infos;
  }

  Port& find(const std::string& tensor) {
    for (Port& port : ports_)
      if (port.info.name == tensor) return port;
    throw Error(Code::engine_bind, "the model has no tensor \"" + tensor + "\"", path_,
                "use a name of inputs() or outputs()");
  }

  OwnProcess process_;
  Ort::Env& environment_;
  int threads_;
  std::string path_;
  Ort::Session session_{nullptr};
  Ort::IoBinding binding_{nullptr};
  Ort::RunOptions run_options_;
  std::vector<Port> ports_;
};

}  // namespace

void set_ort_library(const std::string& path) {
  const std::lock_guard<std::mutex> lock(library_mutex);
  library_path = path;
}

std::unique_ptr<Engine> make_ort_engine(int threads) { return std::make_unique<OrtEngine>(threads); }

}  // namespace imkd

#else
void imkd::set_ort_library(const std::string&) {}
#endif  // IMKD_WITH_ORT
