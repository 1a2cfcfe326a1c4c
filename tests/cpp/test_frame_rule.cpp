// The rules of the Synchronizer by themselves: hand-made times in ms, written as ns.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>

#include "frame_rule.hpp"
#include "imkd/error.hpp"

using namespace imkd;

namespace {

constexpr std::int64_t kMs = 1'000'000;
constexpr QueueSummary kCovers{true, false}, kCoversAndSilent{true, true};
constexpr QueueSummary kMissing{false, false}, kMissingAndSilent{false, true};

// tolerance 40, timeout 100, max_delay 1000, max_future 100, lost_after 1000, max_age 600 ms
FrameRule default_rule() { return FrameRule(SynchronizerOptions{}, 0.6); }

// A frame of time 100 ms whose reference item arrived at 150 ms.
FrameDecision decide(const std::vector<QueueSummary>& queues, std::int64_t now_ms) {
  return default_rule().decide(100 * kMs, 150 * kMs, queues, now_ms * kMs);
}

TEST(FrameRule, options_are_in_ns) {
  const FrameRule rule = default_rule();
  EXPECT_EQ(rule.tolerance, 40 * kMs);
  EXPECT_EQ(rule.timeout, 100 * kMs);
  EXPECT_EQ(rule.max_delay, 1000 * kMs);
  EXPECT_EQ(rule.max_future, 100 * kMs);
  EXPECT_EQ(rule.lost_after, 1000 * kMs);
  EXPECT_EQ(rule.max_age, 600 * kMs);
}

TEST(FrameRule, an_option_out_of_range_is_refused_with_its_name_value_and_range) {
  SynchronizerOptions options;
  options.timeout = -2.5;
  try {
    FrameRule(options, 0.6);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::spec_bad_value);
    EXPECT_EQ(error.where(), "SynchronizerOptions::timeout");
    EXPECT_NE(error.problem().find("-2.5"), std::string::npos);
    EXPECT_NE(error.fix().find("0 to 3600 s"), std::string::npos);
  }
}

// ---- frame or wait ----
TEST(FrameRule, a_frame_with_everything_is_complete_at_once) {
  EXPECT_EQ(decide({kCovers, kCovers, kCovers}, 150), FrameDecision::complete);
  EXPECT_EQ(decide({kCovers, kCoversAndSilent}, 150), FrameDecision::complete);
  EXPECT_EQ(decide({}, 150), FrameDecision::complete);
}

TEST(FrameRule, a_frame_waits_for_a_missing_sensor_until_its_timeout) {
  EXPECT_EQ(decide({kCovers, kMissing}, 150), FrameDecision::wait);
  EXPECT_EQ(decide({kCovers, kMissing}, 249), FrameDecision::wait);
  EXPECT_EQ(decide({kCovers, kMissing}, 250), FrameDecision::incomplete);
}

TEST(FrameRule, a_frame_does_not_wait_for_a_silent_sensor) {
  EXPECT_EQ(decide({kCovers, kMissingAndSilent}, 150), FrameDecision::incomplete);
  EXPECT_EQ(decide({kCovers, kMissingAndSilent, kMissing}, 150), FrameDecision::wait);
}

TEST(FrameRule, a_frame_expires_max_delay_and_timeout_after_its_time) {
  EXPECT_EQ(decide({kCovers}, 1200), FrameDecision::complete);
  EXPECT_EQ(decide({kCovers}, 1201), FrameDecision::expired);
  EXPECT_EQ(decide({kCovers, kMissing}, 1201), FrameDecision::expired);
}

TEST(FrameRule, without_a_timeout_no_frame_waits) {
  SynchronizerOptions options;
  options.timeout = 0;
  EXPECT_EQ(FrameRule(options, 0.6).decide(0, 0, {kMissing}, 0), FrameDecision::incomplete);
}

// ---- silence ----
TEST(FrameRule, silence_counts_from_the_last_arrival_or_else_from_the_start) {
  const FrameRule rule = default_rule();
  EXPECT_FALSE(rule.silent(500 * kMs, 0, 1500 * kMs));
  EXPECT_TRUE(rule.silent(500 * kMs, 0, 1501 * kMs));
  EXPECT_FALSE(rule.silent(std::nullopt, 700 * kMs, 1700 * kMs));
  EXPECT_TRUE(rule.silent(std::nullopt, 700 * kMs, 1701 * kMs));
}

// ---- admission ----
TEST(FrameRule, items_are_kept_from_max_delay_before_now_to_max_future_after_it) {
  const FrameRule rule = default_rule();
  const auto admit = [&](std::int64_t time_ms) { return rule.admit(time_ms * kMs, kNever, 5000 * kMs); };
  EXPECT_EQ(admit(3999), Pushed::late);
  EXPECT_EQ(admit(4000), Pushed::kept);
  EXPECT_EQ(admit(5100), Pushed::kept);
  EXPECT_EQ(admit(5101), Pushed::future);
}

TEST(FrameRule, items_at_or_before_the_floor_are_late) {
  const FrameRule rule = default_rule();
  EXPECT_EQ(rule.admit(4500 * kMs, 4500 * kMs, 5000 * kMs), Pushed::late);
  EXPECT_EQ(rule.admit(4500 * kMs + 1, 4500 * kMs, 5000 * kMs), Pushed::kept);
}

TEST(FrameRule, times_at_the_ends_of_int64_do_not_overflow) {
  const FrameRule rule = default_rule();
  constexpr std::int64_t kFirst = std::numeric_limits<std::int64_t>::min() + 1;
  constexpr std::int64_t kLast = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(rule.admit(kLast, kNever, kFirst), Pushed::future);
  EXPECT_EQ(rule.admit(kFirst, kNever, kLast), Pushed::late);
  EXPECT_EQ(rule.admit(kLast, kNever, kLast), Pushed::kept);
  EXPECT_EQ(rule.decide(kFirst, kFirst, {kMissing}, kLast), FrameDecision::expired);
  EXPECT_TRUE(rule.silent(kFirst, 0, kLast));
}

// ---- what later frames can use ----
TEST(FrameRule, floors_follow_the_last_frame) {
  const FrameRule rule = default_rule();
  EXPECT_EQ(rule.image_floor(2000 * kMs, true), 2000 * kMs);
  EXPECT_EQ(rule.image_floor(2000 * kMs, false), 1960 * kMs);
  EXPECT_EQ(rule.sweep_floor(2000 * kMs), 1400 * kMs);
  EXPECT_EQ(rule.image_floor(kNever, true), kNever);
  EXPECT_EQ(rule.image_floor(kNever, false), kNever);
  EXPECT_EQ(rule.sweep_floor(kNever), kNever);
}

TEST(FrameRule, sweeps_count_from_max_age_before_the_frame_to_tolerance_after_it) {
  const FrameRule rule = default_rule();
  const auto in_window = [&](std::int64_t time_ms) { return rule.in_sweep_window(time_ms * kMs, 2000 * kMs); };
  EXPECT_FALSE(in_window(1399));
  EXPECT_TRUE(in_window(1400));
  EXPECT_TRUE(in_window(2040));
  EXPECT_FALSE(in_window(2041));
}

// ---- a clock that steps back ----
// Sensors 0 and 1 and the ego motion, stream 2. Times in ms.
constexpr std::size_t kEgo = 2;
constexpr ClockStep kNone = ClockStep::none, kSuspected = ClockStep::suspected, kCertain = ClockStep::certain;

struct Clock {
  ClockStepRule steps{2};
  std::int64_t now_ms = 0;
  std::set<std::size_t> silent = {};

  ClockStep push(std::size_t stream, std::int64_t time_ms, std::int64_t call_ms) {
    now_ms = std::max(now_ms, call_ms);
    return steps.observe(default_rule(), stream, time_ms * kMs, call_ms * kMs, now_ms * kMs,
                         [&](std::size_t sensor) { return silent.count(sensor) > 0; });
  }

  // Items of the streams every 100 ms from first to last, measured and delivered at one time.
  void play(const std::vector<std::size_t>& streams, std::int64_t first_ms, std::int64_t last_ms) {
    for (std::int64_t time = first_ms; time <= last_ms; time += 100)
      for (const std::size_t stream : streams) ASSERT_EQ(push(stream, time, time), kNone) << time;
  }
};

TEST(ClockStepRule, the_second_item_of_a_sensor_confirms_that_now_and_its_time_stepped_back) {
  Clock clock;
  clock.play({0, 1}, 0, 800);
  EXPECT_EQ(clock.push(0, 0, 0), kSuspected);
  EXPECT_EQ(clock.push(1, 0, 0), kSuspected);
  EXPECT_EQ(clock.push(0, 100, 100), kCertain);
}

TEST(ClockStepRule, the_ego_motion_confirms_it_too) {
  Clock clock;
  clock.play({0, 1, kEgo}, 0, 800);
  EXPECT_EQ(clock.push(0, 0, 0), kSuspected);
  EXPECT_EQ(clock.push(kEgo, 0, 0), kSuspected);
  EXPECT_EQ(clock.push(kEgo, 10, 10), kCertain);
}

TEST(ClockStepRule, a_sensor_that_stopped_before_the_step_does_not_hinder_it) {
  Clock clock;
  clock.play({0, 1}, 0, 300);
  clock.play({0}, 400, 800);
  EXPECT_EQ(clock.push(0, 0, 0), kSuspected);
  EXPECT_EQ(clock.push(0, 100, 100), kCertain);
}

TEST(ClockStepRule, one_late_item_with_an_old_now_is_suspected_and_confirms_nothing) {
  Clock clock;
  clock.play({0, 1}, 0, 800);
  for (const std::int64_t time : {900, 1000, 1100}) {
    EXPECT_EQ(clock.push(0, time - 600, time - 600), kSuspected);
    clock.play({0, 1}, time, time);
  }
}

TEST(ClockStepRule, repetition_of_a_suspected_item_confirms_nothing) {
  Clock clock;
  clock.play({0, 1}, 0, 800);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(clock.push(0, 300, 300), kSuspected);
}

TEST(ClockStepRule, an_item_is_suspected_if_now_is_more_than_max_future_back) {
  Clock clock;
  clock.play({0, 1}, 0, 800);
  EXPECT_EQ(clock.push(0, 600, 700), kNone);
  EXPECT_EQ(clock.push(0, 600, 699), kSuspected);
  EXPECT_EQ(clock.push(1, 800, 0), kNone);     // in the future at its own now
  EXPECT_EQ(clock.push(1, 750, 2000), kNone);  // late at its own now
}

TEST(ClockStepRule, an_old_now_with_a_new_time_is_not_suspected) {
  Clock clock;
  EXPECT_EQ(clock.push(0, 800, 800), kNone);
  EXPECT_EQ(clock.push(1, 800, 750), kNone);
  EXPECT_EQ(clock.push(0, 850, 770), kNone);
}

TEST(ClockStepRule, the_first_item_of_a_sensor_is_compared_with_the_newest_of_all) {
  Clock clock;
  clock.play({0}, 0, 800);
  EXPECT_EQ(clock.push(1, 300, 300), kSuspected);
  EXPECT_EQ(clock.push(1, 400, 800), kNone);  // late, but at the current time
}

TEST(ClockStepRule, where_now_stays_every_sensor_must_advance_four_times_behind_its_newest_item) {
  Clock clock;
  clock.play({0, 1, kEgo}, 0, 800);
  for (const std::int64_t time : {0, 100, 200, 300}) {
    EXPECT_EQ(clock.push(0, time, 800), kNone);
    EXPECT_EQ(clock.push(1, time, 800), kNone);
    EXPECT_EQ(clock.push(kEgo, time, 800), kNone);
  }
  EXPECT_EQ(clock.push(0, 400, 800), kNone);
  EXPECT_EQ(clock.push(1, 400, 800), kCertain);
}

TEST(ClockStepRule, one_sensor_that_steps_back_alone_is_not_enough) {
  Clock clock;
  clock.play({0, 1, kEgo}, 0, 2000);
  for (std::int64_t time = 2100; time < 2900; time += 100) {
    EXPECT_EQ(clock.push(0, time - 900, time), kNone);
    EXPECT_EQ(clock.push(1, time, time), kNone);
  }
}

TEST(ClockStepRule, ego_motion_that_steps_back_alone_is_not_enough) {
  Clock clock;
  clock.play({0, 1, kEgo}, 0, 2000);
  for (std::int64_t time = 2010; time < 2900; time += 10) EXPECT_EQ(clock.push(kEgo, time - 900, time), kNone);
}

TEST(ClockStepRule, a_silent_sensor_has_no_say) {
  Clock clock;
  clock.play({0, 1}, 0, 800);
  for (const std::int64_t time : {0, 100, 200, 300}) EXPECT_EQ(clock.push(0, time, 800), kNone);
  EXPECT_EQ(clock.push(0, 400, 800), kNone);
  clock.silent = {1};
  EXPECT_EQ(clock.push(0, 500, 800), kCertain);
}

TEST(ClockStepRule, a_sensor_that_never_delivered_has_no_say) {
  Clock clock;
  clock.play({0}, 0, 800);
  for (const std::int64_t time : {0, 100, 200, 300}) EXPECT_EQ(clock.push(0, time, 800), kNone);
  EXPECT_EQ(clock.push(0, 400, 800), kCertain);
}

TEST(ClockStepRule, repeated_descending_and_stuck_times_do_not_advance) {
  Clock clock;
  clock.play({0, 1}, 0, 800);
  for (const std::int64_t time : {700, 700, 700, 600, 500, 400, 300, 200, 100, 0, 0, 0})
    for (const std::size_t sensor : {0, 1}) EXPECT_EQ(clock.push(sensor, time, 800), kNone);
}

TEST(ClockStepRule, a_newer_item_forgets_what_lies_behind) {
  Clock clock;
  clock.play({0, 1}, 0, 800);
  for (int i = 0; i < 10; ++i) {
    for (const std::int64_t time : {0, 100, 200, 300})
      for (const std::size_t sensor : {0, 1}) EXPECT_EQ(clock.push(sensor, time, 800), kNone);
    clock.play({0, 1}, 810 + i, 810 + i);
  }
}

TEST(ClockStepRule, reset_discards_the_past) {
  Clock clock;
  clock.play({0, 1}, 0, 800);
  EXPECT_EQ(clock.push(0, 0, 0), kSuspected);
  clock.steps.reset();
  clock.now_ms = 0;
  clock.play({0, 1}, 0, 800);
  EXPECT_EQ(clock.push(1, 100, 100), kSuspected);
}

TEST(ClockStepRule, times_at_the_ends_of_int64_do_not_overflow) {
  constexpr std::int64_t kFirst = std::numeric_limits<std::int64_t>::min() + 1;
  constexpr std::int64_t kLast = std::numeric_limits<std::int64_t>::max();
  ClockStepRule steps(1);
  const auto observe = [&](std::int64_t time_ns, std::int64_t call_ns) {
    return steps.observe(default_rule(), 0, time_ns, call_ns, kLast, [](std::size_t) { return false; });
  };
  EXPECT_EQ(observe(kLast, kLast), kNone);
  EXPECT_EQ(observe(kFirst, kLast), kNone);
  EXPECT_EQ(observe(kFirst, kFirst), kSuspected);
  EXPECT_EQ(observe(kFirst + 1, kFirst), kCertain);
}

}  // namespace
