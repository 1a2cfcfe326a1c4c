// The search for tensors that an ONNX file stores in other files.
#include "onnx_external.hpp"
#include "target.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::vector<char> bytes(data, data + size);  // in memory of its own, so that a read beyond it is detected
  imkd::external_tensors(bytes.data(), bytes.size());
  return 0;
}
