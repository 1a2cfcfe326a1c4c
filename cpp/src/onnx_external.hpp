// Detects tensors that an ONNX file stores in other files, which no checksum of the bundle covers.
#pragma once
#include <cstddef>

namespace imkd {

// Why an ONNX file is refused, or nullptr. Bytes that are no protobuf may give either.
const char* external_tensors(const char* bytes, std::size_t size);

}  // namespace imkd
