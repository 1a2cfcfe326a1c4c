// Ownership of the memory, threads, and a long run under the sanitizers. The order of times is tested from Python
// (tests/live), the queue and the rule by themselves in test_sensor_queue.cpp and test_frame_rule.cpp.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <cstring>
#include <limits>
#include <thread>
#include <tuple>

#include "as_nobody.hpp"
#include "ego_trail.hpp"
#include "fakes.hpp"
#include "imkd/monitor.hpp"
#include "imkd/synchronizer.hpp"
#include "imkd/tracker.hpp"

using namespace imkd;
using namespace imkd::fakes;

namespace {

constexpr std::int64_t kMs = 1'000'000;

// Pushes a whole moment, measured and delivered at one time.
void push_all(Synchronizer& sync, const Moment& m, std::int64_t time) {
  for (std::size_t i = 0; i < m.frames.cameras.size(); ++i)
    sync.push_camera(static_cast<int>(i), m.frames.cameras[i], time, time);
  for (RadarSweep sweep : m.frames.sweeps) {
    sweep.timestamp_ns = time;
    sync.push_radar(sweep, time);
  }
}

TEST(Synchronizer, copies_memory_without_an_owner) {
  const SensorRig rig = small_rig();
  Synchronizer sync(rig, small_spec());
  Moment m = moment(rig);
  const auto pixels = m.pixels;
  const auto points = m.points;
  push_all(sync, m, 100 * kMs);
  for (auto& image : m.pixels) std::fill(image.begin(), image.end(), std::uint8_t(0));
  for (auto& sweep : m.points) sweep.assign(1, 0.f);
  const auto live = sync.pop(100 * kMs);
  ASSERT_TRUE(live && live->complete);
  EXPECT_EQ(live->frames.timestamp_ns, 100 * kMs);
  for (std::size_t i = 0; i < 2; ++i) {
    const ImageView& image = live->frames.cameras[i];
    EXPECT_EQ(std::vector<std::uint8_t>(image.data, image.data + pixels[i].size()), pixels[i]);
    const RadarSweep& sweep = live->frames.sweeps[i];
    ASSERT_EQ(sweep.count, 200);
    EXPECT_EQ(std::vector<float>(sweep.points, sweep.points + 1000), points[i]);
  }
}

// Upside down BGRA: the row stride is negative, the channels are reversed.
TEST(Synchronizer, copies_any_strides) {
  const SensorRig rig = small_rig();
  Synchronizer sync(rig, small_spec());
  const int width = 80, height = 40;
  std::vector<std::uint8_t> bgra(std::size_t(width) * height * 4);
  for (std::size_t i = 0; i < bgra.size(); ++i) bgra[i] = static_cast<std::uint8_t>(i * 31 % 251);
  const ImageView view{bgra.data() + std::size_t(height - 1) * width * 4 + 2, width, height, -width * 4, 4, -1};
  sync.push_camera(0, view, 0, 0);
  const auto live = sync.pop(100 * kMs);
  ASSERT_TRUE(live);
  const ImageView& image = live->frames.cameras[0];
  for (int row = 0; row < height; ++row)
    for (int column = 0; column < width; ++column)
      for (int channel = 0; channel < 3; ++channel)
        ASSERT_EQ(image.data[row * image.row_stride + column * image.pixel_stride + channel * image.channel_stride],
                  bgra[(std::size_t(height - 1 - row) * width + column) * 4 + 2 - channel]);
}

TEST(Synchronizer, copies_nv12_with_padded_rows) {
  const SensorRig rig = small_rig();
  Synchronizer sync(rig, small_spec());
  Monitor monitor(rig, small_spec());
  const int width = 80, height = 40, pitch = 96;
  std::vector<std::uint8_t> luma(pitch * height), chroma(pitch * height / 2);
  for (std::size_t i = 0; i < luma.size(); ++i) luma[i] = static_cast<std::uint8_t>(i * 31 % 251);
  for (std::size_t i = 0; i < chroma.size(); ++i) chroma[i] = static_cast<std::uint8_t>(i * 17 % 241);
  const ImageView view{luma.data(), width, height, pitch, 1, 0, chroma.data(), pitch, YuvMatrix::bt709};
  sync.push_camera(0, view, 0, 0);
  monitor.observe_camera(0, view, 0, 0);
  EXPECT_EQ(monitor.check(0).cameras[0], SensorState::ok);
  const std::vector<std::uint8_t> luma_before = luma, chroma_before = chroma;
  std::fill(luma.begin(), luma.end(), std::uint8_t(0));
  std::fill(chroma.begin(), chroma.end(), std::uint8_t(0));
  const auto live = sync.pop(100 * kMs);
  ASSERT_TRUE(live);
  const ImageView& image = live->frames.cameras[0];
  EXPECT_EQ(image.yuv, YuvMatrix::bt709);
  for (int row = 0; row < height; ++row)
    ASSERT_EQ(std::memcmp(image.data + row * image.row_stride, &luma_before[std::size_t(row) * pitch], width), 0)
        << row;
  for (int row = 0; row < height / 2; ++row)
    ASSERT_EQ(std::memcmp(image.chroma + row * image.chroma_stride, &chroma_before[std::size_t(row) * pitch], width), 0)
        << row;
}

TEST(Synchronizer, releases_what_no_frame_needs) {
  const SensorRig rig = small_rig();
  Synchronizer sync(rig, small_spec());
  const Moment m = moment(rig);
  const auto owner = std::make_shared<int>(0);
  sync.push_camera(0, m.frames.cameras[0], 100 * kMs, 100 * kMs, owner);
  EXPECT_EQ(owner.use_count(), 2);
  {
    const auto live = sync.pop(200 * kMs);
    ASSERT_TRUE(live);
    EXPECT_EQ(live->frames.cameras[0].data, m.frames.cameras[0].data);  // no copy
    EXPECT_EQ(owner.use_count(), 2);                                    // the frame's; the synchronizer has none
  }
  EXPECT_EQ(owner.use_count(), 1);
  EXPECT_EQ(sync.push_camera(0, m.frames.cameras[0], 90 * kMs, 200 * kMs, owner), Pushed::late);
  EXPECT_EQ(owner.use_count(), 1);
  for (int i = 0; i < 100; ++i) sync.push_camera(1, m.frames.cameras[1], (201 + i) * kMs, (201 + i) * kMs, owner);
  EXPECT_EQ(owner.use_count(), 9);  // max_images
  sync.reset();
  EXPECT_EQ(owner.use_count(), 1);
}

TEST(Synchronizer, the_deleter_of_an_owner_may_call_the_synchronizer) {
  const SensorRig rig = small_rig();
  Synchronizer sync(rig, small_spec());
  const Moment m = moment(rig);
  int released = 0;
  const auto release = [&](const void*) {
    ++released;
    sync.counts();
  };
  const auto owner = [&] { return std::shared_ptr<const void>(&m, release); };
  const auto push = [&](int camera, std::int64_t time, std::int64_t now) {
    return sync.push_camera(camera, m.frames.cameras[static_cast<std::size_t>(camera)], time * kMs, now * kMs, owner());
  };
  RadarSweep sweep = m.frames.sweeps[0];
  EXPECT_EQ(push(0, 0, 5000), Pushed::late);
  EXPECT_EQ(push(1, 9000, 5000), Pushed::future);
  EXPECT_EQ(sync.push_radar(sweep, 5000 * kMs, owner()), Pushed::late);
  EXPECT_EQ(released, 3);
  sweep.timestamp_ns = 5000 * kMs;
  sweep.T_world_ego = Mat4{};
  EXPECT_EQ(sync.push_radar(sweep, 5000 * kMs, owner()), Pushed::invalid);
  EXPECT_EQ(push(0, 5000, 5000), Pushed::kept);
  EXPECT_EQ(push(0, 5000, 5000), Pushed::duplicate);
  EXPECT_EQ(released, 5);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(push(1, 5000 + i, 5000 + i), Pushed::kept);  // max_images is 8
  EXPECT_EQ(released, 7);
  EXPECT_TRUE(sync.pop(5200 * kMs));  // the frame holds camera 0's item
  EXPECT_EQ(released, 8);
  EXPECT_EQ(push(0, 5200, 5200), Pushed::kept);
  EXPECT_FALSE(sync.pop(7000 * kMs));  // it expires, and discards all items of camera 1
  EXPECT_EQ(released, 17);
  EXPECT_EQ(push(0, 7000, 7000), Pushed::kept);
  sync.reset();
  EXPECT_EQ(released, 18);
  EXPECT_EQ(push(0, 7000, 7000), Pushed::kept);
  EXPECT_EQ(push(0, 100, 100), Pushed::kept);  // now jumps back: everything is discarded
  EXPECT_EQ(released, 19);
  sync.reset();
}

// Three passes over nine moments, 100 ms apart: less than max_delay.
TEST(Synchronizer, a_short_recording_in_a_loop_yields_frames_in_every_pass_and_releases_its_items) {
  const SensorRig rig = small_rig();
  Synchronizer sync(rig, small_spec());
  const Moment m = moment(rig);
  const auto owner = std::make_shared<int>(0);
  for (const int expected : {9, 8, 8}) {
    int frames = 0;
    for (std::int64_t time = 0; time < 900 * kMs; time += 100 * kMs) {
      for (const int camera : {0, 1}) sync.push_camera(camera, m.frames.cameras[camera], time, time, owner);
      for (RadarSweep sweep : m.frames.sweeps) {
        sweep.timestamp_ns = time;
        sync.push_radar(sweep, time, owner);
      }
      while (sync.pop(time)) ++frames;
    }
    EXPECT_EQ(frames, expected);
  }
  EXPECT_EQ(sync.counts().restarts, 2);
  sync.reset();
  EXPECT_EQ(owner.use_count(), 1);
}

TEST(Synchronizer, callers_mistakes_have_their_codes) {
  const SensorRig rig = small_rig();
  Synchronizer sync(rig, small_spec());
  const Moment m = moment(rig);
  ImageView other = m.frames.cameras[0];
  other.width = 79;
  EXPECT_EQ(code_of([&] { sync.push_camera(2, m.frames.cameras[0], 0, 0); }), Code::frame_unknown_sensor);
  EXPECT_EQ(code_of([&] { sync.push_camera(-1, m.frames.cameras[0], 0, 0); }), Code::frame_unknown_sensor);
  EXPECT_EQ(code_of([&] { sync.push_camera(0, other, 0, 0); }), Code::frame_bad_shape);
  EXPECT_EQ(code_of([&] { sync.push_camera(0, {}, 0, 0); }), Code::frame_bad_shape);
  const ImageView without_stride{m.frames.cameras[0].data, 80, 40};
  EXPECT_EQ(code_of([&] { sync.push_camera(0, without_stride, 0, 0); }), Code::frame_bad_shape);
  EXPECT_EQ(code_of([&] { Monitor(rig, small_spec()).observe_camera(0, without_stride, 0, 0); }),
            Code::frame_bad_shape);
  EXPECT_EQ(code_of([&] { sync.push_radar({2, 0, nullptr, 0, {}}, 0); }), Code::frame_unknown_sensor);
  EXPECT_EQ(code_of([&] { sync.push_radar({0, 0, nullptr, 1, {}}, 0); }), Code::frame_bad_shape);
  EXPECT_EQ(code_of([&] { Synchronizer(SensorRig{}, small_spec()); }), Code::rig_empty);
  EXPECT_EQ(sync.counts().kept, 0);
}

TEST(Synchronizer, a_twist_that_turns_faster_than_once_per_second_is_invalid) {
  Synchronizer sync(small_rig(), small_spec());
  EXPECT_EQ(sync.push_ego({{}, Vec3{10, 0, 6.3}}, 0, 0), Pushed::invalid);
  EXPECT_EQ(sync.push_ego({{}, Vec3{10, 0, -6.3}}, 0, 0), Pushed::invalid);
  EXPECT_EQ(sync.push_ego({{}, Vec3{10, 0, -6.28}}, 0, 0), Pushed::kept);
}

TEST(Synchronizer, pose_and_twist_of_one_time_may_come_in_two_pushes) {
  const SensorRig rig = small_rig();
  const Ego pose{identity4(), {}}, twist{{}, Vec3{5, 0, 0}};
  for (const auto& [first, second] : {std::pair(pose, twist), std::pair(twist, pose)}) {
    Synchronizer sync(rig, small_spec());
    EXPECT_EQ(sync.push_ego({}, 0, 0), Pushed::invalid);
    EXPECT_EQ(sync.push_ego(first, 0, 0), Pushed::kept);
    EXPECT_EQ(sync.push_ego(first, 0, 0), Pushed::duplicate);
    EXPECT_EQ(sync.push_ego(second, 0, 0), Pushed::kept);
    EXPECT_EQ(sync.push_ego({identity4(), Vec3{9, 0, 0}}, 0, 0), Pushed::duplicate);
    push_all(sync, moment(rig), 0);
    const auto live = sync.pop(0);
    ASSERT_TRUE(live && live->frames.ego.T_world_ego && live->frames.ego.twist);
    EXPECT_EQ((*live->frames.ego.twist)[0], 5);  // the first one stays
  }
}

TEST(Synchronizer, a_pose_that_completes_a_twist_must_not_contradict_a_newer_one) {
  Synchronizer sync(small_rig(), small_spec());
  Mat4 far = identity4();
  far[3] = 500;
  EXPECT_EQ(sync.push_ego({{}, Vec3{5, 0, 0}}, 0, 0), Pushed::kept);
  EXPECT_EQ(sync.push_ego({identity4(), {}}, 10 * kMs, 10 * kMs), Pushed::kept);
  EXPECT_EQ(sync.push_ego({far, {}}, 0, 10 * kMs), Pushed::invalid);
  EXPECT_EQ(sync.push_ego({identity4(), {}}, 0, 10 * kMs), Pushed::kept);
}

// Poses at 0 and 800 ms are too far apart to be interpolated at 400 ms, and too far from it to be extrapolated.
TEST(Synchronizer, a_frame_is_complete_only_with_a_pose_or_twist_at_its_time_once_ego_motion_was_pushed) {
  const SensorRig rig = small_rig();
  for (const std::int64_t gap : {400, 800}) {
    Synchronizer sync(rig, small_spec());
    sync.push_ego({identity4(), Vec3{5, 0, 0}}, 0, 0);
    push_all(sync, moment(rig), gap / 2 * kMs);
    sync.push_ego({identity4(), Vec3{5, 0, 0}}, gap * kMs, gap * kMs);
    const auto live = sync.pop(gap * kMs);  // ready without a wait
    ASSERT_TRUE(live);
    const bool known = live->frames.ego.T_world_ego || live->frames.ego.twist;
    EXPECT_EQ(known, gap == 400);
    EXPECT_EQ(live->complete, known);
    EXPECT_EQ(sync.counts().complete, known);
    EXPECT_EQ(sync.counts().incomplete, !known);
  }
}

Mat4 pose_at(double x) {
  Mat4 T = identity4();
  T[3] = x;
  return T;
}

// Wheel odometry is ahead of the localisation, which jumps.
TEST(Synchronizer, a_jump_of_the_pose_discards_no_twist) {
  const SensorRig rig = small_rig();
  Synchronizer sync(rig, small_spec());
  for (int ms = 0; ms <= 200; ms += 20) sync.push_ego({{}, Vec3{10, 0, 0}}, ms * kMs, 200 * kMs);
  EXPECT_EQ(sync.push_ego({pose_at(0), {}}, 150 * kMs, 200 * kMs), Pushed::kept);
  EXPECT_EQ(sync.push_ego({pose_at(1000), {}}, 160 * kMs, 200 * kMs), Pushed::kept);
  EXPECT_EQ(sync.push_ego({{}, Vec3{10, 0, 0}}, 40 * kMs, 200 * kMs), Pushed::duplicate);
  push_all(sync, moment(rig), 200 * kMs);
  const auto live = sync.pop(200 * kMs);
  ASSERT_TRUE(live && live->complete);
  EXPECT_EQ(live->frames.ego.twist, (Vec3{10, 0, 0}));
  ASSERT_TRUE(live->frames.ego.T_world_ego);
  EXPECT_NEAR((*live->frames.ego.T_world_ego)[3], 1000.4, 1e-9);
}

// 10 m/s; the last two poses are 0.5 ms apart, and 2 cm of noise between them would be 40 m/s more.
TEST(EgoTrail, the_speed_to_extrapolate_at_is_not_that_of_two_poses_at_almost_one_time) {
  EgoTrail trail;
  EXPECT_TRUE(trail.add(0, {pose_at(0), {}}));
  EXPECT_TRUE(trail.add(99'500'000, {pose_at(0.995), {}}));
  EXPECT_TRUE(trail.add(100 * kMs, {pose_at(1.02), {}}));
  const Ego ego = trail.at(180 * kMs);
  ASSERT_TRUE(ego.T_world_ego);
  EXPECT_NEAR((*ego.T_world_ego)[3], 1.8, 0.1);
}

TEST(Synchronizer, a_sweep_beyond_tolerance_is_in_the_frame_and_does_not_complete_it) {
  const SensorRig rig = small_rig();
  Synchronizer sync(rig, small_spec());
  const Moment m = moment(rig);
  for (RadarSweep sweep : m.frames.sweeps) {
    sweep.timestamp_ns = 0;
    sync.push_radar(sweep, 0);
  }
  for (const int camera : {0, 1}) sync.push_camera(camera, m.frames.cameras[camera], 60 * kMs, 60 * kMs);
  const auto live = sync.pop(200 * kMs);
  ASSERT_TRUE(live);
  EXPECT_EQ(live->frames.sweeps.size(), 2u);
  EXPECT_FALSE(live->complete);
}

template <class Any>
void move_to_itself(Any& object) {
  Any& same = object;
  object = std::move(same);
}

TEST(Synchronizer, moving_one_to_itself_changes_nothing_nor_does_a_monitors_or_a_trackers) {
  const SensorRig rig = small_rig();
  Synchronizer sync(rig, small_spec());
  push_all(sync, moment(rig), 0);
  move_to_itself(sync);
  EXPECT_EQ(sync.counts().kept, 4);
  Monitor monitor(rig, small_spec());
  move_to_itself(monitor);
  EXPECT_EQ(monitor.check(0).cameras.size(), 2u);
  Tracker tracker(small_spec());
  move_to_itself(tracker);
  EXPECT_TRUE(tracker.update({}).empty());
}

TEST(Synchronizer, takes_pushes_from_several_threads) {
  const SensorRig rig = small_rig();
  SynchronizerOptions options;
  options.timeout = 3600;  // every frame waits for all four sensors
  options.max_images = options.max_sweeps = 4096;
  options.max_delay = options.max_future = options.lost_after = 3600;
  Synchronizer sync(rig, small_spec(), options);
  Monitor monitor(rig, small_spec());
  const Moment m = moment(rig);
  constexpr int kFrames = 500;
  std::atomic<int> complete{0};
  std::vector<std::thread> threads;
  for (int sensor = 0; sensor < 4; ++sensor)
    threads.emplace_back([&, sensor] {
      for (int i = 0; i < kFrames; ++i) {
        const std::int64_t time = i * 100 * kMs;
        RadarSweep sweep = m.frames.sweeps[sensor % 2];
        sweep.timestamp_ns = time;
        if (sensor < 2) {
          sync.push_camera(sensor, m.frames.cameras[sensor], time, 0);
          monitor.observe_camera(sensor, m.frames.cameras[sensor], time, time);
        } else {
          sync.push_radar(sweep, 0);
          monitor.observe_radar(sweep, time);
        }
      }
    });
  threads.emplace_back([&] {
    while (complete < kFrames)
      if (const auto live = sync.pop(0)) complete += live->complete;
    monitor.check(0);
  });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(sync.counts().complete, kFrames);
  EXPECT_EQ(sync.counts().incomplete, 0);
}

// Pushes a frame of that time, damaged as the number of the fault says; 0: undamaged.
void push_faulty(Synchronizer& sync, Monitor& monitor, Moment& m, int fault, std::int64_t time) {
  Mat4 pose = identity4();
  pose[3] = static_cast<double>(time) * 1e-8;  // 10 m/s
  if (fault == 1) pose[0] = std::nan("");
  if (fault == 2) pose[3] += 1e6;
  if (fault != 3) sync.push_ego({pose, {}}, time, time);
  for (int camera = 0; camera < 2; ++camera) {
    if (fault == 4 || (fault == 5 && camera == 0)) continue;
    if (fault != 6) m.pixels[camera][0] = static_cast<std::uint8_t>(time / kMs % 251);  // a pixel that is looked at
    const std::int64_t taken = fault == 7 ? time - 5'000'000'000 : fault == 8 ? time + 5'000'000'000 : time;
    for (int times = fault == 9 ? 5 : 1; times > 0; --times)
      sync.push_camera(camera, m.frames.cameras[camera], taken, time);
    monitor.observe_camera(camera, m.frames.cameras[camera], taken, time);
  }
  for (RadarSweep sweep : m.frames.sweeps) {
    if (fault == 10) continue;
    if (fault == 11) sweep.count = 0;
    m.points[static_cast<std::size_t>(sweep.radar)][3] = static_cast<float>(time / kMs % 97);  // as noise does
    sweep.timestamp_ns = time;
    sync.push_radar(sweep, time);
    monitor.observe_radar(sweep, time);
  }
}

TEST(Synchronizer, two_thousand_frames_with_a_fault_every_fifty_through_the_detector) {
  const SensorRig rig = small_rig();
  const auto camera = camera_engine(), bev = bev_engine();
  DetectorOptions options;
  options.threads = 1;
  Detector detector(small_spec(), rig, camera, bev, options);
  Synchronizer sync(rig, small_spec());
  Monitor monitor(rig, small_spec());
  Moment m = moment(rig);
  int frames = 0, since = 0;
  for (int i = 0; frames < 2000; ++i) {
    const bool faulty = i % 50 < 25;
    const int fault = faulty ? i / 50 % 12 : 0;
    const std::int64_t time = i * 50 * kMs;
    push_faulty(sync, monitor, m, fault, time);
    while (const auto live = sync.pop(time + 10 * kMs)) {
      const Result& result = detector.infer(live->frames);
      ++frames;
      ++since;
      if (faulty || since <= 2) continue;
      ASSERT_TRUE(live->complete && live->frames.ego.T_world_ego && result.health.mode == Mode::full &&
                  !result.detections.empty())
          << i;
    }
    monitor.check(time);
    if (fault) since = 0;
  }
  const SynchronizerCounts counts = sync.counts();
  EXPECT_GT(counts.late, 0);
  EXPECT_GT(counts.future, 0);
  EXPECT_GT(counts.duplicate, 0);
  EXPECT_GT(counts.invalid, 0);
  EXPECT_GT(counts.incomplete, 0);
}

TEST(Watchdog, reports_misses_on_its_own_thread_and_survives_an_exception_of_the_callback) {
  std::atomic<int> reports{0};
  std::atomic<std::int64_t> now{0};
  const auto missed = [&](double) {
    ++reports;
    throw 1;
  };
  Watchdog dog(0.05, missed, [&] { return now.load(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(120));
  EXPECT_EQ(reports, 0);
  now = 51 * kMs;
  for (int i = 0; i < 600000 && reports == 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(reports, 1);
  EXPECT_TRUE(dog.overdue());
  dog.beat();
  EXPECT_FALSE(dog.overdue());
  EXPECT_EQ(dog.misses(), 1);
}

TEST(Watchdog, takes_every_time_that_a_clock_may_say) {
  constexpr std::int64_t kFirst = std::numeric_limits<std::int64_t>::min(), kLast = -(kFirst + 1);
  std::int64_t now = kFirst;
  Watchdog dog(3600, {}, [&] { return now; }, false);
  const std::tuple<std::int64_t, std::int64_t, int> steps[] = {
      {kFirst, kLast, 1}, {kLast, kFirst, 1}, {0, kFirst, 1}, {-1, kLast, 2}};
  for (const auto& [beat, then, misses] : steps) {
    now = beat;
    dog.beat();
    now = then;
    dog.poll();
    EXPECT_EQ(dog.misses(), misses) << beat << " to " << then;
  }
}

TEST(Watchdog, without_a_thread_to_be_had_is_refused) {
  EXPECT_TRUE(as_nobody([] {
    rlimit limit{0, 0};
    setrlimit(RLIMIT_NPROC, &limit);
    return code_of([] { Watchdog watchdog(1); }) == Code::device_unavailable &&
           code_of([] { Watchdog watchdog(1, {}, {}, false); }) == Code{};
  }));
}

TEST(Watchdog, may_be_destroyed_by_its_own_callback) {
  std::atomic<bool> destroyed{false};
  std::unique_ptr<Watchdog> dog;
  std::atomic<bool> ready{false};
  dog = std::make_unique<Watchdog>(0.01, [&](double) {
    while (!ready) std::this_thread::yield();
    dog.reset();
    destroyed = true;
  });
  ready = true;
  for (int i = 0; i < 600000 && !destroyed; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(destroyed);
}

}  // namespace
