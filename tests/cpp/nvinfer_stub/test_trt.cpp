// The TensorRT engine on a fake TensorRT and a fake CUDA runtime: the calls that it makes, and the errors that their
// failures become.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "engine/engine_file.hpp"
#include "engine/trt.hpp"
#include "fake_nvinfer.hpp"
#include "imkd/error.hpp"
#include "sha256.hpp"

using namespace imkd;
using fake::cuda;
using fake::state;
namespace fs = std::filesystem;

namespace {

template <class Call>
Error error_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  return Error(Code::spec_syntax, "nothing was thrown");
}

template <class Call>
Code code_of(Call&& call) {
  return error_of(call).code();
}

std::shared_ptr<float> device_memory(std::size_t values, float value = 0) {
  void* memory = nullptr;
  EXPECT_EQ(cudaMalloc(&memory, values * sizeof(float)), cudaSuccess);
  std::fill_n(static_cast<float*>(memory), values, value);
  return {static_cast<float*>(memory), [](float* p) { cudaFree(p); }};
}

class Trt : public testing::Test {
 protected:
  void SetUp() override {
    setenv("IMKD_TRT_LIBRARY", FAKE_NVINFER, 1);  // never the real one, whose binary layout differs
    state() = {};
    cuda() = {};
    folder_ = fs::temp_directory_path() / ("imkd_trt_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
    write("null");
  }
  void TearDown() override {
    fs::remove_all(folder_);
    EXPECT_EQ(cuda().alive, 0) << "an object outlives its engine";
  }

  void write(const std::string& dla, const std::string& gpu = "Orin") {
    const std::string bytes = "engine bytes";
    Sha256 hash;
    hash.update(bytes.data(), bytes.size());
    std::ofstream(path()) << bytes;
    std::ofstream(path() + ".json")
        << R"({"key": {"onnx_sha256": "0", "tensorrt": "tensorrt 10.3.0", "cuda": "12.6", "driver": ")"
        << driver_version() << R"(", "gpu": ")" << gpu << R"(", "sm": "87", "flags": {"dla": )" << dla
        << R"(, "io": "auto", "precision": "float16", "workspace_mb": null}}, "engine": {"sha256": ")" << hash.hex()
        << R"(", "bytes": 12}})";
  }
  std::string path() const { return (folder_ / "camera.engine").string(); }

  static void bind_inputs(Engine& engine) {
    engine.bind("x", device_memory(4, 2));
    engine.bind("scale", device_memory(4, 0.5f));
  }
  std::unique_ptr<Engine> loaded() const {
    auto engine = make_trt_engine();
    engine->load(path());
    return engine;
  }
  // Those that do something: asking for the thread's device is left out.
  static std::vector<std::string> calls() {
    std::vector<std::string> calls = cuda().calls;
    calls.erase(std::remove(calls.begin(), calls.end(), "cudaGetDevice"), calls.end());
    return calls;
  }
  static bool called(const std::string& name) { return std::count(cuda().calls.begin(), cuda().calls.end(), name) > 0; }

  fs::path folder_;
};

// This test comes first: once opened, a library stays open. The next tests open it, hence each call tries again.
TEST_F(Trt, a_missing_library_is_named) {
  if (dlopen("libnvinfer.so.10", RTLD_NOW | RTLD_LOCAL)) GTEST_SKIP() << "this machine has TensorRT";
  setenv("IMKD_TRT_LIBRARY", "/no/such/libnvinfer.so", 1);
  const Error error = error_of([] { make_trt_engine(); });
  EXPECT_EQ(error.code(), Code::engine_unavailable);
  for (const char* name : {"/no/such/libnvinfer.so", "libnvinfer.so.10"})
    EXPECT_NE(error.where().find(name), std::string::npos);
}

// So does this one: the library that is opened is not the one that the tests below use.
TEST_F(Trt, a_library_of_another_major_version_is_refused) {
  fake::state().major = NV_TENSORRT_MAJOR + 1;
  const Error error = error_of([] { make_trt_engine(); });
  EXPECT_EQ(error.code(), Code::engine_unavailable);
  EXPECT_EQ(error.problem(), "the core was built for TensorRT 10, the library is 11.3.0");
  EXPECT_FALSE(called("createInferRuntime"));
  fake::state().major = NV_TENSORRT_MAJOR;
  make_trt_engine();
}

TEST_F(Trt, without_a_device_tensorrt_is_never_called) {
  cuda().devices = 0;
  EXPECT_EQ(code_of([] { make_trt_engine(); }), Code::device_unavailable);
  cuda().devices = 1;
  cuda().fails = "cudaGetDeviceCount";
  const Error error = error_of([] { make_trt_engine(); });
  EXPECT_EQ(error.code(), Code::device_unavailable);
  EXPECT_NE(error.problem().find("no driver"), std::string::npos);
  EXPECT_EQ(calls(), std::vector<std::string>(2, "cudaGetDeviceCount"));
}

TEST_F(Trt, a_driver_that_fails_is_detected_at_load) {
  auto engine = make_trt_engine();
  cuda().fails = "cudaGetDeviceCount";
  EXPECT_EQ(code_of([&] { engine->load(path()); }), Code::device_unavailable);
  EXPECT_FALSE(called("createInferRuntime"));
}

TEST_F(Trt, lists_its_tensors) {
  const auto engine = loaded();
  EXPECT_EQ(engine->name(), "tensorrt");
  ASSERT_EQ(engine->inputs().size(), 2u);
  ASSERT_EQ(engine->outputs().size(), 2u);
  EXPECT_EQ(engine->inputs()[0].name, "x");
  EXPECT_EQ(engine->outputs()[1].name, "debug");
  EXPECT_EQ(engine->outputs()[1].shape, (std::vector<std::int64_t>{2, 2}));
  EXPECT_EQ(state().blob, "engine bytes");
}

TEST_F(Trt, binds_by_name_and_runs_in_a_stream_of_its_own) {
  const auto engine = loaded();
  const auto y = device_memory(4);
  bind_inputs(*engine);
  engine->bind("y", y);
  engine->run();
  for (int i = 0; i < 4; ++i) EXPECT_EQ(y.get()[i], 2.5f);
  EXPECT_EQ(state().addresses["y"], y.get());
  EXPECT_NE(state().stream, nullptr) << "the default stream";
  EXPECT_EQ(cuda().calls.back(), "cudaStreamSynchronize");
}

TEST_F(Trt, only_enqueues_in_the_callers_stream) {
  const auto engine = loaded();
  bind_inputs(*engine);
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  engine->run(stream);
  EXPECT_EQ(state().stream, stream);
  EXPECT_FALSE(called("cudaStreamSynchronize"));
  cudaStreamDestroy(stream);
}

TEST_F(Trt, an_unbound_output_gets_memory_once) {
  const auto engine = loaded();
  bind_inputs(*engine);
  engine->run();
  const auto addresses = state().addresses;
  EXPECT_NE(addresses.at("y"), nullptr);
  EXPECT_NE(addresses.at("y"), addresses.at("debug"));
  cuda().calls.clear();
  engine->run();
  EXPECT_EQ(calls(), (std::vector<std::string>{"enqueueV3", "cudaStreamSynchronize"}))
      << "the second run allocates nothing";
}

TEST_F(Trt, keeps_bound_memory_alive) {
  auto engine = loaded();
  auto y = device_memory(4);
  const std::weak_ptr<float> weak = y;
  engine->bind("y", std::move(y));
  EXPECT_FALSE(weak.expired());
  engine.reset();
  EXPECT_TRUE(weak.expired());
}

TEST_F(Trt, refuses_what_cannot_be_bound) {
  const auto engine = loaded();
  EXPECT_EQ(code_of([&] { engine->bind("z", device_memory(4)); }), Code::engine_bind);
  EXPECT_EQ(code_of([&] { engine->bind("x", nullptr); }), Code::engine_bind);
  const Error host = error_of([&] { engine->bind("x", std::make_shared<float>(1.0f)); });
  EXPECT_EQ(host.code(), Code::engine_bind);
  EXPECT_NE(host.fix().find("cudaMalloc"), std::string::npos);
  const auto memory = device_memory(8);
  EXPECT_EQ(code_of([&] { engine->bind("x", std::shared_ptr<float>(memory, memory.get() + 1)); }), Code::engine_bind);
  EXPECT_EQ(code_of([&] { make_trt_engine()->bind("x", memory); }), Code::engine_bind);
  EXPECT_FALSE(called("setTensorAddress"));
}

TEST_F(Trt, refuses_to_run_too_early) {
  EXPECT_EQ(code_of([] { make_trt_engine()->run(); }), Code::engine_run);
  const auto engine = loaded();
  engine->bind("x", device_memory(4));
  const Error error = error_of([&] { engine->run(); });
  EXPECT_EQ(error.code(), Code::engine_run);
  EXPECT_NE(error.problem().find("\"scale\" is not bound"), std::string::npos);
  EXPECT_FALSE(called("enqueueV3"));
}

TEST_F(Trt, tensors_are_of_the_engines_types_and_may_be_float16_and_int8) {
  using nvinfer1::DataType;
  state().tensors[0].type = DataType::kHALF;
  state().tensors[1].type = DataType::kINT8;
  state().tensors[2].type = DataType::kHALF;
  const auto engine = loaded();
  EXPECT_EQ(engine->inputs()[0].type, Type::float16);
  EXPECT_EQ(engine->inputs()[1].type, Type::int8);
  EXPECT_EQ(engine->outputs()[0].type, Type::float16);
  EXPECT_EQ(engine->outputs()[1].type, Type::float32);
}

TEST_F(Trt, float16_tensors_are_read_and_written_and_memory_for_them_is_half) {
  for (fake::Tensor& tensor : state().tensors) tensor.type = nvinfer1::DataType::kHALF;
  const auto engine = loaded();
  std::shared_ptr<void> memory[3];
  for (auto& m : memory) {
    void* at = nullptr;
    ASSERT_EQ(cudaMalloc(&at, 4 * sizeof(std::uint16_t)), cudaSuccess);
    m = {at, [](void* p) { cudaFree(p); }};
  }
  const std::uint16_t x[4] = {0x3c00, 0xc000, 0x0001, 0x7bff};  // 1, -2, 2^-24, 65504
  const std::uint16_t scale[4] = {0x3800, 0x3c00, 0, 0};        // 0.5, 1, 0, 0
  std::copy_n(x, 4, static_cast<std::uint16_t*>(memory[0].get()));
  std::copy_n(scale, 4, static_cast<std::uint16_t*>(memory[1].get()));
  engine->bind("x", memory[0]);
  engine->bind("scale", memory[1]);
  engine->bind("y", memory[2]);
  engine->run();
  const std::uint16_t expected[4] = {0x3e00, 0xbc00, 0x0001, 0x7bff};  // 1.5, -1, 2^-24, 65504
  for (int i = 0; i < 4; ++i) EXPECT_EQ(static_cast<std::uint16_t*>(memory[2].get())[i], expected[i]);
}

TEST_F(Trt, refuses_other_types_and_layouts) {
  state().tensors[0].type = nvinfer1::DataType::kINT32;
  EXPECT_EQ(code_of([&] { loaded()->inputs(); }), Code::bundle_tensor_mismatch);
  EXPECT_EQ(code_of([&] { loaded()->bind("x", device_memory(4)); }), Code::bundle_tensor_mismatch);
  state().tensors[0].type = nvinfer1::DataType::kFLOAT;
  state().tensors[3].format = nvinfer1::TensorFormat::kCHW2;
  EXPECT_EQ(code_of([&] { loaded()->outputs(); }), Code::bundle_tensor_mismatch);
}

TEST_F(Trt, refuses_shapes_that_are_not_fixed) {
  state().tensors[2].shape = {-1, 4};
  EXPECT_EQ(code_of([&] { loaded(); }), Code::engine_load);
}

TEST_F(Trt, an_engine_of_another_machine_is_never_deserialized) {
  write("null", "NVIDIA Thor");
  const Error error = error_of([&] { loaded(); });
  EXPECT_EQ(error.code(), Code::engine_stale);
  EXPECT_NE(error.problem().find("NVIDIA Thor"), std::string::npos);
  EXPECT_FALSE(called("deserializeCudaEngine"));
}

TEST_F(Trt, an_engine_for_the_dla_runs_on_its_core) {
  loaded();
  EXPECT_EQ(state().dla, -1);
  write("1");
  loaded();
  EXPECT_EQ(state().dla, 1);
}

TEST_F(Trt, after_a_failed_load_nothing_is_loaded) {
  const auto engine = loaded();
  bind_inputs(*engine);
  EXPECT_EQ(code_of([&] { engine->load("/no/such.engine"); }), Code::engine_load);
  EXPECT_TRUE(engine->inputs().empty());
  EXPECT_EQ(code_of([&] { engine->run(); }), Code::engine_run);
  engine->load(path());
  bind_inputs(*engine);
  engine->run();
}

struct Failure {
  const char* call;
  Code code;
};

void PrintTo(const Failure& failure, std::ostream* out) { *out << failure.call; }

class TrtFailure : public Trt, public testing::WithParamInterface<Failure> {};

TEST_P(TrtFailure, is_an_error_with_its_reason_and_leaks_nothing) {
  const auto [call, code] = GetParam();
  const auto x = device_memory(4), scale = device_memory(4);
  const auto use = [&, this] {
    const auto engine = loaded();
    engine->bind("x", x);
    engine->bind("scale", scale);
    engine->run();
  };
  cuda().fails = call;
  const Error error = error_of(use);
  EXPECT_EQ(error.code(), code) << error.what();
  const bool is_cuda = std::string(call).rfind("cuda", 0) == 0;
  const std::string cuda_reason = std::string(call) == "cudaMalloc" ? "out of memory" : "unspecified launch failure";
  const std::string reason = is_cuda ? cuda_reason : std::string("the fake fails in ") + call;
  EXPECT_NE(error.problem().find(call), std::string::npos) << error.what();
  EXPECT_NE(error.problem().find(reason), std::string::npos) << error.what();
  EXPECT_EQ(error.problem().find("chatter"), std::string::npos) << "only warnings and errors are kept";
  cuda().fails = "";
  use();
}

INSTANTIATE_TEST_SUITE_P(
    every_call, TrtFailure,
    testing::Values(
        Failure{"cudaGetDevice", Code::device_unavailable}, Failure{"cudaDriverGetVersion", Code::device_unavailable},
        Failure{"cudaGetDeviceProperties", Code::device_unavailable}, Failure{"createInferRuntime", Code::engine_load},
        Failure{"deserializeCudaEngine", Code::engine_load}, Failure{"createExecutionContext", Code::engine_load},
        Failure{"cudaPointerGetAttributes", Code::engine_bind}, Failure{"setTensorAddress", Code::engine_bind},
        Failure{"cudaMalloc", Code::engine_run}, Failure{"cudaStreamCreateWithFlags", Code::engine_run},
        Failure{"enqueueV3", Code::engine_run}, Failure{"cudaStreamSynchronize", Code::engine_run}),
    [](const auto& info) { return std::string(info.param.call); });

TEST_F(Trt, another_gpu_in_the_callers_thread_changes_nothing) {
  const auto x = device_memory(4), scale = device_memory(4);
  {
    const auto engine = loaded();
    cuda().device = 1;
    engine->bind("x", x);
    engine->bind("scale", scale);
    engine->run();  // allocates for the outputs, and a stream
    EXPECT_EQ(cuda().device, 1);
  }
  EXPECT_EQ(cuda().device, 1);
  EXPECT_EQ(cuda().other_device, 0) << "calls were made on the other GPU";
  cuda().device = 0;
}

TEST_F(Trt, a_forked_child_refuses_the_engine_and_frees_nothing) {
  const auto x = device_memory(4), scale = device_memory(4);  // the test's own, which knows no process
  auto engine = loaded();
  engine->bind("x", x);
  engine->bind("scale", scale);
  engine->run();
  const pid_t child = fork();
  if (child == 0) {
    const std::size_t calls = cuda().calls.size();
    const int alive = cuda().alive;
    bool right = code_of([&] { engine->run(); }) == Code::forked;
    right = right && code_of([&] { engine->load(path()); }) == Code::forked;
    right = right && code_of([&] { engine->bind("x", nullptr); }) == Code::forked;
    engine.reset();
    _exit(right && cuda().alive == alive && cuda().calls.size() == calls ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  engine->run();
}

TEST_F(Trt, only_messages_logged_during_a_call_are_its_reason) {
  const auto engine = loaded();
  bind_inputs(*engine);
  state().logger->log(nvinfer1::ILogger::Severity::kWARNING, "yesterday's warning");
  cuda().fails = "enqueueV3";
  EXPECT_EQ(error_of([&] { engine->run(); }).problem().find("yesterday"), std::string::npos);
}

TEST_F(Trt, a_flood_of_messages_is_cut) {
  const auto engine = loaded();
  bind_inputs(*engine);
  cuda().fails = "enqueueV3";
  state().repeats = 10000;
  const std::string text = error_of([&] { engine->run(); }).problem();
  EXPECT_NE(text.find("the fake fails"), std::string::npos);
  EXPECT_LT(text.size(), 1000u);
}

}  // namespace
