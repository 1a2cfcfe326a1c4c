#include "buffers.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "imkd/error.hpp"
#include "shape_text.hpp"

namespace imkd {
std::size_t BufferInfo::size() const {
  std::size_t count = 1;
  for (std::int64_t extent : shape) count *= static_cast<std::size_t>(extent);
  return count;
}

SizeTable size_table(const ModelSpec& s, bool gates) {
  const std::int64_t n = s.cameras;
  const std::int64_t h = s.image.feature_height();
  const std::int64_t w = s.image.feature_width();
  const std::int64_t rows = s.grid.height();
  const std::int64_t columns = s.grid.width();
  const std::int64_t features = static_cast<std::int64_t>(s.radar.features.size());
  const std::int64_t classes = static_cast<std::int64_t>(s.head.classes.size());
  const std::int64_t past = s.history.channels;
  const Need always = Need::always;
  const Need history = past > 0 ? always : Need::never;
  const Need vehicles = s.segmentation ? always : Need::never;
  const Need gate = gates ? always : Need::optional;
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

void check_tensors(const std::vector<TensorInfo>& infos, const SizeTable& table, Port port, const std::string& where,
                   std::array<TensorInfo, kBuffers>& tensors) {
  std::size_t known = 0;
  for (const BufferInfo& info : table) {
    if (info.port != port || info.need == Need::never) continue;
    const auto tensor =
        std::find_if(infos.begin(), infos.end(), [&](const TensorInfo& other) { return other.name == info.name; });
    if (tensor == infos.end()) {
      if (info.need == Need::optional) continue;
      const bool gate = &info == &table[kCameraGate] || &info == &table[kRadarGate];
      throw Error(Code::bundle_tensor_mismatch, std::string("has no tensor \"") + info.name + "\"", where,
                  gate ? "load it without debug, or export the network with its gate maps" : "export the bundle again");
    }
    if (tensor->shape != info.shape && (info.channels_last.empty() || tensor->shape != info.channels_last))
      throw Error(Code::bundle_tensor_mismatch,
                  std::string("\"") + info.name + "\" is " + shape_text(tensor->shape) + ", must be " +
                      shape_text(info.shape) + " by the spec",
                  where, "export the bundle again, with static shapes and the spec of its training");
    tensors[static_cast<std::size_t>(&info - table.data())] = *tensor;
    ++known;
  }
  if (infos.size() != known)
    throw Error(Code::bundle_tensor_mismatch,
                "has " + std::to_string(infos.size()) + " tensors, of which the spec has " + std::to_string(known),
                where, "export the bundle again");
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
