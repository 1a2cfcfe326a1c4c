// Tracker on random frames.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <limits>
#include <random>
#include <set>

#include "imkd/tracker.hpp"
#include "track_cases.hpp"

using namespace imkd;
using namespace imkd::fakes;
using namespace imkd::track_cases;

namespace {

#ifdef IMKD_SANITIZED
constexpr int kFrames = 4'000;
#else
constexpr int kFrames = 100'000;
#endif

class RandomFrames {
 public:
  Result next() {
    Result result;
    const int kind = pick(40);
    time_ += kind == 0   ? -static_cast<std::int64_t>(pick(3)) * kSecond
             : kind == 1 ? pick(5) * kSecond
                         : 50'000'000 + pick(50) * 1'000'000;
    result.timestamp_ns = time_;
    const int count = pick(50) ? pick(30) : 400;
    for (int i = 0; i < count; ++i) result.detections.push_back(detection());
    if (pick(10)) result.ego.twist = Vec3{uniform(-20, 20), uniform(-1, 1), uniform(-1, 1)};
    if (pick(2)) result.ego.T_world_ego = turned(uniform(-3, 3), uniform(-50, 50), uniform(-50, 50));
    if (pick(100) == 0) (*(result.ego.twist = Vec3{}))[1] = kInf;
    if (pick(100) == 0) (*(result.ego.T_world_ego = identity4()))[pick(16)] = kNan;
    return result;
  }

 private:
  int pick(int count) { return std::uniform_int_distribution<int>(0, count - 1)(random_); }
  double uniform(double least, double most) { return std::uniform_real_distribution<double>(least, most)(random_); }

  Detection detection() {
    Detection d = car(uniform(-50, 50), uniform(-50, 50), uniform(-30, 30), uniform(-5, 5), uniform(0, 1));
    d.yaw = static_cast<float>(uniform(-4, 4));
    d.label = pick(2);
    if (pick(3) == 0) d.vx = d.vy = kNan;
    const float odd[] = {kNan, kInf, -kInf, 3e38F, -1, 0};
    float Detection::* const fields[] = {&Detection::x, &Detection::vx, &Detection::yaw, &Detection::score,
                                         &Detection::height};
    if (pick(30) == 0) d.*fields[pick(5)] = odd[pick(6)];
    return d;
  }

  std::mt19937 random_{11};
  std::int64_t time_ = 0;
};

TEST(Tracker, stays_sound_over_random_frames) {
  TrackerOptions options;
  options.max_tracks = 200;
  Tracker tracker(small_spec(), options);
  RandomFrames frames;
  std::int64_t largest = 0;
  std::size_t most = 0;
  for (int frame = 0; frame < kFrames; ++frame) {
    const Result result = frames.next();
    const std::int64_t repeats = tracker.health().repeats;
    const auto& tracks = tracker.update(result);
    const bool repeated = tracker.health().repeats > repeats;
    ASSERT_LE(tracks.size(), 200u);
    most = std::max(most, tracks.size());
    std::set<int> detections;
    std::int64_t before = 0;
    for (const Track& track : tracks) {
      ASSERT_GT(track.id, before);  // by id, hence unique
      before = track.id;
      if (track.hits == 1 && track.detection >= 0) {
        ASSERT_GT(track.id, largest);
      }
      const Detection& d = track.box;
      for (const float x : {d.x, d.y, d.z, d.length, d.width, d.height, d.yaw, d.score, track.velocity_std})
        ASSERT_TRUE(std::isfinite(x));
      ASSERT_EQ(std::isfinite(d.vx) && std::isfinite(d.vy), track.velocity_measured || track.hits > 1);
      ASSERT_TRUE(d.length > 0 && d.width > 0 && d.height > 0 && d.score >= 0 && d.score <= 1);
      ASSERT_LE(std::abs(d.yaw), 3.1416F);
      ASSERT_EQ(track.detection >= 0, track.coasting == 0 && !repeated);
      ASSERT_LE(track.coasting, 2.0F);
      if (track.detection < 0) continue;
      ASSERT_TRUE(detections.insert(track.detection).second);
      ASSERT_EQ(d.label, result.detections[static_cast<std::size_t>(track.detection)].label);
    }
    largest = std::max(largest, before);
  }
  EXPECT_GT(most, 100u);
}

TEST(Tracker, is_deterministic) {
  Tracker a(small_spec()), b(small_spec());
  RandomFrames frames;
  for (int frame = 0; frame < 500; ++frame) {
    const Result result = frames.next();
    const std::vector<Track> first = a.update(result);
    const std::vector<Track>& second = b.update(result);
    ASSERT_EQ(ids(first), ids(second));
    for (std::size_t i = 0; i < first.size(); ++i) {
      ASSERT_EQ(first[i].box.x, second[i].box.x);
      ASSERT_EQ(first[i].box.yaw, second[i].box.yaw);
      ASSERT_EQ(first[i].velocity_std, second[i].velocity_std);
    }
  }
}

#ifndef IMKD_SANITIZED
// Processor time, which another program does not lengthen; the bound allows for a machine five times as slow.
TEST(Tracker, takes_less_than_a_millisecond_for_a_hundred_objects) {
  Tracker tracker(small_spec());
  std::mt19937 random(1);
  std::normal_distribution<double> noise(0, 0.3);
  std::uniform_real_distribution<double> place(-50, 50);
  std::vector<std::pair<double, double>> objects(100);
  for (auto& [x, y] : objects) x = place(random), y = place(random);
  std::vector<double> us;
  for (int frame = 0; frame < 1100; ++frame) {
    std::vector<Detection> detections;
    for (const auto& [x, y] : objects)
      detections.push_back(car(x + 0.1 * frame + noise(random), y + noise(random), 1, 0));
    std::shuffle(detections.begin(), detections.end(), random);
    const Result result = result_at(0.1 * frame, std::move(detections));
    const std::clock_t begin = std::clock();
    ASSERT_GE(tracker.update(result).size(), 90u);
    if (frame >= 100) us.push_back(1e6 * static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
  }
  std::sort(us.begin(), us.end());
  std::printf("100 objects: p50 %.0f us, p99 %.0f us\n", us[500], us[990]);
  EXPECT_LT(us[500], 1000);
}
#endif

}  // namespace
