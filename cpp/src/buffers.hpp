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

// The side of the ONNX part that reads or writes a buffer.
enum class Port { camera_input, camera_output, bev_input, bev_output };
// optional: the graph may have the tensor, the frame loop does not bind it.
enum class Need { always, optional, never };

struct BufferInfo {
  const char* name;
  Port port;
  Need need;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> channels_last{};  // the other shape that an engine's tensor may have; empty: none
  std::size_t size() const;                   // elements
};
using SizeTable = std::array<BufferInfo, kBuffers>;

SizeTable size_table(const ModelSpec& spec, bool gates);  // by Buffer; gates: i_cam and i_rad are needed

// Copies the infos of one port's tensors to tensors, by Buffer. Throws Error bundle_tensor_mismatch unless the graph
// has every needed tensor, each in the shape of the spec, and no unknown one.
void check_tensors(const std::vector<TensorInfo>& infos, const SizeTable& table, Port port, const std::string& where,
                   std::array<TensorInfo, kBuffers>& tensors);

std::shared_ptr<float> allocate(std::size_t count);  // zeros, aligned to a cache line

}  // namespace imkd
