// The frame loop on the GPU. The main stream runs the cameras, the BEV network and decode, the side stream the radars
// and the past maps; they fork after the frame parameters are copied and join before the BEV network. Where both
// engines run on the device, a frame is one CUDA graph, captured once and replayed.
#include <algorithm>

#include "half.hpp"
#include "inputs.hpp"
#include "rig_tables.hpp"

namespace imkd {
namespace cuda {
namespace {

struct Counts {  // of a frame
  RadarStats radar;
  DecodeCounts decode;
  std::int32_t map_invalid;  // not 0: the fused map that was to be stored has a non-finite value
};

class CudaLoop : public FrameLoop {
 public:
  CudaLoop(const ModelSpec& spec, std::shared_ptr<Engine> camera, std::shared_ptr<Engine> bev,
           const DetectorOptions& options);
  ~CudaLoop() override { wait_for_all(); }
  const char* device() const override { return "cuda"; }
  void set_rig(const SensorRig& rig, const std::vector<ImageCrop>& crops) override;
  void run(const Frame& frame, Result& result) override;
  std::vector<Detector::Tensor> tensors() override;
  void* stream() const override { return main_.get(); }
  int gpu() const override { return device_; }
  void wait_for(void* stream) override;
  bool host_reads(const ImageView& image) const override;
  const std::string& why_not_replayed() const override { return why_not_replayed_; }

 private:
  void check_types() const;
  void connect();
  Type type(Buffer buffer) const { return tensors_[buffer].type; }
  std::size_t bytes(int buffer) const { return table_[buffer].size() * size_of(tensors_[buffer].type); }
  void widen(int buffer, const void* data, std::vector<float>& out) const;
  void enqueue(bool any_image);
  void enqueue_cameras(bool any_image);
  void enqueue_radars();
  void run_engine(Engine& engine);
  void capture();
  void infer(const Frame& frame, Result& result);
  void read(const Frame& frame, Result& result);
  void mark(Stage stage, bool end, cudaStream_t stream);
  void mark_dead_on_sticky_error(const Error& error);
  bool wait_for_all();

  const int device_ = Origin().device();
  Inputs inputs_;
  OwnStream main_ = make_stream();
  OwnStream side_ = make_stream();
  OwnEvent fork_ = make_event(cudaEventDisableTiming);
  OwnEvent join_ = make_event(cudaEventDisableTiming);
  OwnEvent produced_ = make_event(cudaEventDisableTiming);
  std::vector<OwnEvent> marks_;                       // begin and end of each stage; empty unless stages are timed
  Layout layout_ = Layout::channels_first;            // of the context
  std::array<std::shared_ptr<void>, kBuffers> maps_;  // pinned copies of the result's maps
  std::array<std::vector<float>, kBuffers> floats_;   // the same as float32, where an engine's type is another
  std::shared_ptr<unsigned char> past_;               // stored fused maps of past frames
  std::shared_ptr<unsigned char> lift_table_work_;
  std::shared_ptr<unsigned char> lift_work_;
  std::shared_ptr<unsigned char> radar_work_;
  std::shared_ptr<unsigned char> decode_work_;
  RigTables tables_;
  std::shared_ptr<Detection> boxes_;
  std::shared_ptr<Counts> counts_;   // of the device
  std::shared_ptr<Counts> counted_;  // their pinned copy
  OwnGraphExec graph_;
  std::string why_not_replayed_;            // empty: frames are replayed, or will be
  bool warm_ = false;                       // both engines have run
  bool awaited_ = false;                    // since the last frame a stream was waited for, which may write images
  std::string dead_;                        // the sticky error after which CUDA refuses every call
  std::vector<std::vector<float>> copies_;  // for tensors()
};

CudaLoop::CudaLoop(const ModelSpec& spec, std::shared_ptr<Engine> camera, std::shared_ptr<Engine> bev,
                   const DetectorOptions& options)
    : FrameLoop(spec, std::move(camera), std::move(bev), options), inputs_(spec_, options.threads) {
  if (tensors_[kContext].shape != table_[kContext].shape) layout_ = Layout::channels_last;
  for (Engine* engine : {camera_.get(), bev_.get()}) {
    if (!engine->on_device()) why_not_replayed_ = "the engine " + engine->name() + " does not run on the GPU";
    if (!engine->why_not_captured().empty()) why_not_replayed_ = engine->why_not_captured();
    if (engine->on_device()) engine->use_stream(main_.get());
  }
  if (options.stage_times) why_not_replayed_ = "the stages are timed";
  if (options.stage_times)
    for (int i = 0; i < 2 * kStages; ++i) marks_.push_back(make_event(0));
  check_types();
  connect();
  lift_table_work_ = device_memory<unsigned char>(lift_table_workspace(spec_));
  lift_work_ = device_memory<unsigned char>(lift_workspace(spec_, layout_, type(kContext)));
  radar_work_ = device_memory<unsigned char>(cuda::radar_workspace(spec_));
  decode_work_ = device_memory<unsigned char>(cuda::decode_workspace(spec_));
  boxes_ = pinned_memory<Detection>(static_cast<std::size_t>(spec_.head.max_detections));
  counts_ = device_memory<Counts>(1);
  counted_ = pinned_memory<Counts>(1);
  check(cudaMemsetAsync(counts_.get(), 0, sizeof(Counts), main_.get()), "cudaMemsetAsync");  // map_invalid may stay
  if (data_[kFused])
    past_ = device_memory<unsigned char>(static_cast<std::size_t>(History::capacity(spec_.history)) * bytes(kFused));
}

// Every tensor is float32 or float16. Two tensors that one kernel reads have the same type, and so have fused, which
// the BEV network writes, and history, which it reads in later frames.
void CudaLoop::check_types() const {
  const auto refuse = [](const TensorInfo& tensor, const std::string& problem) {
    throw Error(Code::bundle_tensor_mismatch, "\"" + tensor.name + "\" is " + name_of(tensor.type) + problem,
                "device \"cuda\"", "build the engines again with imkd-edge build-engine");
  };
  for (int i = 0; i < kBuffers; ++i)
    if (tensors_[i].type == Type::int8) refuse(tensors_[i], ", must be float32 or float16");
  for (const auto& [a, b] : {std::pair{kDepth, kContext}, std::pair{kHeatmap, kBox}, std::pair{kFused, kHistory}})
    if (type(a) != type(b)) refuse(tensors_[a], std::string(", \"") + table_[b].name + "\" " + name_of(type(b)));
}

// Allocates the buffers between the stages and binds them to the engines; an engine on the CPU needs pinned memory.
void CudaLoop::connect() {
  for (int i = 0; i < kBuffers; ++i) {
    if (table_[i].need != Need::always) continue;
    Engine& engine = engine_of(i);
    if (engine.on_device())
      data_[i] = device_memory<unsigned char>(bytes(i));
    else
      data_[i] = pinned_memory<unsigned char>(bytes(i));
    engine.bind(table_[i].name, data_[i]);
    if (i != kSegmentation && i != kCameraGate && i != kRadarGate) continue;  // only these are in the result
    maps_[i] = engine.on_device() ? pinned_memory<unsigned char>(bytes(i)) : data_[i];
    if (tensors_[i].type != Type::float32) floats_[i].resize(table_[i].size());
  }
}

void CudaLoop::set_rig(const SensorRig& rig, const std::vector<ImageCrop>& crops) {
  const DeviceScope scope(device_);
  RigTables next(spec_, rig, crops, lift_table_work_.get(), main_.get());
  inputs_.set_rig(rig);
  // Nothing below throws.
  graph_.reset();  // it has the old addresses
  tables_ = std::move(next);
  ground_ = ground_of(spec_, rig);
}

void CudaLoop::wait_for(void* stream) {
  const DeviceScope scope(device_);
  check(cudaEventRecord(produced_.get(), static_cast<cudaStream_t>(stream)), "cudaEventRecord", "the caller's stream");
  check(cudaStreamWaitEvent(main_.get(), produced_.get(), 0), "cudaStreamWaitEvent", "the caller's stream");
  awaited_ = true;
}

bool CudaLoop::host_reads(const ImageView& image) const try {
  const DeviceScope scope(device_);
  return inputs_.host_reads(image, awaited_);
} catch (const Error&) {  // run() meets it again, and reports it
  return false;
}

void CudaLoop::mark(Stage stage, bool end, cudaStream_t stream) {
  if (!marks_.empty())
    check(cudaEventRecord(marks_[static_cast<std::size_t>(2 * stage + end)].get(), stream), "cudaEventRecord");
}

// An engine on the CPU runs on the calling thread, after the main stream's work.
void CudaLoop::run_engine(Engine& engine) {
  if (engine.on_device()) return engine.run(main_.get());
  check(cudaStreamSynchronize(main_.get()), "cudaStreamSynchronize", "before the engine " + engine.name());
  engine.run();
}

// images -> camera_bev; an absent camera adds nothing.
void CudaLoop::enqueue_cameras(bool any_image) {
  cudaStream_t stream = main_.get();
  const ImageView* images = inputs_.params().device_images();
  mark(kPreprocess, false, stream);
  preprocess_images(images, spec_.cameras, spec_.image, tables_.resize(), data_[kImages].get(), type(kImages), stream);
  mark(kPreprocess, true, stream);
  mark(kCamera, false, stream);
  if (any_image) run_engine(*camera_);
  mark(kCamera, true, stream);
  mark(kLift, false, stream);
  for (Buffer buffer : {kDepth, kContext}) {
    const std::size_t each = table_[buffer].size() / static_cast<std::size_t>(spec_.cameras);
    clear_absent(images, spec_.cameras, data_[buffer].get(), each, type(buffer), stream);
  }
  lift(spec_, tables_.lift(), data_[kDepth].get(), data_[kContext].get(), layout_, type(kContext),
       data_[kCameraBev].get(), type(kCameraBev), lift_work_.get(), stream);
  mark(kLift, true, stream);
}

void CudaLoop::enqueue_radars() {
  cudaStream_t stream = side_.get();
  const FrameParams& params = inputs_.params();
  mark(kRadar, false, stream);
  voxelize_radar(spec_, ground_, params.device_radar(), params.sweeps(), inputs_.points(), data_[kRadarGrid].get(),
                 type(kRadarGrid), &counts_->radar, radar_work_.get(), stream);
  mark(kRadar, true, stream);
  mark(kWarp, false, stream);
  if (data_[kHistory])
    warp_past(spec_.grid, params.device_past(), spec_.history.frames, past_.get(), spec_.history.channels,
              data_[kHistory].get(), type(kHistory), stream);
  mark(kWarp, true, stream);
}

// Enqueues one frame. No argument here depends on the frame parameters' values, so that a graph of it can be replayed.
void CudaLoop::enqueue(bool any_image) {
  inputs_.params().copy_to_device(main_.get());
  check(cudaEventRecord(fork_.get(), main_.get()), "cudaEventRecord");
  check(cudaStreamWaitEvent(side_.get(), fork_.get(), 0), "cudaStreamWaitEvent");
  enqueue_radars();  // first, as an engine on the CPU blocks in enqueue_cameras
  check(cudaEventRecord(join_.get(), side_.get()), "cudaEventRecord");
  enqueue_cameras(any_image);
  check(cudaStreamWaitEvent(main_.get(), join_.get(), 0), "cudaStreamWaitEvent");
  mark(kBev, false, main_.get());
  run_engine(*bev_);
  mark(kBev, true, main_.get());
  if (data_[kFused])
    store_map(data_[kFused].get(), table_[kFused].size(), type(kFused), inputs_.params().device_store(), past_.get(),
              &counts_->map_invalid, main_.get());
  mark(kDecode, false, main_.get());
  decode(spec_, ground_, data_[kHeatmap].get(), data_[kBox].get(), type(kBox), boxes_.get(), &counts_->decode,
         decode_work_.get(), main_.get());
  check(cudaMemcpyAsync(counted_.get(), counts_.get(), sizeof(Counts), cudaMemcpyDeviceToHost, main_.get()),
        "cudaMemcpyAsync", "counts");
  for (int i = 0; i < kBuffers; ++i)
    if (maps_[i] && maps_[i] != data_[i])
      check(cudaMemcpyAsync(maps_[i].get(), data_[i].get(), bytes(i), cudaMemcpyDeviceToHost, main_.get()),
            "cudaMemcpyAsync", table_[i].name);
  mark(kDecode, true, main_.get());
}

// Captures the graph; where an engine cannot be captured, later frames are enqueued without a graph.
void CudaLoop::capture() {
  cudaGraph_t captured = nullptr;
  check(cudaStreamBeginCapture(main_.get(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  std::string why_not;
  try {
    enqueue(true);
  } catch (const Error& error) {
    why_not = error.problem();
  } catch (...) {  // no memory, or an engine's own exception: the capture ends, the caller decides
    cudaStreamEndCapture(main_.get(), &captured);
    const OwnGraph discarded(captured);
    cudaGetLastError();
    throw;
  }
  cudaError_t status = cudaStreamEndCapture(main_.get(), &captured);
  const OwnGraph graph(captured);
  cudaGraphExec_t exec = nullptr;
  if (why_not.empty() && status == cudaSuccess) status = cudaGraphInstantiate(&exec, captured, 0);
  graph_.reset(exec);
  if (why_not.empty() && status == cudaSuccess) return;
  why_not_replayed_ = "the capture failed: " + (why_not.empty() ? cudaGetErrorString(status) : why_not);
  cudaGetLastError();  // clear it: it is handled
}

void CudaLoop::infer(const Frame& frame, Result& result) {
  if (inputs_.put(frame, ground_, main_.get())) graph_.reset();
  tables_.update_lift(spec_, frame.T_ref_ego, lift_table_work_.get(), main_.get());
  if (why_not_replayed_.empty() && warm_ && !graph_) capture();  // TensorRT requires one run before capture
  result.replayed = graph_ != nullptr;
  if (graph_)
    check(cudaGraphLaunch(graph_.get(), main_.get()), "cudaGraphLaunch");
  else
    enqueue(frame.any_image());
  check(cudaStreamSynchronize(main_.get()), "cudaStreamSynchronize");
  warm_ = warm_ || frame.any_image();
  awaited_ = false;
  read(frame, result);
}

void CudaLoop::read(const Frame& frame, Result& result) {
  result.detections.assign(boxes_.get(), boxes_.get() + counted_->decode.boxes);
  result.health.boxes_invalid = counted_->decode.dropped;
  result.health.maps_invalid = counted_->map_invalid > 0;
  set_counts(counted_->radar, result.health);
  std::array<const float*, kBuffers> maps{};
  for (int i = 0; i < kBuffers; ++i) {
    if (!floats_[i].empty()) widen(i, maps_[i].get(), floats_[i]);
    maps[i] = floats_[i].empty() ? static_cast<const float*>(maps_[i].get()) : floats_[i].data();
  }
  read_maps(maps, frame.blind, result);
  for (std::size_t stage = 0; 2 * stage < marks_.size(); ++stage) {
    float ms = 0;
    check(cudaEventElapsedTime(&ms, marks_[2 * stage].get(), marks_[2 * stage + 1].get()), "cudaEventElapsedTime");
    result.timings_us[stage] += ms * 1000;
  }
}

void CudaLoop::run(const Frame& frame, Result& result) {
  if (!dead_.empty())
    throw Error(Code::device_failed, "CUDA refuses every call after: " + dead_, "device \"cuda\"",
                "restart this process: CUDA does not recover from such a fault within it");
  try {
    const DeviceScope scope(device_);
    infer(frame, result);
  } catch (const Error& error) {
    mark_dead_on_sticky_error(error);
    graph_.reset();  // put may have changed its addresses
    throw;
  } catch (...) {  // no memory
    graph_.reset();
    throw;
  }
}

// After a fault in a kernel every CUDA call of the process fails; after other errors the next frame may succeed.
void CudaLoop::mark_dead_on_sticky_error(const Error& error) {
  if (!wait_for_all()) dead_ = error.problem();
}

bool CudaLoop::wait_for_all() try {
  const DeviceScope scope(device_);
  cudaGetLastError();  // clear it: it is handled
  const cudaError_t main = cudaStreamSynchronize(main_.get());
  const cudaError_t side = cudaStreamSynchronize(side_.get());
  return main == cudaSuccess && side == cudaSuccess;
} catch (const Error&) {  // CUDA refuses even the device's number
  return false;
}

// Converts an engine's tensor to float32 in the table's order of axes; out has the tensor's size.
void CudaLoop::widen(int buffer, const void* data, std::vector<float>& out) const {
  const std::vector<std::int64_t>& shape = table_[buffer].shape;  // (N,C,H,W)
  const bool half = tensors_[buffer].type == Type::float16;
  const bool channels_last = buffer == kContext && layout_ == Layout::channels_last;
  const auto channels = static_cast<std::size_t>(shape[1]);
  const auto plane = static_cast<std::size_t>(shape[2] * shape[3]);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::size_t at =
        channels_last ? (i / plane / channels * plane + i % plane) * channels + i / plane % channels : i;
    out[i] = half ? float_of_half(static_cast<const std::uint16_t*>(data)[at]) : static_cast<const float*>(data)[at];
  }
}

std::vector<Detector::Tensor> CudaLoop::tensors() {
  const DeviceScope scope(device_);
  std::vector<Detector::Tensor> tensors;
  copies_.resize(kBuffers);
  std::vector<unsigned char> copy;
  for (int i = 0; i < kBuffers; ++i) {
    if (!data_[i]) continue;
    copy.resize(bytes(i));
    copies_[i].resize(table_[i].size());
    check(cudaMemcpyAsync(copy.data(), data_[i].get(), copy.size(), cudaMemcpyDeviceToHost, main_.get()),
          "cudaMemcpyAsync", table_[i].name);
    check(cudaStreamSynchronize(main_.get()), "cudaStreamSynchronize", "tensors");
    widen(i, copy.data(), copies_[i]);
    tensors.push_back({table_[i].name, copies_[i].data(), table_[i].shape});
  }
  return tensors;
}

}  // namespace
}  // namespace cuda

int require_cuda() {
  cuda::require_device();
  return cuda::Origin().device();
}

std::unique_ptr<FrameLoop> make_cuda_loop(const ModelSpec& spec, std::shared_ptr<Engine> camera,
                                          std::shared_ptr<Engine> bev, const DetectorOptions& options) {
  require_cuda();
  return std::make_unique<cuda::CudaLoop>(spec, std::move(camera), std::move(bev), options);
}

}  // namespace imkd
