// History alone: times and poses that Python refuses, and that its capacity suffices at any frame rate.
#include "history.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "fakes.hpp"

using namespace imkd;

namespace {

constexpr std::int64_t kMillisecond = 1'000'000, kSecond = 1000 * kMillisecond;
const double kNan = std::numeric_limits<double>::quiet_NaN();

struct Track {
  ModelSpec spec = fakes::history_spec();  // two slots of half a second
  History history{spec};
  std::vector<float> maps = std::vector<float>(9, -1);  // a number for each stored map
  std::vector<float> slots = std::vector<float>(2, -1);
  Ego ego;

  Track() { ego.T_world_ego = identity4(); }
  // A frame whose map is its time in seconds; returns how many slots were filled.
  int frame(std::int64_t time_ns) {
    history.advance(time_ns, ego);
    int filled = 0;
    for (int k : {1, 2}) {
      const int map = history.past(k).map;
      slots[static_cast<std::size_t>(k) - 1] = map < 0 ? 0 : maps.at(static_cast<std::size_t>(map));
      filled += map >= 0;
    }
    if (const int map = history.next_map(); map >= 0) {
      maps.at(static_cast<std::size_t>(map)) = static_cast<float>(static_cast<double>(time_ns) / kSecond);
      history.store(map);
    }
    return filled;
  }
  float slot(int k) const { return slots[static_cast<std::size_t>(k) - 1]; }
};

TEST(History, FindsAMapForEverySlotAtAnyRateFromTwicePerInterval) {
  for (std::int64_t period_ms : {1, 3, 7, 16, 33, 40, 62, 77, 100, 124, 125, 126, 143, 200, 249, 250}) {
    Track track;
    for (std::int64_t t = 0; t <= 4000; t += period_ms) {
      const int filled = track.frame(t * kMillisecond);
      if (t < 2000) continue;
      ASSERT_EQ(filled, 2) << period_ms << " ms, at " << t;
      for (int k : {1, 2})
        ASSERT_LE(std::abs(t * 1e-3 - track.slot(k) - 0.5 * k), 0.125 + 1e-6) << period_ms << " ms, at " << t;
    }
  }
}

TEST(History, OfThePeriodItselfIsTheFramesBefore) {
  Track track;
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(track.frame(i * kSecond / 2), std::min(i, 2));
    EXPECT_EQ(track.slot(1), i > 0 ? 0.5f * (i - 1) : 0.f);
    EXPECT_EQ(track.slot(2), i > 1 ? 0.5f * (i - 2) : 0.f);
  }
}

TEST(History, TimesAtTheEndsOfInt64StartAfresh) {
  constexpr auto kFirst = std::numeric_limits<std::int64_t>::min(), kLast = std::numeric_limits<std::int64_t>::max();
  Track track;
  for (std::int64_t time : {kFirst, kLast, std::int64_t{0}, kLast, kFirst, kFirst + kSecond / 2}) {
    const int filled = track.frame(time);
    EXPECT_EQ(filled, time == kFirst + kSecond / 2 ? 1 : 0);
  }
}

TEST(History, APoseOrTwistThatIsNoNumberIsNoMotion) {
  for (int element : {0, 3, 7, 11}) {
    Track track;
    track.frame(0);
    (*track.ego.T_world_ego)[element] = kNan;
    track.frame(kSecond / 2);
    for (float value : track.slots) ASSERT_EQ(value, 0) << element;
  }
  Track track;
  track.ego.T_world_ego.reset();
  track.ego.twist = Vec3{1, 0, 0};
  track.frame(0);
  EXPECT_EQ(track.frame(kSecond / 2), 1);
  track.ego.twist = Vec3{kNan, 0, 0};
  EXPECT_EQ(track.frame(kSecond), 0);
}

TEST(History, ADiscardedMapIsInNoSlotAndItsIndexIsUsedNext) {
  const ModelSpec spec = fakes::history_spec();
  History history(spec);
  Ego ego;
  ego.twist = Vec3{};
  const int capacity = History::capacity(spec.history);
  for (int i = 0; i < capacity + 3; ++i) {
    history.advance(i * kSecond / 2, ego);
    const int map = history.next_map();
    EXPECT_EQ(map, (i < 4 ? i : i - 1) % capacity);  // the index of frame 3 is used again by frame 4
    EXPECT_EQ(history.past(1).map >= 0, i != 0 && i != 4);
    if (i == 3)
      history.discard(map);
    else
      history.store(map);
  }
}

TEST(History, WithoutFramesHoldsNothing) {
  ModelSpec spec = fakes::small_spec();
  History history(spec);
  EXPECT_EQ(History::capacity(spec.history), 0);
  history.advance(0, {});
  EXPECT_EQ(history.past(1).map, -1);
  EXPECT_EQ(history.next_map(), -1);
}

}  // namespace
