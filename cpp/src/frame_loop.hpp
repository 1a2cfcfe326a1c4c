// FrameLoop: one frame on one device, from checked sensor data to boxes. One class per device; Detector holds what they
// have in common.
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

// Sweeps of one radar in a frame for which memory is reserved; a frame with more makes it grow.
constexpr int kSweepsPerRadar = 16;

struct Frame {
  std::vector<ImageView> images;  // by camera of the model; no data: none that is usable, or beyond the rig's cameras
  // By camera: the motion to its exposure, of rounded_exposure; that of an absent camera may be any.
  std::vector<Mat4> T_ref_ego;
  std::vector<RadarInput> sweeps;  // the first sweep_count are this frame's; never shrinks
  int sweep_count = 0;
  std::vector<PastFrame> past;  // by slot of the history
  int store_map = -1;           // index for this frame's fused map; -1: it is not stored
  bool blind = false;           // no usable sensor
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
  void require_engines() const;  // throws Error engine_bind where another Detector was made with one of them since
  virtual const char* device() const = 0;
  // Sets a checked rig, with a crop for each camera of the model; where it throws, the previous one stays.
  virtual void set_rig(const SensorRig& rig, const std::vector<ImageCrop>& crops) = 0;
  // Fills the result's detections, maps and timings, and its health's counts of points, boxes and maps.
  virtual void run(const Frame& frame, Result& result) = 0;
  virtual std::vector<Detector::Tensor> tensors() = 0;         // of the last frame, in host memory
  std::vector<Detector::DeviceTensor> device_tensors() const;  // in the engines' memory
  virtual void* stream() const { return nullptr; }             // on the GPU the cudaStream_t that reads the images
  virtual int gpu() const { return -1; }                       // its number
  virtual void wait_for(void*) {}                              // see Detector::wait_for
  // Whether the host can read an image now: it is not the GPU's, and no stream that was waited for may still write it.
  virtual bool host_reads(const ImageView&) const { return true; }
  // Why frames are not replayed as a CUDA graph; empty where they are, or will be.
  virtual const std::string& why_not_replayed() const {
    static const std::string text = "frames run on the CPU";
    return text;
  }

 protected:
  Engine& engine_of(int buffer) const;
  void read_maps(const std::array<const float*, kBuffers>& data, bool blind, Result& result);

  const ModelSpec spec_;
  const SizeTable table_;
  std::array<TensorInfo, kBuffers> tensors_;  // of the engines
  const std::shared_ptr<Engine> camera_, bev_;
  std::array<std::shared_ptr<void>, kBuffers> data_;  // bound to the engines; null: not needed
  Vec3 ground_{};                                     // the plane of the rig

 private:
  std::vector<float> vehicles_;  // probabilities of the segmentation
};

// Adds to the invalid points of the sweeps that resolve_sweeps left out.
inline void set_counts(const RadarStats& stats, Health& health) {
  health.radar_points = stats.used;
  health.radar_points_invalid += stats.invalid;
  health.radar_points_outside = stats.outside;
  health.radar_points_overflow = stats.overflow;
}

std::unique_ptr<FrameLoop> make_cpu_loop(const ModelSpec& spec, std::shared_ptr<Engine> camera,
                                         std::shared_ptr<Engine> bev, const DetectorOptions& options);
// Throws Error device_unavailable where this build or this machine has no CUDA.
std::unique_ptr<FrameLoop> make_cuda_loop(const ModelSpec& spec, std::shared_ptr<Engine> camera,
                                          std::shared_ptr<Engine> bev, const DetectorOptions& options);

}  // namespace imkd
