// Inputs: a frame in memory that the device can read, at addresses that stay, so that a CUDA graph may be replayed.
#pragma once
#include <memory>
#include <vector>

#include "cuda_runtime/resources.hpp"
#include "frame_loop.hpp"
#include "imkd/cuda.hpp"
#include "imkd/thread_pool.hpp"
#include "ops/past_map.hpp"

namespace imkd::cuda {

// The kernels' parameters that change from frame to frame: one block of pinned memory, and its copy on the device.
class FrameParams {
 public:
  FrameParams(const ModelSpec& spec, int sweeps);
  int sweeps() const { return sweeps_; }  // capacity
  ImageView* images() const { return at<ImageView>(host_, images_at_); }
  PastMap* past() const { return at<PastMap>(host_, past_at_); }
  RadarInput* radar() const { return at<RadarInput>(host_, radar_at_); }
  std::int32_t* store() const { return at<std::int32_t>(host_, store_at_); }  // Frame::store_map
  const ImageView* device_images() const { return at<ImageView>(device_, images_at_); }
  const PastMap* device_past() const { return at<PastMap>(device_, past_at_); }
  const RadarInput* device_radar() const { return at<RadarInput>(device_, radar_at_); }
  const std::int32_t* device_store() const { return at<std::int32_t>(device_, store_at_); }
  void copy_to_device(cudaStream_t stream) const;

 private:
  template <class T>
  static T* at(const std::shared_ptr<unsigned char>& block, std::size_t offset) {
    return reinterpret_cast<T*>(block.get() + offset);
  }
  int sweeps_;
  std::size_t images_at_;
  std::size_t past_at_;
  std::size_t radar_at_;
  std::size_t store_at_;
  std::size_t bytes_;
  std::shared_ptr<unsigned char> host_;
  std::shared_ptr<unsigned char> device_;
};

class Inputs {
 public:
  Inputs(const ModelSpec& spec, int threads);
  // Allocates staging memory for images of the rig's sizes; where it throws, the previous rig's stays.
  void set_rig(const SensorRig& rig);
  // Writes the frame's parameters, and stages the data that the device cannot read in the caller's memory. Work in the
  // stream must no longer read the previous frame. True where an address changed, so that a graph with it is void.
  bool put(const Frame& frame, const Vec3& ground, cudaStream_t stream);
  // Whether the host can read an image now: pageable memory, and pinned memory unless a stream may still write it.
  bool host_reads(const ImageView& image, bool awaited) const;
  const FrameParams& params() const { return *params_; }
  int points() const { return points_; }  // capacity of radar points

 private:
  struct Staging {  // memory for one camera's pixels
    std::shared_ptr<std::uint8_t> pinned;
    std::shared_ptr<std::uint8_t> device;  // null where the GPU shares the host's memory, as on a Jetson
  };
  const std::uint8_t* on_device(const std::uint8_t* data) const;
  ImageView reachable(const ImageView& image, Staging& staging, cudaStream_t stream);
  bool put_radar(const Frame& frame);

  const ModelSpec spec_;
  ThreadPool pool_;
  int device_ = 0;
  bool integrated_ = false;
  std::unique_ptr<FrameParams> params_;
  std::vector<Staging> staging_;  // by camera
  std::shared_ptr<float> radar_;  // (points_, 5)
  int points_ = 0;
};

}  // namespace imkd::cuda
