// ONNX may keep tensors in files of any path, which no checksum of the bundle covers.
#pragma once
#include <cstddef>

namespace imkd {

// Why an ONNX file's bytes are refused, or nullptr. Bytes that no parser of protobuf would take may give either.
const char* external_tensors(const char* bytes, std::size_t size);

}  // namespace imkd
