// The frame loop on the CPU: the reference ops on a thread pool.
#include <algorithm>
#include <cstring>

#include "frame_loop.hpp"
#include "imkd/error.hpp"
#include "imkd/thread_pool.hpp"

namespace imkd {
namespace {

bool all_finite(const float* values, std::size_t count) {
  constexpr std::uint32_t kExponent = 0x7f800000;  // all ones: infinite or NaN. Integers, as compilers vectorise them
  std::uint32_t bad = 0;
  for (std::size_t i = 0; i < count; ++i) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, values + i, sizeof bits);
    bad |= (bits & kExponent) == kExponent;
  }
  return bad == 0;
}

class CpuLoop : public FrameLoop {
 public:
  CpuLoop(const ModelSpec& spec, std::shared_ptr<Engine> camera, std::shared_ptr<Engine> bev,
          const DetectorOptions& options)
      : FrameLoop(spec, std::move(camera), std::move(bev), options), pool_(options.threads) {
    for (int i = 0; i < kBuffers; ++i) {
      if (table_[i].need != Need::always) continue;
      require_float32(i);
      data_[i] = allocate(table_[i].size());
      engine_of(i).bind(table_[i].name, data_[i]);
    }
    const auto blocks = [](std::size_t bytes) { return bytes / sizeof(std::max_align_t) + 1; };
    lift_scratch_.resize(lift_workspace(spec_));
    radar_scratch_.resize(blocks(radar_workspace(spec_)));
    decode_scratch_.resize(blocks(decode_workspace(spec_)));
    if (data_[kFused])
      maps_.reset(new float[static_cast<std::size_t>(History::capacity(spec_.history)) * table_[kFused].size()]());
  }

  const char* device() const override { return "cpu"; }

  void set_rig(const SensorRig& rig, const std::vector<ImageCrop>& crops) override {
    LiftTable next_table = imkd::lift_table(spec_, rig, crops.data());
    std::vector<ImageCrop> next_crops = crops;
    // Nothing below throws.
    lift_table_ = std::move(next_table);
    crops_ = std::move(next_crops);
    ground_ = ground_of(spec_, rig);
  }

  void run(const Frame& frame, Result& result) override {
    Stopwatch watch;
    run_cameras(frame, result, watch);
    run_radars(frame, result, watch);
    if (data_[kHistory]) fill_history(frame, result, watch);
    bev_->run();
    result.timings_us[kBev] += watch.lap();
    if (frame.store_map >= 0) store_map(frame.store_map, result, watch);
    result.health.boxes_invalid =
        decode(spec_, ground_, at(kHeatmap), at(kBox), result.detections, decode_scratch_.data(), pool_);
    std::array<const float*, kBuffers> views{};
    for (int i = 0; i < kBuffers; ++i) views[i] = at(i);
    read_maps(views, frame.blind, result);
    result.timings_us[kDecode] += watch.lap();
  }

  std::vector<Detector::Tensor> tensors() override {
    std::vector<Detector::Tensor> tensors;
    for (int i = 0; i < kBuffers; ++i)
      if (data_[i]) tensors.push_back({table_[i].name, at(i), table_[i].shape});
    return tensors;
  }

 private:
  float* at(int buffer) const { return static_cast<float*>(data_[buffer].get()); }

  void require_float32(int buffer) const {
    const TensorInfo& tensor = tensors_[buffer];
    if (tensor.type == Type::float32 && tensor.shape == table_[buffer].shape) return;
    throw Error(Code::bundle_tensor_mismatch,
                "\"" + tensor.name + "\" is " + name_of(tensor.type) +
                    (tensor.shape == table_[buffer].shape ? "" : ", channels last"),
                "device \"cpu\"", "use device \"cuda\", or an engine with float32 tensors in the ONNX part's shapes");
  }

  float* map(int index) const { return maps_.get() + static_cast<std::size_t>(index) * table_[kFused].size(); }

  // images -> camera_bev; an absent camera adds nothing.
  void run_cameras(const Frame& frame, Result& result, Stopwatch& watch) {
    const int count = static_cast<int>(frame.images.size());
    const bool any = frame.any_image();
    preprocess_images(frame.images.data(), crops_.data(), count, spec_.image, at(kImages), pool_);
    result.timings_us[kPreprocess] += watch.lap();
    if (any) camera_->run();
    for (Buffer buffer : {kDepth, kContext}) {
      const std::size_t block = table_[buffer].size() / frame.images.size();
      for (std::size_t i = 0; i < frame.images.size(); ++i)
        if (!frame.images[i].data) std::memset(at(buffer) + i * block, 0, block * sizeof(float));
    }
    result.timings_us[kCamera] += watch.lap();
    float* out = at(kCameraBev);
    if (any)
      lift(spec_, lift_table_, at(kDepth), at(kContext), out, lift_scratch_.data(), pool_);
    else
      std::memset(out, 0, table_[kCameraBev].size() * sizeof(float));
    result.timings_us[kLift] += watch.lap();
  }

  void run_radars(const Frame& frame, Result& result, Stopwatch& watch) {
    const RadarStats stats = voxelize_radar(spec_, ground_, frame.sweeps.data(), frame.sweep_count, at(kRadarGrid),
                                            radar_scratch_.data(), pool_);
    set_counts(stats, result.health);
    result.timings_us[kRadar] += watch.lap();
  }

  // Warps the past fused maps into the present frame.
  void fill_history(const Frame& frame, Result& result, Stopwatch& watch) {
    float* out = at(kHistory);
    for (const PastFrame& past : frame.past) {
      if (past.map >= 0)
        warp_bev(spec_.grid, ground_, map(past.map), spec_.history.channels, past.T_then_now, out, pool_);
      else
        std::fill_n(out, table_[kFused].size(), 0.f);
      out += table_[kFused].size();
    }
    result.timings_us[kWarp] += watch.lap();
  }

  void store_map(int index, Result& result, Stopwatch& watch) {
    const float* fused = at(kFused);
    const std::size_t size = table_[kFused].size();
    if (all_finite(fused, size))
      std::memcpy(map(index), fused, size * sizeof(float));
    else
      result.health.maps_invalid = 1;
    result.timings_us[kWarp] += watch.lap();
  }

  ThreadPool pool_;
  std::unique_ptr<float[]> maps_;  // stored fused maps of past frames
  std::vector<float> lift_scratch_;
  std::vector<std::max_align_t> radar_scratch_, decode_scratch_;
  std::vector<ImageCrop> crops_;  // by camera of the model
  LiftTable lift_table_;
};

}  // namespace

std::unique_ptr<FrameLoop> make_cpu_loop(const ModelSpec& spec, std::shared_ptr<Engine> camera,
                                         std::shared_ptr<Engine> bev, const DetectorOptions& options) {
  return std::make_unique<CpuLoop>(spec, std::move(camera), std::move(bev), options);
}

}  // namespace imkd
