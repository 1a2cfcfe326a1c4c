#include <gtest/gtest.h>

#include <algorithm>

#include "fakes.hpp"

using namespace imkd;
using namespace imkd::fakes;

namespace {

TEST(Engine, an_unknown_name_is_refused_with_the_known_ones) {
  EXPECT_EQ(code_of([] { make_engine("no such engine", 1); }), Code::engine_unavailable);
  try {
    make_engine("no such engine", 1);
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("no such engine"), std::string::npos);
    for (const std::string& name : native_engines()) EXPECT_NE(error.where().find(name), std::string::npos);
  }
}

TEST(Engine, a_wrong_number_of_threads_is_refused) {
  for (const int threads : {-1, 1025})
    EXPECT_EQ(code_of([&] { make_engine("onnxruntime", threads); }), Code::device_unavailable) << threads;
}

// Needs the library at run time: IMKD_ORT_LIBRARY names it.
TEST(Engine, onnxruntime_refuses_what_is_no_model) {
  if (native_engines().empty()) GTEST_SKIP() << "built without ONNX Runtime's headers: the native engine is NOT tested";
  std::unique_ptr<Engine> engine;
  try {
    engine = make_engine("onnxruntime", 1);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::engine_unavailable);
    GTEST_SKIP() << "ONNX Runtime's library is not installed: the native engine is NOT tested: " << error.what();
  }
  EXPECT_EQ(code_of([&] { engine->load("/no/such/file.onnx"); }), Code::engine_load);
  EXPECT_EQ(code_of([&] { engine->bind("images", nullptr); }), Code::engine_bind);
  EXPECT_EQ(code_of([&] { engine->run(); }), Code::engine_run);
}

// Without a GPU it throws, and does not crash in TensorRT.
TEST(Engine, tensorrt_refuses_what_is_no_engine) {
  const std::vector<std::string> names = native_engines();
  if (std::find(names.begin(), names.end(), "tensorrt") == names.end())
    GTEST_SKIP() << "built without TensorRT's headers: see test_trt, which stands in for it";
  std::unique_ptr<Engine> engine;
  try {
    engine = make_engine("tensorrt", 1);
  } catch (const Error& error) {
    EXPECT_TRUE(error.code() == Code::device_unavailable || error.code() == Code::engine_unavailable) << error.what();
    GTEST_SKIP() << "TensorRT is NOT tested here: " << error.what();
  }
  EXPECT_EQ(code_of([&] { engine->load("/no/such/file.engine"); }), Code::engine_load);
  EXPECT_EQ(code_of([&] { engine->bind("images", nullptr); }), Code::engine_bind);
  EXPECT_EQ(code_of([&] { engine->run(); }), Code::engine_run);
}

}  // namespace
