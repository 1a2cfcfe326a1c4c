// Images and radar sweeps made of fuzz input, each in memory of exactly its size, so that a read beyond it is detected.
#pragma once
#include <list>
#include <vector>

#include "imkd/frames.hpp"
#include "imkd/rig.hpp"
#include "target.hpp"

namespace imkd::fuzz {

class Sensors {
 public:
  // Of every layout that a view can describe, in most cases with the camera's size.
  ImageView image(Input& input, const CameraCalibration& camera) {
    ImageView view;
    view.width = input.below(8) ? camera.width : input.below(100) - 1;
    view.height = input.below(8) ? camera.height : input.below(100) - 1;
    const int layout = input.below(7);
    if (layout == 0 || view.width < 0 || view.height < 0) return view;  // no data
    const std::ptrdiff_t pixel = layout == 1 ? 1 : layout == 2 ? 4 : 3, padding = input.below(3);
    const bool nv12 = layout == 3, reversed = layout == 4, upside_down = layout == 5;
    const std::ptrdiff_t row = view.width * (nv12 ? 1 : pixel) + padding,
                         rows = nv12 ? view.height * 3 / 2 : view.height;
    auto& bytes = pixels_.emplace_back(static_cast<std::size_t>(std::max<std::ptrdiff_t>(row * rows - padding, 1)));
    const unsigned first = input.value<std::uint8_t>(), step = input.value<std::uint8_t>();
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(first + i * step);
    view.data = bytes.data() + (reversed ? 2 : 0) + (upside_down && view.height ? row * (view.height - 1) : 0);
    view.row_stride = upside_down ? -row : row;
    view.pixel_stride = pixel;
    view.channel_stride = layout == 1 ? 0 : reversed ? -1 : 1;
    if (nv12) {
      view.chroma = view.data + row * view.height;
      view.chroma_stride = row;
      view.yuv = static_cast<YuvMatrix>(input.below(4));
    }
    return view;
  }

  RadarSweep sweep(Input& input, std::size_t radars, std::int64_t near_ns) {
    RadarSweep result;
    result.radar = input.below(16) ? input.below(static_cast<int>(radars)) : input.value<std::int8_t>();
    result.timestamp_ns = input.time(near_ns);
    result.count = input.below(12) - 1;
    if (input.below(4) == 0) result.T_world_ego = input.pose();
    if (result.count <= 0) return result;
    auto& numbers = points_.emplace_back(static_cast<std::size_t>(result.count) * 5);
    for (float& one : numbers) one = input.below(8) ? input.value<std::int16_t>() / 512.f : input.value<float>();
    result.points = numbers.data();
    return result;
  }

 private:
  std::list<std::vector<std::uint8_t>> pixels_;
  std::list<std::vector<float>> points_;
};

}  // namespace imkd::fuzz
