#include "imkd/engine.hpp"

#include <thread>

#include "imkd/error.hpp"
#include "imkd/thread_pool.hpp"
#ifdef IMKD_WITH_ORT
#include "ort.hpp"
#endif
#ifdef IMKD_WITH_TRT
#include "trt.hpp"
#endif

namespace imkd {

const char* name_of(Type type) {
  return type == Type::float32 ? "float32" : type == Type::float16 ? "float16" : "int8";
}

std::vector<std::string> native_engines() {
  std::vector<std::string> names;
#ifdef IMKD_WITH_ORT
  names.push_back("onnxruntime");
#endif
#ifdef IMKD_WITH_TRT
  names.push_back("tensorrt");
#endif
  return names;
}

std::unique_ptr<Engine> make_engine(const std::string& name, int threads) {
  ThreadPool::check(threads, "make_engine, threads");
  if (threads == 0) threads = static_cast<int>(std::thread::hardware_concurrency());
  if (threads <= 0) threads = 1;
#ifdef IMKD_WITH_ORT
  if (name == "onnxruntime") return make_ort_engine(threads);
#endif
#ifdef IMKD_WITH_TRT
  if (name == "tensorrt") return make_trt_engine();
#endif
  std::string known;
  for (const std::string& engine : native_engines()) known += (known.empty() ? "" : ", ") + engine;
  throw Error(Code::engine_unavailable, "this build of the core has no native engine \"" + name + "\"",
              known.empty() ? "it has none" : "it has " + known,
              "build the core where CMake finds the headers of ONNX Runtime (ONNXRUNTIME_ROOT) or TensorRT "
              "(TENSORRT_ROOT), or use an engine of the Python package");
}

}  // namespace imkd
