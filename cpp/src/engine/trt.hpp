// The native TensorRT engine; built only with NvInfer.h and the CUDA runtime (IMKD_WITH_TRT).
#pragma once
#include <memory>

#include "imkd/engine.hpp"

namespace imkd {

// load takes NAME.engine or an ONNX part (see engine_file.hpp). The device must be able to access bound memory
// (cudaMalloc, cudaHostAlloc, cudaMallocManaged), at an address that is a multiple of 256 bytes. run(stream) only
// enqueues the work; run() uses a stream of its own and returns when the outputs are written. The first run after a
// bind may allocate. Throws Error device_unavailable without a GPU, engine_unavailable without TensorRT's library.
std::unique_ptr<Engine> make_trt_engine();

}  // namespace imkd
