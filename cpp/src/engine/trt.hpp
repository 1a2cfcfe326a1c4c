// The native TensorRT engine; in the build only where NvInfer.h and the CUDA runtime were found (IMKD_WITH_TRT).
#pragma once
#include <memory>

#include "imkd/engine.hpp"

namespace imkd {

// load takes NAME.engine or an ONNX part (see engine_file.hpp). Memory that is bound must be reachable by the device
// (cudaMalloc, cudaHostAlloc, cudaMallocManaged) and lie at a multiple of 256 bytes. run(stream) only puts the work
// into the caller's stream; run() without one has a stream of its own and returns when the outputs are there. The first
// run after a bind may allocate. Throws Error device_unavailable without a GPU, engine_unavailable when TensorRT's
// library cannot be opened.
std::unique_ptr<Engine> make_trt_engine();

}  // namespace imkd
