// Threads of a whole vehicle: drivers push, a frame loop pops, infers and tracks, others ask for states, change the rig
// and reset, all at once. Under ThreadSanitizer too (live_threads_tsan).
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "fake_bundle.hpp"
#include "imkd/imkd.h"
#include "imkd/monitor.hpp"
#include "imkd/synchronizer.hpp"
#include "imkd/tracker.hpp"

using namespace imkd;
using namespace imkd::fakes;

namespace {

constexpr int kRounds = 150;
constexpr std::int64_t kPeriod = 50'000'000;  // ns

class Threads {  // joins them all
 public:
  ~Threads() {
    for (std::thread& one : threads_) one.join();
  }
  void start(std::function<void()> body) { threads_.emplace_back(std::move(body)); }
  void repeat(int times, std::function<void(int)> body) {
    start([times, body = std::move(body)] {
      for (int i = 0; i < times; ++i) {
        body(i);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    });
  }

 private:
  std::vector<std::thread> threads_;
};

std::int64_t time_of(int round) { return 1'000'000'000 + round * kPeriod; }

DetectorOptions two_threads() {
  DetectorOptions options;
  options.threads = 2;
  return options;
}

// The drivers of a rig, in C++: each sensor has a thread of its own.
struct Vehicle {
  SensorRig rig = small_rig();
  Moment data = moment(rig, 1, 40);
  Synchronizer synchronizer{rig, small_spec()};
  Monitor monitor{rig, small_spec()};
  std::atomic<std::int64_t> now{time_of(0)}, pushed{0};

  void advance(std::int64_t time) {
    std::int64_t before = now;
    while (before < time && !now.compare_exchange_weak(before, time)) {
    }
  }
  void push_camera(int camera, int round) {
    const std::int64_t time = time_of(round);
    advance(time);
    const ImageView& image = data.frames.cameras[std::size_t(camera)];
    synchronizer.push_camera(camera, image, time, now, round % 2 ? std::make_shared<int>(round) : nullptr);
    monitor.observe_camera(camera, image, time, now);
    ++pushed;
  }
  void push_radar(int radar, int round) {
    RadarSweep sweep = data.frames.sweeps[std::size_t(radar)];
    sweep.timestamp_ns = time_of(round);
    advance(sweep.timestamp_ns);
    synchronizer.push_radar(sweep, now);
    monitor.observe_radar(sweep, now);
    ++pushed;
  }
  void push_ego(int round) {
    synchronizer.push_ego({identity4(), Vec3{10, 0, 0}}, time_of(round), now);
    ++pushed;
  }
};

TEST(LiveThreads, a_vehicle_drives_while_others_ask_change_the_rig_and_reset) {
  Vehicle vehicle;
  Detector detector(small_spec(), vehicle.rig, camera_engine(), bev_engine(), two_threads());
  Tracker tracker(small_spec());
  std::atomic<std::int64_t> missed{0}, refused{0};
  std::atomic<bool> driving{true};
  int frames = 0;
  Watchdog watchdog(0.002, [&](double) { ++missed; });
  {
    Threads others;
    {
      Threads drivers;
      for (int i = 0; i < 2; ++i) {
        drivers.repeat(kRounds, [&, i](int round) { vehicle.push_camera(i, round); });
        drivers.repeat(kRounds, [&, i](int round) { vehicle.push_radar(i, round); });
      }
      drivers.repeat(kRounds, [&](int round) { vehicle.push_ego(round); });
      others.start([&] {
        while (driving) {
          const std::optional<LiveFrame> frame = vehicle.synchronizer.pop(vehicle.now);
          if (!frame) continue;
          ++frames;
          const Code code = code_of([&] { tracker.update(detector.infer(frame->frames)); });
          EXPECT_TRUE(code == Code{} || code == Code::detector_busy);
          watchdog.beat();
        }
      });
      others.repeat(kRounds, [&](int) {
        refused += code_of([&] { detector.set_rig(vehicle.rig); }) == Code::detector_busy;
        EXPECT_EQ(vehicle.monitor.check(vehicle.now).cameras.size(), 2u);
        watchdog.poll();
        watchdog.overdue();
      });
      others.repeat(5, [&](int round) { round % 2 ? vehicle.synchronizer.reset() : vehicle.monitor.reset(); });
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // the loop pops what is left, then misses its deadline
    driving = false;
  }
  const SynchronizerCounts counts = vehicle.synchronizer.counts();
  EXPECT_EQ(counts.kept + counts.late + counts.duplicate + counts.future + counts.invalid, vehicle.pushed);
  EXPECT_EQ(counts.complete + counts.incomplete, frames);
  EXPECT_GE(watchdog.misses(), missed);

  vehicle.synchronizer.reset();  // nothing is left in disorder: the next moment is a frame, and is detected
  for (int i = 0; i < 2; ++i) {
    vehicle.push_camera(i, kRounds);
    vehicle.push_radar(i, kRounds);
  }
  vehicle.push_ego(kRounds);
  const std::optional<LiveFrame> frame = vehicle.synchronizer.pop(vehicle.now);
  ASSERT_TRUE(frame && frame->complete);
  detector.reset();  // forgets that every image and sweep was the same
  EXPECT_FALSE(detector.infer(frame->frames).detections.empty());
}

// The first miss may come before start returns.
TEST(LiveThreads, a_watchdog_is_destroyed_by_its_own_callback_as_soon_as_it_runs) {
  for (int round = 0; round < 50; ++round) {
    std::atomic<bool> gone{false};
    imkd_watchdog* watchdog = imkd_watchdog_new();
    struct User {
      imkd_watchdog* watchdog;
      std::atomic<bool>& gone;
    } user{watchdog, gone};
    imkd_watchdog_options options{};
    options.struct_size = sizeof options;
    options.deadline = 1e-6;
    options.user = &user;
    options.missed = [](double, void* given) {
      User& user = *static_cast<User*>(given);
      imkd_watchdog_destroy(user.watchdog);
      user.gone = true;
    };
    ASSERT_EQ(imkd_watchdog_start(watchdog, &options), IMKD_OK);
    while (!gone) std::this_thread::yield();
  }
}

// ---- the same by the C ABI ----
struct Handles {
  std::string bundle, rig = small_rig().to_json();
  imkd_detector* detector = imkd_detector_new();
  imkd_synchronizer* synchronizer = imkd_synchronizer_new();
  imkd_monitor* monitor = imkd_monitor_new();
  imkd_watchdog* watchdog = imkd_watchdog_new();
  imkd_tracker* tracker = imkd_tracker_new();
  Moment data = moment(small_rig(), 1, 40);
  std::atomic<int> lent{0}, released{0};

  Handles() {
    bundle = testing::TempDir() + "imkd_live_threads.imkd";
    write_bundle(bundle);
    imkd_options options{};
    options.struct_size = sizeof options;
    options.threads = 2;
    options.device = "cpu";
    EXPECT_EQ(imkd_detector_load(detector, bundle.c_str(), rig.c_str(), &options), IMKD_OK);
    EXPECT_EQ(imkd_monitor_load(monitor, bundle.c_str(), rig.c_str(), nullptr), IMKD_OK);
    EXPECT_EQ(imkd_tracker_load(tracker, bundle.c_str(), nullptr), IMKD_OK);
    load_synchronizer();
    imkd_watchdog_options watch{};
    watch.struct_size = sizeof watch;
    watch.deadline = 0.001;
    EXPECT_EQ(imkd_watchdog_start(watchdog, &watch), IMKD_OK);
  }
  ~Handles() {
    imkd_detector_destroy(detector);
    imkd_synchronizer_destroy(synchronizer);
    imkd_monitor_destroy(monitor);
    imkd_watchdog_destroy(watchdog);
    imkd_tracker_destroy(tracker);
    std::filesystem::remove_all(bundle);
  }
  int load_synchronizer() { return imkd_synchronizer_load(synchronizer, bundle.c_str(), rig.c_str(), nullptr); }
  void push_camera(int camera, int round) {
    const ImageView& view = data.frames.cameras[std::size_t(camera)];
    imkd_image image{};
    image.struct_size = sizeof image;
    image.width = view.width;
    image.height = view.height;
    image.has_timestamp = 1;
    image.timestamp_ns = time_of(round);
    image.data = view.data;
    ++lent;
    const auto release = [](void* handles) { ++static_cast<Handles*>(handles)->released; };
    EXPECT_EQ(imkd_synchronizer_push_camera(synchronizer, camera, &image, time_of(round), release, this, nullptr), 0);
    EXPECT_EQ(imkd_monitor_observe_camera(monitor, camera, &image, time_of(round)), 0);
  }
  void push_radar(int radar, int round) {
    const RadarSweep& sweep = data.frames.sweeps[std::size_t(radar)];
    const imkd_sweep input{sizeof input, radar, sweep.count, 1, time_of(round), sweep.points, nullptr};
    EXPECT_EQ(imkd_synchronizer_push_radar(synchronizer, &input, time_of(round), nullptr, nullptr, nullptr), 0);
  }
};

int done_or_busy(int code) {
  EXPECT_TRUE(code == IMKD_OK || code == static_cast<int>(Code::detector_busy)) << code;
  return code;
}

void drive(Handles& h, std::atomic<bool>& driving) {  // the frame loop, as in imkd.h
  imkd_result result{};
  result.struct_size = sizeof result;
  imkd_tracks tracks{};
  tracks.struct_size = sizeof tracks;
  for (int round = 0; driving; ++round) {
    const imkd_frames* frames = nullptr;
    if (done_or_busy(imkd_synchronizer_pop(h.synchronizer, time_of(round % kRounds), &frames, nullptr)) || !frames)
      continue;
    if (done_or_busy(imkd_detector_infer(h.detector, frames, &result)) != IMKD_OK) continue;
    EXPECT_EQ(imkd_tracker_update(h.tracker, &result, &tracks), IMKD_OK);
    EXPECT_EQ(imkd_watchdog_beat(h.watchdog), IMKD_OK);
  }
}

TEST(LiveThreads, the_c_abi_keeps_its_promises_under_every_call_at_once) {
  Handles h;
  std::atomic<bool> driving{true};
  {
    Threads others;
    others.start([&] { drive(h, driving); });
    {
      Threads drivers;
      for (int i = 0; i < 2; ++i) {
        drivers.repeat(kRounds, [&, i](int round) { h.push_camera(i, round); });
        drivers.repeat(kRounds, [&, i](int round) { h.push_radar(i, round); });
      }
      drivers.repeat(10, [&](int round) {
        if (round % 5 == 4) done_or_busy(h.load_synchronizer());  // replaces what the others are using
        imkd_synchronizer_reset(h.synchronizer);
      });
      drivers.repeat(kRounds, [&](int) {
        imkd_counts counts{};
        counts.struct_size = sizeof counts;
        EXPECT_EQ(imkd_synchronizer_counts(h.synchronizer, &counts), IMKD_OK);
        EXPECT_NE(imkd_synchronizer_error(h.synchronizer), nullptr);
        EXPECT_NE(imkd_detector_error(h.detector), nullptr);
        EXPECT_EQ(imkd_watchdog_state(h.watchdog, nullptr, nullptr), IMKD_OK);
      });
      drivers.repeat(20, [&](int) { done_or_busy(imkd_detector_reset(h.detector)); });
    }
    driving = false;
  }
  imkd_synchronizer_destroy(h.synchronizer);
  h.synchronizer = nullptr;
  EXPECT_EQ(h.lent, 2 * kRounds);
  EXPECT_EQ(h.released, h.lent);
}

}  // namespace
