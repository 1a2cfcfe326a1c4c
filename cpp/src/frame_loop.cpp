#include "frame_loop.hpp"

#include <algorithm>
#include <cmath>

#include "imkd/error.hpp"

namespace imkd {

bool Frame::any_image() const {
  return std::any_of(images.begin(), images.end(), [](const ImageView& image) { return image.data != nullptr; });
}

FrameLoop::FrameLoop(const ModelSpec& spec, std::shared_ptr<Engine> camera, std::shared_ptr<Engine> bev,
                     const DetectorOptions& options)
    : spec_(spec), table_(size_table(spec, options.debug)), camera_(std::move(camera)), bev_(std::move(bev)) {
  check_tensors(camera_->inputs(), table_, Port::camera_input, "camera.onnx, inputs", tensors_);
  check_tensors(camera_->outputs(), table_, Port::camera_output, "camera.onnx, outputs", tensors_);
  check_tensors(bev_->inputs(), table_, Port::bev_input, "bev.onnx, inputs", tensors_);
  check_tensors(bev_->outputs(), table_, Port::bev_output, "bev.onnx, outputs", tensors_);
  camera_->set_user(this);
  bev_->set_user(this);
  if (table_[kSegmentation].need == Need::always) vehicles_.resize(table_[kSegmentation].size());
}

void FrameLoop::require_engines() const {
  if (camera_->user() == this && bev_->user() == this) return;
  throw Error(Code::engine_bind, "another Detector was made with one of its engines since, and bound it to its memory",
              "Detector", "give each Detector engines of its own");
}

Engine& FrameLoop::engine_of(int buffer) const {
  const Port port = table_[buffer].port;
  return port == Port::camera_input || port == Port::camera_output ? *camera_ : *bev_;
}

std::vector<Detector::DeviceTensor> FrameLoop::device_tensors() const {
  std::vector<Detector::DeviceTensor> tensors;
  for (int i = 0; i < kBuffers; ++i)
    if (data_[i]) tensors.push_back({table_[i].name, data_[i].get(), tensors_[i].shape, tensors_[i].type});
  return tensors;
}

// Sets the result's views of the output maps.
void FrameLoop::read_maps(const std::array<const float*, kBuffers>& data, bool blind, Result& result) {
  const int rows = spec_.grid.height(), columns = spec_.grid.width();
  if (const float* logits = data[kSegmentation]) {
    for (std::size_t i = 0; i < vehicles_.size(); ++i) vehicles_[i] = blind ? 0.f : 1 / (1 + std::exp(-logits[i]));
    result.segmentation = {"segmentation", rows, columns, vehicles_.data()};
  }
  for (Buffer gate : {kCameraGate, kRadarGate})
    if (data[gate]) result.debug.push_back({table_[gate].name, rows, columns, data[gate]});
}

}  // namespace imkd
