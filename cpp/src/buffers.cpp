#include "buffers.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "imkd/error.hpp"

namespace imkd {
namespace {

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (std::int64_t extent : shape) text += (text.empty() ? "" : ", ") + std::to_string(extent);
  return "(" + text + ")";
}

}  // namespace

std::size_t BufferInfo::size() const {
  std::size_t count = 1;
  for (std::int64_t extent : shape) count *= static_cast<std::size_t>(extent);
  return count;
}

SizeTable size_table(const ModelSpec& s, bool gates) {
  const std::int64_t n = s.cameras, h = s.image.feature_height(), w = s.image.feature_width(), rows = s.grid.height(),
                     columns = s.grid.width(), features = static_cast<std::int64_t>(s.radar.features.size()),
                     classes = static_cast<std::int64_t>(s.head.classes.size()), past = s.history.channels;
  const Need always = Need::always, history = past > 0 ? always : Need::never,
             vehicles = s.segmentation ? always : Need::never, gate = gates ? always : Need::welcome;
  return {{{"images", Port::camera_input, always, {n, 3, s.image.height, s.image.width}},
           {"depth", Port::camera_output, always, {n, s.depth.bins, h, w}},
           {"context", Port::camera_output, always, {n, s.context_channels, h, w}, {n, h, w, s.context_channels}},
           {"camera_bev", Port::bev_input, always, {1, s.context_channels + 1, rows, columns}},
           {"radar_grid", Port::bev_input, always, {1, features, s.radar_height(), s.radar_width()}},
           {"history", Port::bev_input, history, {1, s.history.frames * past, rows, columns}},
           {"heatmap", Port::bev_output, always, {1, classes, rows, columns}},
           {"box", Port::bev_output, always, {1, s.head.groups() * kBoxChannels, rows, columns}},
           {"fused", Port::bev_output, history, {1, past, rows, columns}},
           {"segmentation", Port::bev_output, vehicles, {1, 1, rows, columns}},
           {"i_cam", Port::bev_output, gate, {1, 1, rows, columns}},
           {"i_rad", Port::bev_output, gate, {1, 1, rows, columns}}}};
}

void check_tensors(const std::vector<TensorInfo>& found, const SizeTable& table, Port port, const std::string& where,
                   std::array<TensorInfo, kBuffers>& tensors) {
  std::size_t known = 0;
  for (const BufferInfo& info : table) {
    if (info.port != port || info.need == Need::never) continue;
    const auto at =
        std::find_if(found.begin(), found.end(), [&](const TensorInfo& tensor) { return tensor.name == info.name; });
    if (at == found.end()) {
      if (info.need == Need::welcome) continue;
      const bool gate = &info == &table[kCameraGate] || &info == &table[kRadarGate];
      throw Error(Code::bundle_tensor_mismatch, std::string("has no tensor \"") + info.name + "\"", where,
                  gate ? "load it without debug: only a network that was exported with its gate maps can show them"
                       : "export the bundle anew");
    }
    if (at->shape != info.shape && (info.turned.empty() || at->shape != info.turned))
      throw Error(Code::bundle_tensor_mismatch,
                  std::string("\"") + info.name + "\" is " + shape_text(at->shape) + ", the spec says " +
                      shape_text(info.shape),
                  where, "export the bundle anew, with static shapes and the spec it was trained with");
    tensors[static_cast<std::size_t>(&info - table.data())] = *at;
    ++known;
  }
  if (found.size() != known)
    throw Error(Code::bundle_tensor_mismatch,
                "has " + std::to_string(found.size()) + " tensors, " + std::to_string(known) + " are known", where,
                "export the bundle anew");
}

std::shared_ptr<float> allocate(std::size_t count) {
  constexpr std::size_t kAlign = 64;
  const std::size_t bytes = (std::max<std::size_t>(count, 1) * sizeof(float) + kAlign - 1) / kAlign * kAlign;
  auto* data = static_cast<float*>(std::aligned_alloc(kAlign, bytes));
  if (!data) throw std::bad_alloc();
  std::memset(data, 0, bytes);
  return {data, &std::free};
}

}  // namespace imkd
