// Threads: two detectors run concurrently without interference; a second thread's call on the same one is refused.
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "fakes.hpp"

using namespace imkd;
using namespace imkd::fakes;

namespace {

class Gate {  // blocks an engine during a frame
 public:
  void pass() {
    std::unique_lock<std::mutex> lock(mutex_);
    inside_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
  }
  void wait_until_inside() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return inside_; });
  }
  void open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool inside_ = false, open_ = false;
};

class GatedEngine : public FakeEngine {
 public:
  GatedEngine(const FakeEngine& engine, Gate& gate) : FakeEngine(engine), gate_(gate) {}
  void run(void* stream) override {
    gate_.pass();
    FakeEngine::run(stream);
  }

 private:
  Gate& gate_;
};

std::vector<Detection> boxes_of(Detector& detector, const Moment& m) { return detector.infer(m.frames).detections; }

bool same(const std::vector<Detection>& a, const std::vector<Detection>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(Detection)) == 0;
}

DetectorOptions threads(int count) {
  DetectorOptions options;
  options.threads = count;
  return options;
}

TEST(Threads, a_second_threads_call_is_refused_and_disturbs_nothing) {
  const SensorRig rig = small_rig();
  const Moment m = moment(rig), other = moment(rig, 2);
  Detector plain(small_spec(), rig, camera_engine(), bev_engine(), threads(1));
  const std::vector<Detection> expected = boxes_of(plain, m), expected_other = boxes_of(plain, other);
  ASSERT_FALSE(same(expected, expected_other));

  Gate gate;
  Detector detector(small_spec(), rig, camera_engine(), std::make_shared<GatedEngine>(*bev_engine(), gate), threads(1));
  std::vector<Detection> boxes;
  std::thread first([&] { boxes = boxes_of(detector, m); });
  gate.wait_until_inside();
  EXPECT_EQ(code_of([&] { detector.infer(other.frames); }), Code::detector_busy);
  EXPECT_EQ(code_of([&] { detector.set_rig(rig); }), Code::detector_busy);
  EXPECT_EQ(code_of([&] { detector.reset(); }), Code::detector_busy);
  gate.open();
  first.join();
  EXPECT_TRUE(same(boxes, expected));
  EXPECT_TRUE(same(boxes_of(detector, other), expected_other));  // the next call succeeds
}

TEST(Threads, a_call_that_throws_leaves_no_lock_behind) {
  const SensorRig rig = small_rig();
  const Moment m = moment(rig);
  const auto bev = bev_engine();
  Detector detector(small_spec(), rig, camera_engine(), bev, threads(1));
  bev->fails = true;
  EXPECT_EQ(code_of([&] { detector.infer(m.frames); }), Code::engine_run);
  EXPECT_EQ(code_of([&] { detector.infer({}); }), Code::frame_count);
  EXPECT_EQ(code_of([&] { detector.set_rig({}); }), Code::rig_empty);
  bev->fails = false;
  EXPECT_FALSE(boxes_of(detector, m).empty());
}

// Detectors with their own pools and moments, concurrently and in turn.
TEST(Threads, detectors_at_once_find_what_they_find_alone) {
  constexpr int kDetectors = 4, kRounds = 200, kMoments = 5;
  const SensorRig rig = small_rig();
  std::vector<Moment> moments;
  for (unsigned seed = 0; seed < kMoments; ++seed) moments.push_back(moment(rig, seed + 1));
  std::vector<std::vector<Detection>> alone;
  Detector detector(small_spec(), rig, camera_engine(), bev_engine(), threads(1));
  for (const Moment& m : moments) alone.push_back(boxes_of(detector, m));

  std::atomic<int> wrong{0};
  std::vector<std::thread> workers;
  for (int d = 0; d < kDetectors; ++d)
    workers.emplace_back([&, d] {
      Detector detector(small_spec(), rig, camera_engine(), bev_engine(), threads(1 + d % 2));
      for (int i = 0; i < kRounds; ++i) {
        const std::size_t which = std::size_t(i * (d + 1)) % kMoments;
        if (!same(boxes_of(detector, moments[which]), alone[which])) ++wrong;
      }
    });
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(wrong, 0);
}

// Unordered calls from four threads: each succeeds or is refused, and the detector's results stay the same.
TEST(Threads, one_detector_under_fire) {
  const SensorRig rig = small_rig();
  const Moment m = moment(rig);
  Detector detector(small_spec(), rig, camera_engine(), bev_engine(), threads(1));
  const std::vector<Detection> expected = boxes_of(detector, m);
  std::atomic<int> done{0}, refused{0};
  std::vector<std::thread> workers;
  for (int t = 0; t < 4; ++t)
    workers.emplace_back([&] {
      for (int i = 0; i < 300; ++i) {
        const Code code = code_of([&] { detector.infer(m.frames); });
        done += code == Code{};
        refused += code == Code::detector_busy;
      }
    });
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(done + refused, 1200);
  EXPECT_GT(done, 0);
  EXPECT_TRUE(same(boxes_of(detector, m), expected));
}

}  // namespace
