// The buffers between the stages: one table of their names, shapes and owners, sized from the spec.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "imkd/engine.hpp"
#include "imkd/spec.hpp"

namespace imkd {

enum Buffer {
  kImages,
  kDepth,
  kContext,
  kCameraBev,
  kRadarGrid,
  kHistory,
  kHeatmap,
  kBox,
  kFused,
  kSegmentation,
  kCameraGate,
  kRadarGate,
  kBuffers
};

enum class Port {
  camera_input,
  camera_output,
  bev_input,
  bev_output
};  // of the ONNX part that reads or writes the buffer
enum class Need { always, welcome, never };  // welcome: the graph may give it, nobody asks for it

struct BufferInfo {
  const char* name;
  Port port;
  Need need;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> turned{};  // the shape with its channels last, where an engine may have it so; else empty
  std::size_t size() const;            // numbers
};
using SizeTable = std::array<BufferInfo, kBuffers>;

SizeTable size_table(const ModelSpec& spec, bool gates);  // by the order of Buffer; gates: i_cam and i_rad are wanted

// The graph must have the tensors of this port that the table needs, each with the shape that the spec gives, and no
// unknown ones. They are noted by the order of Buffer.
void check_tensors(const std::vector<TensorInfo>& found, const SizeTable& table, Port port, const std::string& where,
                   std::array<TensorInfo, kBuffers>& tensors);

std::shared_ptr<float> allocate(std::size_t count);  // zeros, aligned for vector loads

}  // namespace imkd
