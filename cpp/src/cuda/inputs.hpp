// Inputs: a frame where the device can read it, each thing always in the same place, so that a graph may be replayed.
#pragma once
#include <memory>
#include <vector>

#include "frame_loop.hpp"
#include "imkd/cuda.hpp"
#include "imkd/thread_pool.hpp"
#include "ops/warp_place.hpp"
#include "resources.hpp"

namespace imkd::cuda {

// What the kernels are told of a frame: one block of pinned memory, and its copy on the device.
class Notes {
 public:
  Notes(const ModelSpec& spec, int sweeps);
  int sweeps() const { return sweeps_; }  // as many as fit
  ImageView* images() const { return at<ImageView>(host_, images_at_); }
  PastMap* past() const { return at<PastMap>(host_, past_at_); }
  RadarInput* radar() const { return at<RadarInput>(host_, radar_at_); }
  const ImageView* device_images() const { return at<ImageView>(device_, images_at_); }
  const PastMap* device_past() const { return at<PastMap>(device_, past_at_); }
  const RadarInput* device_radar() const { return at<RadarInput>(device_, radar_at_); }
  void send(cudaStream_t stream) const;

 private:
  template <class T>
  static T* at(const std::shared_ptr<unsigned char>& block, std::size_t offset) {
    return reinterpret_cast<T*>(block.get() + offset);
  }
  int sweeps_;
  std::size_t images_at_, past_at_, radar_at_, bytes_;
  std::shared_ptr<unsigned char> host_, device_;
};

class Inputs {
 public:
  Inputs(const ModelSpec& spec, int threads);
  // Room for images of the rig's size, in memory that the host writes; where it throws, the last rig's still stands.
  void set_rig(const SensorRig& rig);
  // Writes the frame's notes, and copies what the device cannot read where it stands. Nothing in the stream may still
  // read the last frame's. True where a place has moved, so that a graph of the last places is void.
  bool put(const Frame& frame, cudaStream_t stream);
  const Notes& notes() const { return *notes_; }
  int points() const { return points_; }  // as many radar points as fit

 private:
  struct Stage {                                   // one camera's pixels on their way
    std::shared_ptr<std::uint8_t> pinned, device;  // no device memory where the two are one, as on a Jetson
  };
  const std::uint8_t* on_device(const std::uint8_t* data) const;
  ImageView reachable(const ImageView& image, Stage& stage, cudaStream_t stream);
  bool put_radar(const Frame& frame);

  const ModelSpec spec_;
  ThreadPool pool_;
  int device_ = 0;
  bool integrated_ = false;
  std::unique_ptr<Notes> notes_;
  std::vector<Stage> stages_;     // by camera
  std::shared_ptr<float> radar_;  // (points_, 5)
  int points_ = 0;
};

}  // namespace imkd::cuda
