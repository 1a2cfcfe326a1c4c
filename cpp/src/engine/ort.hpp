// The native ONNX Runtime engine; in the build only where its headers were found (IMKD_WITH_ORT).
#pragma once
#include <memory>
#include <string>

#include "imkd/engine.hpp"

namespace imkd {

// Which shared library to open, e.g. the one in the onnxruntime wheel; to be called before the first engine is made. By
// default the loader looks for libonnxruntime.so.1. Does nothing in a build without this engine.
void set_ort_library(const std::string& path);
std::unique_ptr<Engine> make_ort_engine(int threads);  // throws Error engine_unavailable when no library fits

}  // namespace imkd
