// Detector: frames in, boxes out.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "imkd/bundle.hpp"
#include "imkd/engine.hpp"
#include "imkd/frames.hpp"
#include "imkd/result.hpp"
#include "imkd/rig.hpp"

namespace imkd {

struct DetectorOptions {
  // "cpu"; "cuda"; "auto": "cuda" where both engines run on the GPU. For load see load_for_device.
  std::string device = "auto";
  // For load: a name that make_engine knows, or "auto": "tensorrt" on the GPU, "onnxruntime" on the CPU.
  std::string engine = "auto";
  int threads = 0;              // of the ops and of the engine; 0: one per core; at most ThreadPool::kMaxThreads
  double score_threshold = -1;  // kMinScore .. kMaxScore; < 0: that of the spec
  bool debug = false;           // also return the gate maps, in Result::debug
  bool stage_times = false;     // on the GPU: also time each stage, which costs time; on the CPU always done
  // For load: whose bundles are loaded. A folder of minisign's public keys NAME.pub, as "FOLDER" or "warn:FOLDER": a
  // bundle without a signature gets WarningCode::unsigned_bundle; as "require:FOLDER": it throws Error bundle_unsigned.
  // A signature that is present must be valid and of one of these keys, and the bundle's revision at least the number
  // in FOLDER/least_revision, where there is such a file. Empty or "off": signatures are not verified. The environment
  // variable IMKD_EDGE_TRUST, of the same form, holds for every load of the process as well: the stricter of both wins.
  std::string trust;
  bool unsigned_bundle = false;  // for the constructor: warn as load does
};

// A detector serves one thread at a time: infer, set_rig and reset throw Error detector_busy, and change nothing, while
// another thread's call runs. (In Python such a call waits.) The result, tensors(), spec() and rig() are to be read
// between calls. Detectors share nothing: any number may run concurrently, each with its own engines:
// infer throws engine_bind where another Detector was made with one of them since.
class Detector {
 public:
  static Detector load(const std::string& bundle, const SensorRig& rig, const DetectorOptions& options = {});
  // With loaded engines of any class. Without a contract rig and data are compared with the spec alone, and every
  // output counts as trained.
  Detector(const ModelSpec& spec, const SensorRig& rig, std::shared_ptr<Engine> camera, std::shared_ptr<Engine> bev,
           const DetectorOptions& options = {}, const std::optional<Contract>& contract = {});
  ~Detector();
  Detector(Detector&&) noexcept;  // one that was moved from may only be assigned to and destroyed
  Detector& operator=(Detector&&) noexcept;

  // The caller's mistakes throw; sensor faults are in Result::health. The reference is valid until the next call.
  const Result& infer(const FrameSet& frames);
  // Rebuilds the lookup tables where the rig differs. Past frames stay: their maps are in the ego frame.
  void set_rig(const SensorRig& rig);
  void reset();  // discards past frames; to be called before the first frame of another recording
  const ModelSpec& spec() const;
  const SensorRig& rig() const;
  std::string device() const;        // "cpu" or "cuda"
  std::string why_not_cuda() const;  // why load with device "auto" fell back to the CPU; empty where it did not

  // Why no frame is replayed as one CUDA graph, which costs time; empty where frames are, or will be, from the second
  // with an image on. Result::replayed says it of each frame.
  std::string why_not_replayed() const;

  // Images that a CUDA stream is still writing: the next infer waits, on the GPU, for the work that is in `stream` (a
  // cudaStream_t, also cudaStreamLegacy or cudaStreamPerThread) now. Nothing to wait for on the CPU.
  void wait_for(void* stream);
  // The cudaStream_t that reads the images and writes the tensors, for a producer that makes it wait; null on the CPU.
  void* stream() const;
  int gpu() const;  // the number of the GPU, that which was current at construction; -1 on the CPU

  struct Tensor {
    const char* name;
    const float* data;
    std::vector<std::int64_t> shape;
  };
  // Views of the buffers of the last infer, copied to the host where they are on the GPU: images, depth, context,
  // camera_bev, radar_grid, heatmap, box; where the spec has them history, fused and segmentation; with debug i_cam and
  // i_rad.
  std::vector<Tensor> tensors() const;
  struct DeviceTensor {
    const char* name;
    void* data;
    std::vector<std::int64_t> shape;
    Type type;
  };
  // The same buffers without a copy, in the engines' types and order of axes; on device "cuda" in the GPU's memory.
  // Valid until the next infer.
  std::vector<DeviceTensor> device_tensors() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The number of the calling thread's GPU; throws Error device_unavailable where this process cannot use device "cuda",
// with the reason.
int require_cuda();

// Throws Error device_unavailable unless device is "auto", "cpu" or "cuda".
void check_device(const std::string& device, const std::string& where);

struct DeviceChoice {
  std::string device;        // as given; "cuda" or "cpu" where device and engine are both "auto"
  std::string why_not_cuda;  // why "auto" fell back to the CPU; empty where it did not
};
// What "auto" means, for Detector::load and for the Python package: calls load with an engine's name.
//   device "cuda": requires CUDA, then loads the named engine, "tensorrt" for "auto"
//   device "cpu", or a named engine: loads it, "onnxruntime" for "auto"
//   both "auto": loads "tensorrt" as for "cuda"; where that throws Error, loads "onnxruntime" for "cpu"
DeviceChoice load_for_device(const std::string& device, const std::string& engine,
                             const std::function<void(const std::string& engine)>& load);

}  // namespace imkd
