// The native ONNX Runtime engine; built only with its headers (IMKD_WITH_ORT).
#pragma once
#include <memory>
#include <string>

#include "imkd/engine.hpp"

namespace imkd {

// Sets the shared library to open, e.g. the one in the onnxruntime wheel, before the first engine is made; by default
// the loader searches for libonnxruntime.so.1. Does nothing in a build without this engine.
void set_ort_library(const std::string& path);
std::unique_ptr<Engine> make_ort_engine(int threads);  // throws Error engine_unavailable without a usable library

}  // namespace imkd
