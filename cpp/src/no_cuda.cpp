// The CUDA frame loop of a build without CUDA: it throws.
#ifndef IMKD_WITH_CUDA
#include "frame_loop.hpp"
#include "imkd/error.hpp"

namespace imkd {

int require_cuda() {
  throw Error(Code::device_unavailable, "this build of the core has no CUDA", "device \"cuda\"",
              "build it with -DIMKD_CUDA=ON where nvcc is, or use device \"cpu\"");
}

std::unique_ptr<FrameLoop> make_cuda_loop(const ModelSpec&, std::shared_ptr<Engine>, std::shared_ptr<Engine>,
                                          const DetectorOptions&) {
  require_cuda();
  return nullptr;
}

}  // namespace imkd
#endif
