// The Detector on device "cuda" against the Detector on the CPU: the same boxes and tensors within the last bit of
// float32, in every order of work that streams and graphs allow; and the error of every failing call.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "contract_cases.hpp"
#include "cuda_host.hpp"
#include "fake_cuda.hpp"
#include "fakes.hpp"
#include "imkd/ops.hpp"

using namespace imkd;
using namespace imkd::fakes;
using fake::cuda;

namespace {

// FakeEngine's functions of the inputs, enqueued in the stream as TensorRT enqueues its work.
class DeviceEngine : public FakeEngine {
 public:
  explicit DeviceEngine(const FakeEngine& engine) : FakeEngine(engine) {}
  bool on_device() const override { return true; }
  void run(void* stream) override {
    ++runs;
    fake::put(static_cast<cudaStream_t>(stream), [this] { body_(*this); });
  }
};

// The same functions of float16 tensors, the context with channels last, as build-engine makes them.
class HalfEngine : public FakeEngine {
 public:
  HalfEngine(const FakeEngine& engine, bool on_device) : FakeEngine(engine), plain_(engine), on_device_(on_device) {
    for (Tensors* tensors : {&inputs_, &outputs_})
      for (TensorInfo& info : *tensors) {
        info.type = Type::float16;
        if (info.name == "context") std::rotate(info.shape.begin() + 1, info.shape.begin() + 2, info.shape.end());
      }
  }
  bool on_device() const override { return on_device_; }
  void bind(const std::string& tensor, std::shared_ptr<void> data) override {
    FakeEngine::bind(tensor, data);
    plain_.bind(tensor, std::shared_ptr<float>(new float[size(tensor.c_str())], std::default_delete<float[]>()));
  }
  void run(void* stream) override {
    ++runs;
    if (!on_device_) return work();
    fake::put(static_cast<cudaStream_t>(stream), [this] { work(); });
  }

 private:
  void work() {
    for (const TensorInfo& in : inputs_)
      for (std::size_t i = 0; i < size(in.name.c_str()); ++i)
        plain_.data(in.name.c_str())[i] = __half2float(half(in)[i]);
    body_(plain_);
    for (const TensorInfo& out : outputs_) {
      if (!bound.count(out.name)) continue;
      const bool last = out.name == "context";
      const auto channels = static_cast<std::size_t>(out.shape[last ? 3 : 1]),
                 plane = size(out.name.c_str()) / 2 / channels;
      for (std::size_t i = 0; i < size(out.name.c_str()); ++i) {
        const std::size_t image = i / (plane * channels), c = i / plane % channels, pixel = i % plane;
        half(out)[last ? (image * plane + pixel) * channels + c : i] =
            __float2half_rn(plain_.data(out.name.c_str())[i]);
      }
    }
  }
  __half* half(const TensorInfo& info) { return static_cast<__half*>(bound.at(info.name).get()); }

  FakeEngine plain_;
  bool on_device_;
};

// A HalfEngine's computation in float32: the reference on the CPU.
class RoundingEngine : public FakeEngine {
 public:
  explicit RoundingEngine(const FakeEngine& engine) : FakeEngine(engine) {}
  void run(void*) override {
    round(inputs_);
    body_(*this);
    round(outputs_);
  }

 private:
  void round(const Tensors& tensors) {
    for (const TensorInfo& info : tensors)
      for (std::size_t i = 0; bound.count(info.name) && i < size(info.name.c_str()); ++i)
        data(info.name.c_str())[i] = __half2float(__float2half_rn(data(info.name.c_str())[i]));
  }
};

struct Engines {
  std::shared_ptr<FakeEngine> camera, bev;
};

using Body = void (*)(FakeEngine&);

Engines engines(bool on_device, bool with_maps, bool half = false, Body bev = run_bev_with_maps) {
  Engines e{camera_engine(), with_maps ? bev_engine_with_maps(bev) : bev_engine()};
  if (half)
    return {std::make_shared<HalfEngine>(*e.camera, on_device), std::make_shared<HalfEngine>(*e.bev, on_device)};
  if (!on_device) return e;
  return {std::make_shared<DeviceEngine>(*e.camera), std::make_shared<DeviceEngine>(*e.bev)};
}

Engines reference(bool with_maps, bool half, Body bev = run_bev_with_maps) {
  const Engines e = engines(false, with_maps, false, bev);
  return half ? Engines{std::make_shared<RoundingEngine>(*e.camera), std::make_shared<RoundingEngine>(*e.bev)} : e;
}

Detector detector(const char* device, const Engines& e, bool with_maps, bool stage_times = false) {
  DetectorOptions options;
  options.device = device;
  options.threads = 1;
  options.debug = with_maps;
  options.stage_times = stage_times;
  ModelSpec spec = with_maps ? history_spec() : small_spec();
  spec.radar.max_points = 600;
  return Detector(spec, small_rig(), e.camera, e.bev, options);
}

// A drive with every sensor fault; frame i is the same in each call.
Moment frame(int i, bool drives) {
  const SensorRig rig = small_rig();
  Moment m = moment(rig, static_cast<unsigned>(i) + 1, i == 9 ? 2000 : 100 + 10 * i);
  m.frames.timestamp_ns += i * 500'000'000LL;
  for (RadarSweep& sweep : m.frames.sweeps) sweep.timestamp_ns = m.frames.timestamp_ns;
  if (drives) {
    m.frames.ego.T_world_ego = identity4();
    (*m.frames.ego.T_world_ego)[3] = 1.5 * i;
    m.frames.ego.twist = Vec3{20, 0, 0.5};  // the exposures move from frame to frame
    m.frames.camera_timestamps_ns = {m.frames.timestamp_ns - i % 4 * 20'000'000LL, m.frames.timestamp_ns - 15'000'000};
  }
  if (i == 3 || i == 6) m.frames.cameras[0].data = nullptr;
  if (i == 6) m.frames.cameras[1].data = nullptr;
  if (i == 4) m.frames.sweeps.clear();
  if (i == 5) std::swap(m.frames.sweeps[0], m.frames.sweeps[1]);
  if (i == 7)  // more sweeps than the capacity
    for (int k = 0; k < 36; ++k)
      m.frames.sweeps.push_back({k % 2, m.frames.timestamp_ns - k * 1'000'000, m.points[0].data(), 3, {}});
  if (i == 8) m.frames.cameras[0].data = nullptr, m.frames.cameras[1].data = nullptr, m.frames.sweeps.clear();
  if (i == 2) {  // BGR, upside down
    ImageView& image = m.frames.cameras[0];
    image.data += (image.height - 1) * image.row_stride + 2, image.row_stride = -image.row_stride,
                                                             image.channel_stride = -1;
  }
  return m;
}
constexpr int kFrames = 12;

// float16: a difference in the last bit of float32 may become one in the last bit of float16.
float relative = 2e-6f;
bool near(float a, float b) { return a == b || std::abs(a - b) <= relative * std::max(std::abs(a), std::abs(b)); }

void expect_same(const Result& actual, const Result& expected) {
  ASSERT_EQ(actual.detections.size(), expected.detections.size());
  for (std::size_t i = 0; i < expected.detections.size(); ++i) {
    const Detection &a = actual.detections[i], &b = expected.detections[i];
    EXPECT_EQ(a.label, b.label);
    for (auto field : {&Detection::x, &Detection::y, &Detection::z, &Detection::length, &Detection::width,
                       &Detection::height, &Detection::yaw, &Detection::vx, &Detection::vy, &Detection::score})
      EXPECT_TRUE(near(a.*field, b.*field)) << a.*field << " and " << b.*field;
  }
  const Health &h = actual.health, &w = expected.health;
  EXPECT_EQ(h.mode, w.mode);
  EXPECT_EQ(h.cameras, w.cameras);
  EXPECT_EQ(h.radars, w.radars);
  EXPECT_EQ(h.radar_points, w.radar_points);
  EXPECT_EQ(h.radar_points_outside, w.radar_points_outside);
  EXPECT_EQ(h.radar_points_invalid, w.radar_points_invalid);
  EXPECT_EQ(h.radar_points_overflow, w.radar_points_overflow);
  EXPECT_EQ(h.boxes_invalid, w.boxes_invalid);
  EXPECT_EQ(h.past_frames, w.past_frames);
  EXPECT_EQ(h.maps_invalid, w.maps_invalid);
  ASSERT_EQ(actual.debug.size(), expected.debug.size());
  std::vector<std::pair<MapView, MapView>> maps{{actual.segmentation, expected.segmentation}};
  for (std::size_t i = 0; i < expected.debug.size(); ++i) maps.emplace_back(actual.debug[i], expected.debug[i]);
  for (const auto& [a, b] : maps) {
    ASSERT_EQ(a.data == nullptr, b.data == nullptr);
    for (int i = 0; i < b.rows * b.columns; ++i) ASSERT_TRUE(near(a.data[i], b.data[i])) << b.name;
  }
}

void expect_same_tensors(const Detector& actual, const Detector& expected) {
  const auto a = actual.tensors(), b = expected.tensors();
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t t = 0; t < b.size(); ++t) {
    std::size_t size = 1;
    for (auto extent : b[t].shape) size *= static_cast<std::size_t>(extent);
    for (std::size_t i = 0; i < size; ++i) ASSERT_TRUE(near(a[t].data[i], b[t].data[i])) << b[t].name << " at " << i;
  }
}

struct Setting {
  bool on_device, with_maps;
  unsigned order;
  int integrated;
  bool half = false;
};
void PrintTo(const Setting& s, std::ostream* out) {
  *out << (s.on_device ? "engines on the device" : "engines on the CPU") << (s.half ? ", float16" : "")
       << (s.with_maps ? ", history" : "") << ", order " << s.order << (s.integrated ? ", integrated" : "");
}

class CudaLoop : public testing::TestWithParam<Setting> {
 protected:
  void SetUp() override {
    cuda() = {};
    cuda().order = GetParam().order;
    cuda().integrated = GetParam().integrated;
    cuda().guard = true;
    relative = GetParam().half ? 1e-3f : 2e-6f;
  }
  void TearDown() override {
    relative = 2e-6f;
    EXPECT_EQ(cuda().alive, 0) << "something outlives the detector";
    EXPECT_EQ(cuda().default_stream, 0);
  }
};

TEST_P(CudaLoop, gives_what_the_cpu_gives_and_replays_one_graph) {
  const Setting s = GetParam();
  {
    Detector on_cpu = detector("cpu", reference(s.with_maps, s.half), s.with_maps);
    Detector on_cuda = detector("cuda", engines(s.on_device, s.with_maps, s.half), s.with_maps);
    EXPECT_EQ(on_cuda.device(), "cuda");
    for (int i = 0; i < kFrames; ++i) {
      SCOPED_TRACE("frame " + std::to_string(i));
      Moment m = frame(i, s.with_maps);
      const Result& expected = on_cpu.infer(m.frames);
      for (auto& pixels : m.pixels) fake::hide(pixels.data(), pixels.size());
      for (auto& points : m.points) fake::hide(points.data(), points.size() * sizeof(float));
      expect_same(on_cuda.infer(m.frames), expected);
      fake::forget_hidden();
      EXPECT_EQ(cuda().pageable, 1) << "lift_table's depths alone";
      if (HasFatalFailure()) return;
      if (i % 3 == 0) expect_same_tensors(on_cuda, on_cpu);
      cuda().pageable = 1;  // tensors() may
    }
    EXPECT_EQ(cuda().graph_launches, s.on_device ? kFrames - 1 : 0);
    EXPECT_EQ(std::count(cuda().calls.begin(), cuda().calls.end(), "cudaGraphInstantiate"), s.on_device ? 3 : 0)
        << "the first, and two frames with more sweeps or points than the capacity";
  }
}

TEST_P(CudaLoop, a_rig_with_fewer_cameras_gives_what_the_cpu_gives) {
  const Setting s = GetParam();
  Detector on_cpu = detector("cpu", reference(s.with_maps, s.half), s.with_maps);
  Detector on_cuda = detector("cuda", engines(s.on_device, s.with_maps, s.half), s.with_maps);
  for (std::size_t cameras : {2u, 1u, 0u, 2u}) {
    SCOPED_TRACE(std::to_string(cameras) + " cameras");
    SensorRig rig = small_rig();
    rig.cameras.resize(cameras);
    Moment m = moment(rig, 5);
    on_cpu.set_rig(rig);
    on_cuda.set_rig(rig);
    for (int repeat = 0; repeat < 2; ++repeat) expect_same(on_cuda.infer(m.frames), on_cpu.infer(m.frames));
    expect_same_tensors(on_cuda, on_cpu);
  }
}

class CudaLoopWithHistory : public CudaLoop {};

TEST_P(CudaLoopWithHistory, a_fused_map_that_is_not_finite_is_not_kept) {
  const Setting s = GetParam();
  struct Drive {
    std::vector<int> invalid, past;
    bool finite = true;
  };
  const auto run = [&](Detector d) {
    Drive drive;
    nan_countdown = 2;  // the second frame
    for (int i = 0; i < 6; ++i) {
      Moment m = moment(small_rig(), 7 + static_cast<unsigned>(i));
      m.frames.timestamp_ns += i * 500'000'000LL;
      for (RadarSweep& sweep : m.frames.sweeps) sweep.timestamp_ns = m.frames.timestamp_ns;
      m.frames.ego.twist = Vec3{1, 0, 0};
      const Result& r = d.infer(m.frames);
      drive.invalid.push_back(r.health.maps_invalid);
      drive.past.push_back(r.health.past_frames);
      for (const auto& t : d.tensors())
        if (std::string(t.name) == "history")
          drive.finite &= std::all_of(t.data, t.data + 6 * 256, [](float v) { return std::isfinite(v); });
    }
    return drive;
  };
  for (const char* device : {"cpu", "cuda"}) {
    const bool on_cpu = std::string(device) == "cpu";
    const Drive drive = run(detector(
        device,
        on_cpu ? reference(true, s.half, run_bev_with_a_nan) : engines(s.on_device, true, s.half, run_bev_with_a_nan),
        true));
    EXPECT_EQ(drive.invalid, (std::vector<int>{0, 1, 0, 0, 0, 0})) << device;
    EXPECT_EQ(drive.past, (std::vector<int>{0, 1, 1, 1, 2, 2})) << device;
    EXPECT_TRUE(drive.finite) << device;
  }
}

TEST_P(CudaLoop, follows_the_rig) {
  const Setting s = GetParam();
  Detector on_cpu = detector("cpu", reference(s.with_maps, s.half), s.with_maps);
  Detector on_cuda = detector("cuda", engines(s.on_device, s.with_maps, s.half), s.with_maps);
  SensorRig rig = small_rig();
  for (int i = 0; i < 6; ++i) {
    if (i == 3) {
      rig.cameras[0].width = 64;
      rig.cameras[0].height = 50;
      rig.cameras[1].T_ego_camera[3] += 1;
      rig.radars.push_back(rig.radars[0]), rig.radars.back().name = "R_THIRD";
      on_cpu.set_rig(rig), on_cuda.set_rig(rig);
    }
    Moment m = moment(rig, static_cast<unsigned>(i) + 1, 50);
    m.frames.timestamp_ns += i * 500'000'000LL;
    for (RadarSweep& sweep : m.frames.sweeps) sweep.timestamp_ns = m.frames.timestamp_ns;
    const Result& expected = on_cpu.infer(m.frames);
    ASSERT_GT(expected.detections.size(), 3u);
    expect_same(on_cuda.infer(m.frames), expected);
    expect_same_tensors(on_cuda, on_cpu);
  }
  EXPECT_EQ(cuda().graph_launches, s.on_device ? 5 : 0);
  EXPECT_EQ(std::count(cuda().calls.begin(), cuda().calls.end(), "cudaGraphInstantiate"), s.on_device ? 2 : 0)
      << "one for each rig";
}

TEST_P(CudaLoop, once_warm_allocates_nothing_and_makes_few_calls) {
  const Setting s = GetParam();
  Detector d = detector("cuda", engines(s.on_device, s.with_maps, s.half), s.with_maps);
  for (int i = 0; i < 2; ++i) d.infer(frame(i, s.with_maps).frames);
  const std::size_t before = cuda().calls.size();
  d.infer(frame(2, s.with_maps).frames);
  const std::vector<std::string> calls(cuda().calls.begin() + static_cast<long>(before), cuda().calls.end());
  for (const char* call : {"cudaMalloc", "cudaHostAlloc", "cudaFree", "cudaFreeHost", "cudaStreamCreateWithFlags",
                           "cudaEventCreateWithFlags"})
    EXPECT_EQ(std::count(calls.begin(), calls.end(), call), 0) << call;
  EXPECT_EQ(std::count(calls.begin(), calls.end(), "cudaStreamSynchronize"), s.on_device ? 1 : 3);
  EXPECT_EQ(std::count(calls.begin(), calls.end(), "cudaGraphLaunch"), s.on_device ? 1 : 0);
  if (s.on_device) {
    const int lift_table = s.with_maps ? 2 + 3 : 0;  // the vehicle drives: a kernel per camera, scan, group and order
    EXPECT_EQ(std::count(calls.begin(), calls.end(), "cudaGetLastError"), lift_table)
        << "another kernel is launched outside the graph";
  }
}

TEST_P(CudaLoop, images_that_the_device_reaches_are_not_copied) {
  const Setting s = GetParam();
  Detector on_cpu = detector("cpu", reference(s.with_maps, s.half), s.with_maps);
  Detector on_cuda = detector("cuda", engines(s.on_device, s.with_maps, s.half), s.with_maps);
  Moment m = frame(1, s.with_maps);
  const Result& expected = on_cpu.infer(m.frames);
  std::vector<void*> pinned;
  for (std::size_t i = 0; i < 2; ++i) {
    void* memory = nullptr;
    ASSERT_EQ(cudaHostAlloc(&memory, m.pixels[i].size(), cudaHostAllocMapped), cudaSuccess);
    std::memcpy(memory, m.pixels[i].data(), m.pixels[i].size());
    m.frames.cameras[i].data = static_cast<const std::uint8_t*>(memory);
    pinned.push_back(memory);
  }
  const auto copies = [] { return std::count(cuda().calls.begin(), cuda().calls.end(), "cudaMemcpyAsync"); };
  const auto before = copies();
  expect_same(on_cuda.infer(m.frames), expected);
  EXPECT_EQ(copies() - before, 2 + (s.with_maps && s.on_device ? 3 : 0))
      << "the frame parameters, the counts, the maps for the host";
  for (void* memory : pinned) cudaFreeHost(memory);
}

INSTANTIATE_TEST_SUITE_P(settings, CudaLoop,
                         testing::Values(Setting{false, false, 0, 0}, Setting{false, true, 1, 1},
                                         Setting{true, false, 0, 1}, Setting{true, false, 1, 0},
                                         Setting{true, true, 0, 0}, Setting{true, true, 1, 1},
                                         Setting{true, true, 2, 0}, Setting{true, true, 3, 1},
                                         Setting{false, true, 7, 0}, Setting{false, false, 0, 0, true},
                                         Setting{false, true, 1, 1, true}, Setting{true, false, 0, 1, true},
                                         Setting{true, false, 1, 0, true}, Setting{true, true, 0, 0, true},
                                         Setting{true, true, 1, 1, true}, Setting{true, true, 2, 0, true},
                                         Setting{true, true, 3, 1, true}, Setting{false, true, 7, 0, true}));

INSTANTIATE_TEST_SUITE_P(settings, CudaLoopWithHistory,
                         testing::Values(Setting{false, true, 1, 1}, Setting{true, true, 0, 0},
                                         Setting{true, true, 1, 1}, Setting{true, true, 2, 0},
                                         Setting{true, true, 3, 1}, Setting{false, true, 7, 0},
                                         Setting{false, true, 1, 1, true}, Setting{true, true, 0, 0, true},
                                         Setting{true, true, 1, 1, true}, Setting{true, true, 2, 0, true},
                                         Setting{true, true, 3, 1, true}, Setting{false, true, 7, 0, true}));

class FreshCuda : public testing::Test {
 protected:
  void SetUp() override { cuda() = {}; }
  void TearDown() override { EXPECT_EQ(cuda().alive, 0) << "something outlives the detector"; }
};
class CudaTypes : public FreshCuda {};
class CudaFaults : public FreshCuda {};
class CudaContract : public FreshCuda {};

TEST_F(CudaTypes, float16_is_within_its_error_of_float32_and_bit_identical_in_any_order) {
  Detector on_cpu = detector("cpu", engines(false, true), true);
  std::vector<std::vector<float>> first;
  for (unsigned order = 0; order < 4; ++order) {
    cuda().order = order;
    Detector d = detector("cuda", engines(true, true, true), true);
    for (int i = 0; i < 3; ++i) d.infer(frame(i, true).frames);
    const auto actual = d.tensors();
    std::vector<std::vector<float>> values;
    for (const auto& t : actual) {
      std::size_t size = 1;
      for (auto extent : t.shape) size *= static_cast<std::size_t>(extent);
      values.emplace_back(t.data, t.data + size);
    }
    if (order == 0) {
      first = values;
      for (int i = 0; i < 3; ++i) on_cpu.infer(frame(i, true).frames);
      const auto expected = on_cpu.tensors();
      ASSERT_EQ(actual.size(), expected.size());
      for (std::size_t t = 0; t < expected.size(); ++t) {
        EXPECT_EQ(actual[t].shape, expected[t].shape);
        double error = 0, power = 0;
        for (std::size_t i = 0; i < first[t].size(); ++i) {
          const double difference = static_cast<double>(first[t][i]) - expected[t].data[i];
          error += difference * difference;
          power += static_cast<double>(expected[t].data[i]) * expected[t].data[i];
        }
        EXPECT_GT(power, 0) << expected[t].name;
        EXPECT_LE(error, 1e-5 * power) << expected[t].name;
      }
    }
    for (std::size_t t = 0; t < values.size(); ++t)
      EXPECT_EQ(std::memcmp(values[t].data(), first[t].data(), first[t].size() * sizeof(float)), 0)
          << actual[t].name << ", order " << order;
  }
}

TEST_F(CudaTypes, parts_may_differ_in_type) {
  for (bool half_camera : {false, true}) {
    const Engines plain = engines(true, true), half = engines(true, true, true);
    Detector d = detector("cuda", {half_camera ? half.camera : plain.camera, half_camera ? plain.bev : half.bev}, true);
    const Engines whole = reference(true, false), rounded = reference(true, true);
    Detector on_cpu =
        detector("cpu", {half_camera ? rounded.camera : whole.camera, half_camera ? whole.bev : rounded.bev}, true);
    relative = 1e-3f;
    for (int i = 0; i < 4; ++i) {
      const Moment m = frame(i, true);
      const Result& expected = on_cpu.infer(m.frames);
      expect_same(d.infer(m.frames), expected);
      expect_same_tensors(d, on_cpu);
    }
    relative = 2e-6f;
  }
}

class Retyped : public DeviceEngine {
 public:
  Retyped(const FakeEngine& engine, const std::string& tensor, Type type) : DeviceEngine(engine) {
    for (Tensors* tensors : {&inputs_, &outputs_})
      for (TensorInfo& info : *tensors)
        if (info.name == tensor) info.type = type;
  }
};

TEST_F(CudaTypes, what_no_kernel_reads_is_refused_by_name) {
  const auto refused = [](const char* tensor, Type type, const char* device = "cuda") {
    const Engines e{std::make_shared<Retyped>(*camera_engine(), tensor, type),
                    std::make_shared<Retyped>(*bev_engine_with_maps(), tensor, type)};
    try {
      detector(device, e, true);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::bundle_tensor_mismatch);
      return error.problem();
    }
    return std::string("taken");
  };
  EXPECT_EQ(refused("images", Type::float16), "taken");
  EXPECT_EQ(refused("radar_grid", Type::float16), "taken");
  EXPECT_EQ(refused("segmentation", Type::float16), "taken");
  EXPECT_EQ(refused("images", Type::int8), "\"images\" is int8, must be float32 or float16");
  EXPECT_EQ(refused("depth", Type::float16), "\"depth\" is float16, \"context\" float32");
  EXPECT_EQ(refused("box", Type::float16), "\"heatmap\" is float32, \"box\" float16");
  EXPECT_EQ(refused("history", Type::float16), "\"fused\" is float32, \"history\" float16");
  EXPECT_EQ(refused("images", Type::float16, "cpu"), "\"images\" is float16");
  try {
    detector("cpu", engines(false, true, true), true);
    ADD_FAILURE() << "taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::bundle_tensor_mismatch);
    EXPECT_NE(error.fix().find("cuda"), std::string::npos);
  }
}

// Loads, infers four frames (the second is captured), sets another rig, infers once more; gives the last result's
// number of boxes.
std::size_t drive(bool half, bool stage_times) {
  Detector d = detector("cuda", engines(true, true, half), true, stage_times);
  for (int i = 0; i < 4; ++i) d.infer(frame(i, true).frames);
  SensorRig rig = small_rig();
  rig.cameras[1].T_ego_camera[3] += 1;
  d.set_rig(rig);
  return d.infer(frame(4, true).frames).detections.size();
}

class EveryCudaFault : public CudaFaults, public testing::WithParamInterface<std::tuple<const char*, bool>> {};

TEST_P(EveryCudaFault, is_an_error_and_leaves_nothing) {
  const std::string kind = std::get<0>(GetParam());
  const bool sticky = std::get<1>(GetParam());
  const auto all = [&] { return drive(kind == "float16", kind == "timed"); };
  const std::size_t expected = all();
  const std::vector<std::string> calls = cuda().calls;
  ASSERT_GT(calls.size(), 200u);
  int errors = 0, without_graph = 0;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    SCOPED_TRACE(calls[i] + (sticky ? ", sticky, call " : ", call ") + std::to_string(i));
    cuda() = {};
    cuda().fails_at = static_cast<int>(i);
    cuda().sticky = sticky;
    try {
      EXPECT_EQ(all(), expected);
      // The capture failed, what failed gave something back, or a resource asked on which device it is made and freed.
      if (calls[i] != "cudaGetDevice") ++without_graph;
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == Code::device_failed || error.code() == Code::device_unavailable) << error.what();
      EXPECT_FALSE(error.problem().empty());
      ++errors;
    }
    ASSERT_EQ(cuda().alive, 0) << "leaked";
  }
  EXPECT_GT(errors, 100);
  EXPECT_LT(without_graph, errors);
}

INSTANTIATE_TEST_SUITE_P(drives, EveryCudaFault,
                         testing::Combine(testing::Values("float32", "float16", "timed"), testing::Bool()),
                         [](const auto& info) {
                           return std::get<0>(info.param) + std::string(std::get<1>(info.param) ? "_sticky" : "");
                         });

TEST_F(CudaFaults, a_frame_that_fails_is_followed_by_good_ones_unless_the_device_is_gone) {
  for (bool sticky : {false, true}) {
    cuda() = {};
    Detector on_cpu = detector("cpu", engines(false, true), true), d = detector("cuda", engines(true, true), true);
    for (int i = 0; i < 3; ++i) d.infer(frame(i, true).frames), on_cpu.infer(frame(i, true).frames);
    cuda().fails = "cudaGraphLaunch";
    if (sticky) cuda().fails_at = static_cast<int>(cuda().calls.size()), cuda().sticky = true;
    EXPECT_EQ(code_of([&] { d.infer(frame(3, true).frames); }), Code::device_failed);
    cuda().fails = "";
    on_cpu.infer(frame(5, true).frames);
    if (!sticky) {
      expect_same(d.infer(frame(5, true).frames), on_cpu.infer(frame(5, true).frames));
      continue;
    }
    cuda().dead = false;  // the detector stays refused
    try {
      d.infer(frame(5, true).frames);
      ADD_FAILURE() << "a detector without a device returns a result";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::device_failed);
      EXPECT_NE(error.problem().find("CUDA refuses every call"), std::string::npos) << error.what();
    }
  }
}

TEST_F(CudaFaults, an_engine_that_cannot_be_captured_is_run_without_a_graph) {
  // throws only during a capture, as TensorRT does
  class Refusing : public DeviceEngine {
   public:
    using DeviceEngine::DeviceEngine;
    void run(void* stream) override {
      if (++calls_ == 2) throw Error(Code::engine_run, "this engine cannot be captured");
      DeviceEngine::run(stream);
    }
    int calls_ = 0;
  };
  const auto camera = std::make_shared<Refusing>(*camera_engine());
  const auto bev = std::make_shared<DeviceEngine>(*bev_engine());
  Detector on_cpu = detector("cpu", engines(false, false), false), d = detector("cuda", {camera, bev}, false);
  for (int i = 0; i < 4; ++i) {
    const Moment m = frame(i, false);
    const Result& expected = on_cpu.infer(m.frames);
    expect_same(d.infer(m.frames), expected);
  }
  EXPECT_EQ(cuda().graph_launches, 0);
  EXPECT_EQ(d.why_not_replayed(), "the capture failed: this engine cannot be captured");
}

TEST_F(CudaFaults, a_set_rig_that_fails_at_any_call_leaves_the_former_rig) {
  SensorRig other = small_rig();
  other.cameras[0].T_ego_camera[3] += 1;
  other.radars.push_back(other.radars[0]);  // needs larger frame parameters
  other.radars.back().name = "third";
  Detector on_cpu = detector("cpu", engines(false, false), false);
  const Moment moved = frame(1, true);
  int failed = 0;
  for (int at = 0; failed == at; ++at) {
    SCOPED_TRACE("call " + std::to_string(at));
    cuda() = {};
    Detector d = detector("cuda", engines(true, false), false);
    for (int i = 0; i < 3; ++i) d.infer(frame(i, false).frames);
    cuda().fails_at = static_cast<int>(cuda().calls.size()) + at;
    try {
      d.set_rig(other);
      if (cuda().calls[static_cast<std::size_t>(cuda().fails_at)] != "cudaGetDevice") break;
      ++failed;  // an allocation whose origin is not known is no failure
      continue;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::device_failed);
      ++failed;
    }
    EXPECT_EQ(d.rig().cameras[0].T_ego_camera, small_rig().cameras[0].T_ego_camera);
    expect_same(d.infer(moved.frames), on_cpu.infer(moved.frames));
    expect_same_tensors(d, on_cpu);
    d.set_rig(other);
    EXPECT_GT(d.infer(moved.frames).detections.size(), 3u);
  }
  EXPECT_GT(failed, 10);
}

TEST_F(CudaFaults, a_drive_that_begins_without_an_image_is_replayed_from_the_second_image_on) {
  // as TensorRT: cannot be captured before its first run
  class Cold : public DeviceEngine {
   public:
    using DeviceEngine::DeviceEngine;
    void run(void* stream) override {
      const auto count = [](const char* name) { return std::count(cuda().calls.begin(), cuda().calls.end(), name); };
      if (runs == 0 && count("cudaStreamBeginCapture") > count("cudaStreamEndCapture"))
        throw Error(Code::engine_run, "captured before its first run");
      DeviceEngine::run(stream);
    }
  };
  const auto camera = std::make_shared<Cold>(*camera_engine());
  const auto bev = std::make_shared<DeviceEngine>(*bev_engine());
  Detector on_cpu = detector("cpu", engines(false, false), false), d = detector("cuda", {camera, bev}, false);
  const std::vector<bool> replayed{false, false, false, true, true};
  const std::vector<int> frames{8, 6, 1, 2, 6};  // blind, radars alone, full, full, radars alone
  for (std::size_t i = 0; i < frames.size(); ++i) {
    const Moment m = frame(frames[i], false);
    const Result& result = d.infer(m.frames);
    EXPECT_EQ(result.replayed, replayed[i]) << "frame " << i;
    expect_same(result, on_cpu.infer(m.frames));
  }
  EXPECT_EQ(d.why_not_replayed(), "");
  EXPECT_NE(on_cpu.why_not_replayed(), "");
}

TEST_F(CudaFaults, whether_frames_are_replayed_and_why_not_is_said) {
  const Engines mixed{engines(true, false).camera, engines(false, false).bev};
  EXPECT_NE(detector("cuda", mixed, false).why_not_replayed().find("does not run on the GPU"), std::string::npos);
  EXPECT_EQ(detector("cuda", engines(true, true), true, true).why_not_replayed(), "the stages are timed");
  EXPECT_EQ(detector("cuda", engines(true, false), false).why_not_replayed(), "");
}

TEST_F(CudaFaults, a_capture_that_any_exception_leaves_has_ended) {
  class Throwing : public DeviceEngine {
   public:
    using DeviceEngine::DeviceEngine;
    void run(void* stream) override {
      if (++calls_ == 2) throw std::bad_alloc();
      DeviceEngine::run(stream);
    }
    int calls_ = 0;
  };
  const auto camera = std::make_shared<Throwing>(*camera_engine());
  const auto bev = std::make_shared<DeviceEngine>(*bev_engine());
  Detector on_cpu = detector("cpu", engines(false, false), false), d = detector("cuda", {camera, bev}, false);
  d.infer(frame(0, false).frames);
  EXPECT_THROW(d.infer(frame(1, false).frames), std::bad_alloc);
  const Moment m = frame(1, false);
  const Result& result = d.infer(m.frames);
  EXPECT_TRUE(result.replayed) << d.why_not_replayed();
  expect_same(result, on_cpu.infer(m.frames));
}

TEST_F(CudaFaults, another_gpu_in_the_callers_thread_changes_nothing) {
  cuda().other_device = 0;
  SensorRig rig = small_rig();
  rig.cameras[1].T_ego_camera[3] += 1;
  Detector on_cpu = detector("cpu", engines(false, true), true);
  {
    Detector d = detector("cuda", engines(true, true), true);
    cuda().device = 1;
    for (int i = 0; i < 4; ++i) {
      const Moment m = frame(i, true);
      expect_same(d.infer(m.frames), on_cpu.infer(m.frames));
    }
    expect_same_tensors(d, on_cpu);
    d.set_rig(rig);
    d.wait_for(d.stream());
    cuda().fails = "cudaStreamSynchronize";
    EXPECT_THROW(d.infer(frame(4, true).frames), Error);
    cuda().fails = "";
    EXPECT_EQ(cuda().device, 1);
  }
  EXPECT_EQ(cuda().device, 1) << "after destruction";
  EXPECT_EQ(cuda().other_device, 0) << "calls were made on the other GPU";
  EXPECT_EQ(require_cuda(), 1) << "the thread's";
}

TEST_F(CudaFaults, a_forked_child_refuses_the_detector_and_frees_nothing) {
  std::optional<Detector> d = detector("cuda", engines(true, true), true);
  d->infer(frame(0, true).frames);
  const pid_t child = fork();
  if (child == 0) {
    const std::size_t calls = cuda().calls.size();
    const int alive = cuda().alive;
    bool right = code_of([&] { d->infer(frame(1, true).frames); }) == Code::forked;
    right = right && code_of([&] { d->tensors(); }) == Code::forked;
    right = right && code_of([&] { d->set_rig(small_rig()); }) == Code::forked;
    d = detector("cpu", engines(false, true), true);  // lets go of the parent's
    right = right && d->infer(frame(1, true).frames).detections.size() > 3;
    d.reset();
    _exit(right && cuda().alive == alive && cuda().calls.size() == calls ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_GT(d->infer(frame(1, true).frames).detections.size(), 3u);
}

TEST_F(CudaFaults, images_that_a_stream_still_writes_are_waited_for) {
  for (unsigned order : {0u, 1u, 7u}) {
    SCOPED_TRACE("order " + std::to_string(order));
    cuda() = {};
    cuda().order = order;
    Detector on_cpu = detector("cpu", engines(false, false), false), d = detector("cuda", engines(true, false), false);
    cudaStream_t producer = nullptr;
    ASSERT_EQ(cudaStreamCreateWithFlags(&producer, cudaStreamNonBlocking), cudaSuccess);
    for (int i = 0; i < 3; ++i) {
      Moment m = frame(1, false);
      const Result expected = on_cpu.infer(m.frames);
      void* memory = nullptr;
      ASSERT_EQ(cudaMalloc(&memory, m.pixels[0].size()), cudaSuccess);
      fake::put(producer, [&m, memory] { std::memcpy(memory, m.pixels[0].data(), m.pixels[0].size()); });
      m.frames.cameras[0].data = static_cast<const std::uint8_t*>(memory);
      d.wait_for(producer);
      expect_same(d.infer(m.frames), expected);
      cudaFree(memory);
    }
    cudaStreamDestroy(producer);
  }
}

TEST_F(CudaFaults, an_image_that_this_gpu_does_not_reach_is_the_callers_mistake) {
  Detector d = detector("cuda", engines(true, false), false);
  Moment m = frame(1, false);
  void* memory = nullptr;
  ASSERT_EQ(cudaMalloc(&memory, m.pixels[0].size()), cudaSuccess);
  m.frames.cameras[0].data = static_cast<const std::uint8_t*>(memory);
  cuda().memory_device = 1;
  EXPECT_EQ(code_of([&] { d.infer(m.frames); }), Code::frame_bad_dtype);
  cuda().memory_device = 0;
  // NV12 with one plane on the device, the other in the host's pageable memory.
  m.frames.cameras[0].chroma = m.pixels[0].data();
  EXPECT_EQ(code_of([&] { d.infer(m.frames); }), Code::frame_bad_shape);
  EXPECT_GT(d.infer(frame(1, false).frames).detections.size(), 3u)
      << "the detector still works after a caller's mistake";
  cudaFree(memory);
}

TEST_F(CudaFaults, a_refused_frame_that_brought_more_than_there_was_room_for_voids_the_graph) {
  for (int large : {7, 9}) {  // in sweeps, in points
    SCOPED_TRACE("frame " + std::to_string(large));
    cuda() = {};
    cuda().guard = true;
    Detector on_cpu = detector("cpu", engines(false, false), false), d = detector("cuda", engines(true, false), false);
    for (int i = 0; i < 3; ++i) d.infer(frame(i, false).frames);
    EXPECT_EQ(cuda().graph_launches, 2);
    Moment refused = frame(large, false);
    void* memory = nullptr;
    ASSERT_EQ(cudaMalloc(&memory, refused.pixels[0].size()), cudaSuccess);
    refused.frames.cameras[0].data = static_cast<const std::uint8_t*>(memory);
    cuda().memory_device = 1;
    EXPECT_EQ(code_of([&] { d.infer(refused.frames); }), Code::frame_bad_dtype);
    cuda().memory_device = 0;
    cudaFree(memory);
    for (int i : {1, large}) {
      const Moment m = frame(i, false);
      expect_same(d.infer(m.frames), on_cpu.infer(m.frames));
      expect_same_tensors(d, on_cpu);
    }
    EXPECT_EQ(std::count(cuda().calls.begin(), cuda().calls.end(), "cudaGraphInstantiate"), 2)
        << "the first, and one with the new addresses";
  }
}

TEST_F(CudaFaults, stages_are_timed_only_when_asked_for) {
  Detector timed = detector("cuda", engines(true, true), true, true),
           plain = detector("cuda", engines(true, true), true);
  const Moment m = frame(1, true);
  for (int i = 0; i < 3; ++i) {
    const Result& r = timed.infer(m.frames);
    for (int stage = 0; stage < kStages; ++stage) EXPECT_GE(r.timings_us[stage], 250) << kStageNames[stage];
    EXPECT_EQ(plain.infer(m.frames).timings_us[kBev], 0);
    EXPECT_GT(plain.infer(m.frames).total_us, 0);
  }
  EXPECT_EQ(cuda().graph_launches, 5) << "the plain one's";
}

TEST_F(CudaFaults, without_a_device_there_is_no_detector_on_it) {
  cuda().devices = 0;
  EXPECT_EQ(code_of([] { detector("cuda", engines(true, false), false); }), Code::device_unavailable);
  EXPECT_EQ(code_of([] { require_cuda(); }), Code::device_unavailable);
  EXPECT_EQ(code_of([] { detector("gpu", engines(false, false), false); }), Code::device_unavailable);
  EXPECT_EQ(detector("auto", engines(false, false), false).device(), "cpu");
}

TEST_F(CudaContract, warnings_and_untrained_velocities_are_those_of_the_cpu) {
  fakes::Setting setting;
  setting.intensity = -60;
  setting.contract.radars.number = {5, 5};
  setting.contract.trained.velocity = false;
  const auto make = [&](const char* device, bool on_device) {
    DetectorOptions options;
    options.device = device;
    options.threads = 1;
    const Engines e = engines(on_device, false, false, run_bev_with_maps);
    return Detector(setting.spec, setting.rig, e.camera, e.bev, options, setting.contract);
  };
  Detector cpu = make("cpu", false), gpu = make("cuda", true);
  std::size_t boxes = 0;
  for (int i = 0; i < 12; ++i) {
    const Moment m = moment_of(setting, i, i >= 4 && i < 8);
    const Result &expected = cpu.infer(m.frames), &result = gpu.infer(m.frames);
    EXPECT_EQ(codes_of(result.health), codes_of(expected.health)) << "frame " << i;
    EXPECT_EQ(codes_of(result.health).size(), i >= 4 && i < 10 ? 2u : 1u) << "frame " << i;
    EXPECT_EQ(result.health.mode, Mode::partial);
    for (const Detection& box : result.detections) EXPECT_TRUE(std::isnan(box.vx) && std::isnan(box.vy));
    boxes += result.detections.size();
  }
  EXPECT_GT(boxes, 0u);
}

}  // namespace
