// Detector: frames in, boxes out.
#pragma once
#include <memory>
#include <string>

#include "imkd/bundle.hpp"
#include "imkd/engine.hpp"
#include "imkd/frames.hpp"
#include "imkd/result.hpp"
#include "imkd/rig.hpp"

namespace imkd {

struct DetectorOptions {
  // "cpu"; "cuda"; "auto": "cuda" where the engines run there. For load, "auto" falls back to the CPU where anything is
  // missing for the GPU.
  std::string device = "auto";
  std::string engine =
      "auto";       // for load: a name that make_engine knows; "auto": "tensorrt" on the GPU, "onnxruntime" on the CPU
  int threads = 0;  // 0: one per core, for our ops and for the engine; at most ThreadPool::kMaxThreads
  double score_threshold = -1;  // < 0: the spec's
  bool debug = false;           // also give the gate maps, in Result::debug; free when off
  bool stage_times = false;  // on the GPU: also time each stage, at some cost; on the CPU this is free and always done
};

// One detector is used by one thread at a time: where infer, set_rig or reset is called while another thread's call on
// the same detector is under way, it throws Error detector_busy and changes nothing. (In Python such a call waits.) The
// result, tensors(), spec() and rig() are to be read between calls. Different detectors share nothing: any number may
// run at once, each with engines of its own.
class Detector {
 public:
  static Detector load(const std::string& bundle, const SensorRig& rig, const DetectorOptions& options = {});
  // The engines must be loaded already; for engines written elsewhere (Python, tests).
  Detector(const ModelSpec& spec, const SensorRig& rig, std::shared_ptr<Engine> camera, std::shared_ptr<Engine> bev,
           const DetectorOptions& options = {});
  ~Detector();
  Detector(Detector&&) noexcept;
  Detector& operator=(Detector&&) noexcept;

  // The caller's mistakes throw; the world's faults are in Result::health. The reference stays valid until the next
  // call.
  const Result& infer(const FrameSet& frames);
  void set_rig(const SensorRig& rig);  // rebuilds the lookup tables where the rig differs; past frames stay, their maps
                                       // are the ego's
  void reset();                        // forgets past frames: before the first frame of another recording
  const ModelSpec& spec() const;
  const SensorRig& rig() const;
  std::string device() const;        // "cpu" or "cuda"
  std::string why_not_cuda() const;  // why load with device "auto" fell back to the CPU; empty where it did not

  struct Tensor {
    const char* name;
    const float* data;
    std::vector<std::int64_t> shape;
  };
  // The buffers of the last infer, on the GPU copied from it: images, depth, context, camera_bev, radar_grid, heatmap,
  // box; where the spec has them history, fused and segmentation; with debug i_cam and i_rad. Views.
  std::vector<Tensor> tensors() const;
  struct DeviceTensor {
    const char* name;
    void* data;
    std::vector<std::int64_t> shape;
    Type type;
  };
  // The same where the networks read and write them, of their types and, of the context, in their order of axes: on
  // device "cuda" the device's memory, not copied. Valid until the next infer.
  std::vector<DeviceTensor> device_tensors() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Throws Error device_unavailable where this process cannot use device "cuda", and says why.
void require_cuda();

}  // namespace imkd
