// The rules of the Synchronizer by themselves: hand-made times in ms, written as ns.
#include <gtest/gtest.h>

#include <limits>

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

}  // namespace
