// FrameLoop: one frame on one device, from checked sensor data to boxes. A class per kind of device; Detector does what
// all have in common.
#pragma once
#include <array>
#include <chrono>
#include <memory>
#include <vector>

#include "buffers.hpp"
#include "history.hpp"
#include "imkd/detector.hpp"
#include "imkd/ops.hpp"

namespace imkd {

struct Frame {
  std::vector<ImageView> images;  // by camera; without data: nothing usable was delivered
  std::vector<RadarInput>
      sweeps;  // the first sweep_count are this frame's; grows only when a frame brings more than any before
  int sweep_count = 0;
  std::vector<Past> past;  // by slot of the history
  int keep = -1;           // place for this frame's fused map; -1: it is not kept
  bool blind = false;      // no sensor has said anything
  bool any_image() const;
};

class Stopwatch {  // µs since the last lap
 public:
  float lap() {
    const auto now = std::chrono::steady_clock::now();
    const float time = std::chrono::duration<float, std::micro>(now - last_).count();
    last_ = now;
    return time;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

class FrameLoop {
 public:
  // Throws Error bundle_tensor_mismatch where the engines' tensors are not the spec's.
  FrameLoop(const ModelSpec& spec, std::shared_ptr<Engine> camera, std::shared_ptr<Engine> bev,
            const DetectorOptions& options);
  virtual ~FrameLoop() = default;
  virtual const char* device() const = 0;
  // Makes ready for a checked rig; where it throws, the last one still holds.
  virtual void set_rig(const SensorRig& rig, const std::vector<ImageCrop>& crops) = 0;
  // Fills result's detections, maps and timings, and of its health the counts of points and of boxes.
  virtual void run(const Frame& frame, Result& result) = 0;
  virtual std::vector<Detector::Tensor> tensors() = 0;         // of the last frame, where the host can read them
  std::vector<Detector::DeviceTensor> device_tensors() const;  // where the engines do

 protected:
  Engine& engine_of(int buffer) const;
  void read_maps(const std::array<const float*, kBuffers>& data, bool blind, Result& result);

  const ModelSpec spec_;
  const SizeTable table_;
  std::array<TensorInfo, kBuffers> tensors_;  // as the engines have them
  const std::shared_ptr<Engine> camera_, bev_;
  std::array<std::shared_ptr<void>, kBuffers> data_;  // where the engines read and write; null where nobody needs it

 private:
  std::vector<float> vehicles_;  // probabilities of the segmentation
};

inline void set_counts(const RadarStats& stats, Health& health) {
  health.radar_points = stats.used;
  health.radar_points_invalid = stats.invalid;
  health.radar_points_outside = stats.outside;
  health.radar_points_overflow = stats.overflow;
}

std::unique_ptr<FrameLoop> make_cpu_loop(const ModelSpec& spec, std::shared_ptr<Engine> camera,
                                         std::shared_ptr<Engine> bev, const DetectorOptions& options);
// Throws Error device_unavailable where this build or this machine has no CUDA.
std::unique_ptr<FrameLoop> make_cuda_loop(const ModelSpec& spec, std::shared_ptr<Engine> camera,
                                          std::shared_ptr<Engine> bev, const DetectorOptions& options);

}  // namespace imkd
