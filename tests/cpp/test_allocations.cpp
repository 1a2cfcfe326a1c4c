// infer and Tracker::update allocate nothing once every buffer has been used.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <limits>
#include <map>
#include <new>

#include "contract_cases.hpp"
#include "imkd/tracker.hpp"

namespace {
std::atomic<long> allocations{0};
std::atomic<std::size_t> bytes{0};  // in all, freed or not

void* counted(std::size_t size, std::size_t align) {
  ++allocations;
  bytes += size;
  void* p = align > alignof(std::max_align_t) ? std::aligned_alloc(align, (size + align - 1) / align * align)
                                              : std::malloc(size ? size : 1);
  if (!p) throw std::bad_alloc();
  return p;
}
}  // namespace

void* operator new(std::size_t size) { return counted(size, 1); }
void* operator new[](std::size_t size) { return counted(size, 1); }
void* operator new(std::size_t size, std::align_val_t align) { return counted(size, static_cast<std::size_t>(align)); }
void* operator new[](std::size_t size, std::align_val_t align) {
  return counted(size, static_cast<std::size_t>(align));
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

using namespace imkd;
using namespace imkd::fakes;

namespace {

TEST(Allocations, are_counted_at_all) {
  const long before = allocations;
  delete new int(1);
  EXPECT_EQ(allocations, before + 1);
}

class Infer : public testing::TestWithParam<int> {};

TEST_P(Infer, allocates_nothing_in_a_thousand_frames) {
  SensorRig rig = small_rig();
  rig.radars[1].velocity = RadialVelocity::raw;  // so that the ego speed is estimated too
  DetectorOptions options;
  options.threads = GetParam();
  options.debug = true;
  Detector detector(history_spec(), rig, camera_engine(), bev_engine_with_maps(), options);
  std::vector<Moment> moments;
  for (unsigned i = 0; i < 8; ++i) moments.push_back(moment(rig, i, 50 + 100 * static_cast<int>(i)));
  moments[1].frames.cameras[0].data = nullptr;  // the paths of an absent camera
  moments[2].frames.sweeps.clear();
  moments[3].frames.cameras[0].data = moments[3].frames.cameras[1].data = nullptr;
  moments[4].frames.sweeps[0].timestamp_ns = 0;
  moments[5].frames.camera_timestamps_ns = {0, 1'000'000'000};
  moments[6].frames.ego.twist = Vec3{5, 0, 0.1};
  std::size_t boxes = 0, past = 0;
  // 10 Hz, with poses; every fiftieth frame has none, every hundredth comes after a gap.
  const auto infer = [&](int frame) {
    Moment& m = moments[static_cast<std::size_t>(frame) % moments.size()];
    const std::int64_t time = 1'000'000'000 + frame * 100'000'000LL + frame / 100 * 10'000'000'000LL,
                       late = time - m.frames.timestamp_ns;
    m.frames.timestamp_ns += late;
    for (RadarSweep& sweep : m.frames.sweeps) sweep.timestamp_ns += late;
    for (std::int64_t& camera : m.frames.camera_timestamps_ns) camera += late;
    m.frames.ego.T_world_ego = identity4();
    (*m.frames.ego.T_world_ego)[3] = 0.5 * frame;
    m.frames.camera_timestamps_ns = {time - frame % 7 * 10'000'000, time + frame % 5 * 9'000'000};
    if (frame % 8 == 5) m.frames.camera_timestamps_ns[1] += 1'000'000'000;
    m.frames.camera_T_world_ego.assign(2, std::nullopt);
    if (frame % 3 == 0) {  // every exposure has another pose
      m.frames.camera_T_world_ego[0] = identity4();
      (*m.frames.camera_T_world_ego[0])[3] = 0.5 * frame - 0.03 * (frame % 7);
    }
    for (RadarSweep& sweep : m.frames.sweeps) sweep.T_world_ego = m.frames.ego.T_world_ego;
    if (frame % 50 == 45) m.frames.ego.T_world_ego.reset();
    const Result& result = detector.infer(m.frames);
    boxes += result.detections.size();
    past += static_cast<std::size_t>(result.health.past_frames);
    ASSERT_EQ(result.debug.size(), 2u);
    ASSERT_NE(result.segmentation.data, nullptr);
  };
  for (int i = 0; i < 16; ++i) infer(i);  // warm-up
  const long before = allocations;
  for (int i = 16; i < 1016; ++i) infer(i);
  EXPECT_EQ(allocations - before, 0);
  EXPECT_GT(boxes, 1000u);
  EXPECT_GT(past, 1000u);
}

TEST_P(Infer, allocates_nothing_while_warnings_begin_and_end) {
  Setting setting;
  setting.intensity = -60;
  DetectorOptions options;
  options.threads = GetParam();
  Detector detector(setting.spec, setting.rig, camera_engine(), bev_engine(), options, setting.contract);
  const Moment near = moment_of(setting, 0, false), far = moment_of(setting, 0);
  for (int i = 0; i < 16; ++i) detector.infer(near.frames);  // warm-up, without a warning
  int frames = 0, changes = 0;
  bool last = false;
  const long before = allocations;
  for (int i = 0; i < 1000; ++i) {
    const bool warned = !detector.infer((i / 50 % 2 ? far : near).frames).health.warnings.empty();
    frames += warned;
    changes += warned != last;
    last = warned;
  }
  EXPECT_EQ(allocations - before, 0);
  EXPECT_EQ(changes, 19);
  EXPECT_EQ(frames, 10 * 50 + 9 * 2);  // it ends with the third frame inside
}

// Frozen, flat and of another size; corrupt, empty and frozen sweeps; poses and twists that no vehicle has; a
// pose that stands still, and one beyond a jump.
TEST_P(Infer, allocates_nothing_while_sensors_fail) {
  const SensorRig rig = small_rig();
  DetectorOptions options;
  options.threads = GetParam();
  Detector detector(history_spec(), rig, camera_engine(), bev_engine_with_maps(), options);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<std::uint8_t> white(80 * 40 * 3, 255);
  const std::vector<float> corrupt(5 * 200, nan);
  std::vector<Moment> moments;
  for (unsigned i = 0; i < 8; ++i) moments.push_back(moment(rig, i));
  std::map<SensorState, int> states;
  int warned = 0;
  const auto infer = [&](int frame) {
    const int phase = frame / 8 % 10;  // a fault lasts for eight frames; in phase 0 there is none
    FrameSet& m = moments[static_cast<std::size_t>(phase == 1 ? 0 : frame % 8)].frames;
    m.timestamp_ns = 1'000'000'000 + frame * 100'000'000LL;
    for (RadarSweep& sweep : m.sweeps) sweep.timestamp_ns = m.timestamp_ns;
    m.ego = {identity4(), Vec3{11, 0, 0}};
    (*m.ego.T_world_ego)[3] = 1.1 * (phase == 8 ? frame - frame % 8 : frame);
    const ImageView image = m.cameras[0];
    const RadarSweep sweep = m.sweeps[0];
    if (phase == 2) m.cameras[0].data = white.data();
    if (phase == 3) m.cameras[0].width = 40;
    if (phase == 4) m.sweeps[0].points = corrupt.data();
    if (phase == 5) m.sweeps[0].count = 0;
    if (phase == 6) (*m.ego.T_world_ego)[0] = nan;
    if (phase == 7) m.ego.twist = Vec3{655.35, 0, nan};
    if (phase == 9) (m.sweeps[0].T_world_ego = *m.ego.T_world_ego)->at(3) += 30;
    const Health& health = detector.infer(m).health;
    m.cameras[0] = image;
    m.sweeps[0] = sweep;
    ++states[health.cameras[0]];
    ++states[health.radars[0]];
    for (const Warning& warning : health.warnings) warned += warning.code == WarningCode::ego_invalid;
  };
  for (int i = 0; i < 80; ++i) infer(i);  // warm-up; the map of states has all of its nodes
  states[SensorState::ok] = states[SensorState::frozen] = states[SensorState::invalid] = warned = 0;
  const long before = allocations;
  for (int i = 80; i < 80 + 800; ++i) infer(i);
  EXPECT_EQ(allocations - before, 0);
  // From the third repetition on; the radar's ninth is the first sweep of the next fault.
  EXPECT_EQ(states[SensorState::frozen], 10 * (6 + 7));
  EXPECT_EQ(states[SensorState::invalid], 10 * 4 * 8);  // two faults of the camera, two of the radar
  EXPECT_EQ(warned, 10 * (3 * 8 + 5));                  // the still pose from 3.3 m on
}

TEST(Track, allocates_nothing) {
  Tracker tracker(small_spec());
  std::vector<Result> results(8);
  for (std::size_t r = 0; r < results.size(); ++r) {
    results[r].ego.T_world_ego = identity4();
    for (std::size_t i = 0; i < 40 * r; ++i) {
      Detection d{};
      d.x = static_cast<float>(i % 20) * 3;
      d.y = static_cast<float>(i / 20) * 3 + 0.2F * static_cast<float>(r);
      d.length = d.width = d.height = 1;
      d.score = 0.9F;
      d.label = static_cast<int>(i % 2);
      results[r].detections.push_back(d);
    }
  }
  std::size_t tracks = 0;
  const long before = allocations;
  for (std::int64_t frame = 0; frame < 1000; ++frame) {
    Result& result = results[static_cast<std::size_t>(frame) % results.size()];
    result.timestamp_ns = frame * 100'000'000 + frame / 100 * 10'000'000'000;
    tracks += tracker.update(result).size();
  }
  EXPECT_EQ(allocations - before, 0);
  EXPECT_GT(tracks, 100'000u);
}

// Not for each pair of a track and a detection, which would be 3 GB.
TEST(Track, takes_memory_for_its_tracks_and_detections_alone) {
  ModelSpec spec = small_spec();
  TrackerOptions options;
  spec.head.max_detections = 100'000;
  options.max_tracks = 4096;
  const std::size_t before = bytes;
  Tracker tracker(spec, options);
  EXPECT_LT(bytes - before, 500U * (100'000U + 4096U));
}

INSTANTIATE_TEST_SUITE_P(Threads, Infer, testing::Values(1, 2, 4));

}  // namespace
