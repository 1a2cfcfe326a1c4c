// Tracker on hand-made drives.
#include "imkd/tracker.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "imkd/error.hpp"
#include "track_cases.hpp"

using namespace imkd;
using namespace imkd::fakes;
using namespace imkd::track_cases;

namespace {

TEST(Tracker, keeps_ids_and_estimates_velocities_from_positions_alone) {
  Tracker tracker(small_spec());
  for (int i = 0; i < 30; ++i) {
    const double t = 0.1 * i;
    const auto& tracks = tracker.update(result_at(t, {car(20 - 10 * t, 5), car(-20 + 5 * t, -3)}));
    ASSERT_EQ(ids(tracks), (Ids{1, 2}));
    EXPECT_EQ(std::isnan(tracks[0].box.vx), i == 0);
    EXPECT_FALSE(tracks[0].velocity_measured);
    if (i == 29) {
      EXPECT_NEAR(tracks[0].box.vx, -10, 0.5);
      EXPECT_NEAR(tracks[1].box.vx, 5, 0.3);
      EXPECT_LT(tracks[0].velocity_std, 2);
    }
  }
}

// Two objects meet head on, 1 m apart sideways and at the same moment, without measured velocities.
TEST(Tracker, keeps_the_ids_of_objects_that_meet) {
  Tracker tracker(small_spec());
  for (int i = 0; i <= 40; ++i) {
    const double t = 0.1 * i;
    std::vector<Detection> detections{car(-20 + 10 * t, 0.5), car(20 - 10 * t, -0.5)};
    if (i % 2) std::swap(detections[0], detections[1]);
    const auto& tracks = tracker.update(result_at(t, detections));
    ASSERT_EQ(ids(tracks), (Ids{1, 2})) << i;
    ASSERT_NEAR(tracks[0].box.x, -20 + 10 * t, 0.3) << i;
    ASSERT_NEAR(tracks[1].box.x, 20 - 10 * t, 0.3) << i;
  }
}

TEST(Tracker, keeps_the_ids_where_paths_cross_in_one_point) {
  Tracker tracker(small_spec());
  for (int i = 0; i <= 12; ++i) {  // 2 Hz, with velocities; both are at the origin at 3 s
    const double s = 4 * (0.5 * i - 3);
    const auto& tracks = tracker.update(result_at(0.5 * i, {car(s, 0, 4, 0), car(0, s, 0, 4)}));
    ASSERT_EQ(ids(tracks), (Ids{1, 2})) << i;
    if (i == 6) continue;
    ASSERT_NEAR(tracks[0].box.x, s, 0.3) << i;
    ASSERT_NEAR(tracks[1].box.y, s, 0.3) << i;
  }
}

TEST(Tracker, finds_an_object_again_after_an_occlusion) {
  Tracker tracker(small_spec());
  for (int i = 0; i < 40; ++i) {
    const bool hidden = i >= 15 && i < 27;  // for 1.2 s
    std::vector<Detection> detections;
    if (!hidden) detections.push_back(car(-20 + 0.8 * i, 4));
    const auto& tracks = tracker.update(result_at(0.1 * i, detections));
    ASSERT_EQ(ids(tracks), (Ids{1})) << i;
    ASSERT_EQ(tracks[0].state, hidden ? TrackState::coasting : TrackState::confirmed) << i;
    if (i <= 10) continue;
    ASSERT_NEAR(tracks[0].box.x, -20 + 0.8 * i, 0.3) << i;
  }
}

TEST(Tracker, ends_an_object_that_does_not_return) {
  Tracker tracker(small_spec());
  for (int i = 0; i < 10; ++i) tracker.update(result_at(0.1 * i, {car(10, 0)}));
  tracker.update(result_at(1.9, {}));
  EXPECT_EQ(tracker.update(result_at(2.8, {})).size(), 1u);  // 1.9 s after the last detection
  EXPECT_EQ(tracker.update(result_at(3.0, {})).size(), 0u);
  EXPECT_EQ(ids(tracker.update(result_at(3.1, {car(10, 0)}))), (Ids{2}));
}

TEST(Tracker, begins_no_track_below_the_birth_score_but_continues_one) {
  Tracker tracker(small_spec());
  EXPECT_TRUE(tracker.update(result_at(0, {car(10, 0, kNan, kNan, 0.19)})).empty());
  EXPECT_EQ(tracker.update(result_at(0.1, {car(10, 0, kNan, kNan, 0.3)}))[0].state, TrackState::tentative);
  const auto& tracks = tracker.update(result_at(0.2, {car(10, 0, kNan, kNan, 0.05)}));
  ASSERT_EQ(ids(tracks), (Ids{1}));
  EXPECT_EQ(tracks[0].hits, 2);
}

TEST(Tracker, never_joins_two_classes) {
  Tracker tracker(small_spec());
  tracker.update(result_at(0, {car(10, 0)}));
  Detection other = car(10, 0);
  other.label = 1;
  EXPECT_EQ(ids(tracker.update(result_at(0.1, {other}))), (Ids{1, 2}));
}

// The ego drives a circle of 20 m at 10 m/s; one object stands, one drives 5 m/s along the world's x axis.
void turns(bool with_pose) {
  Tracker tracker(small_spec());
  for (int i = 0; i <= 24; ++i) {  // 2 Hz, nearly two rounds
    const double t = 0.5 * i, yaw = 0.5 * t;
    const Mat4 T_world_ego = turned(yaw, 20 * std::sin(yaw), 20 - 20 * std::cos(yaw));
    const Mat4 T_ego_world = inverse_rigid(T_world_ego);
    const Vec3 stands = transform(T_ego_world, {10, 12, 0}), drives = transform(T_ego_world, {-30 + 5 * t, 30, 0});
    Result result = result_at(t, {car(stands[0], stands[1]), car(drives[0], drives[1])});
    for (Detection& d : result.detections) d.yaw = static_cast<float>(std::remainder(-yaw, 2 * std::acos(-1.0)));
    result.ego = with_pose ? Ego{T_world_ego, {}} : Ego{{}, Vec3{10, 0, 0.5}};
    const auto& tracks = tracker.update(result);
    ASSERT_EQ(ids(tracks), (Ids{1, 2})) << i;
    if (i < 12) continue;
    const Vec3 velocity = rotate(T_ego_world, {5, 0, 0});
    ASSERT_NEAR(tracks[0].box.vx, 0, 0.01) << i;
    ASSERT_NEAR(tracks[0].box.vy, 0, 0.01) << i;
    ASSERT_NEAR(tracks[1].box.vx, velocity[0], 0.1) << i;
    ASSERT_NEAR(tracks[1].box.vy, velocity[1], 0.1) << i;
    ASSERT_NEAR(std::remainder(tracks[1].box.yaw + yaw, 2 * std::acos(-1.0)), 0, 1e-3) << i;
  }
}

TEST(Tracker, follows_objects_over_ground_while_the_ego_turns_by_its_poses) { turns(true); }
TEST(Tracker, follows_objects_over_ground_while_the_ego_turns_by_its_twist) { turns(false); }

// The double nearest below pi is above it as a float.
TEST(Tracker, a_yaw_is_below_pi_as_a_float_too) {
  const auto pi = static_cast<float>(std::acos(-1.0));
  Tracker tracker(small_spec());
  tracker.update(result_at(0, {car(10, 0)}));
  Result later = result_at(0.1, {});
  later.ego.T_world_ego = turned(1e-9 - std::acos(-1.0), 0, 0);
  const auto& tracks = tracker.update(later);
  ASSERT_EQ(ids(tracks), (Ids{1}));
  EXPECT_LT(tracks[0].box.yaw, pi);
  EXPECT_GE(tracks[0].box.yaw, -pi);
}

TEST(Tracker, smooths_velocity_and_yaw) {
  std::mt19937 random(5);
  std::normal_distribution<double> noise;
  Tracker tracker(small_spec());
  double raw = 0, smooth = 0, raw_yaw = 0, smooth_yaw = 0;
  for (int i = 0; i < 200; ++i) {
    Detection d = car(-40 + 0.6 * i + 0.3 * noise(random), 0.3 * noise(random), 6 + noise(random), noise(random));
    d.yaw =
        static_cast<float>(0.15 * noise(random) + (i % 25 == 24 ? std::acos(-1.0) : 0));  // some the wrong way round
    const Detection& box = tracker.update(result_at(0.1 * i, {d}))[0].box;
    if (i < 20) continue;
    raw += std::pow(d.vx - 6, 2) + d.vy * d.vy;
    smooth += std::pow(box.vx - 6, 2) + box.vy * box.vy;
    raw_yaw += d.yaw * d.yaw;
    smooth_yaw += box.yaw * box.yaw;
  }
  EXPECT_LT(smooth, 0.3 * raw);
  EXPECT_LT(smooth_yaw, 0.05 * raw_yaw);
  EXPECT_LT(smooth_yaw / 180, 0.15 * 0.15 / 2);  // without the wrong ones, too
}

TEST(Tracker, never_gives_an_id_again) {
  Tracker tracker(small_spec());
  std::int64_t largest = 0;
  for (int round = 0; round < 5; ++round) {
    const auto first = ids(tracker.update(result_at(10 * round, {car(10, 0), car(10, 8)})));
    EXPECT_EQ(first, (Ids{largest + 1, largest + 2}));
    largest = first.back();
    if (round == 3) tracker.reset();
  }
  EXPECT_EQ(tracker.health().restarts, 3);  // by the gaps of 10 s; reset is none
}

TEST(Tracker, restarts_where_time_goes_back_and_ignores_a_repeated_time) {
  Tracker tracker(small_spec());
  tracker.update(result_at(1, {car(10, 0)}));
  EXPECT_EQ(ids(tracker.update(result_at(1.1, {car(10, 0)}))), (Ids{1}));
  const auto& same = tracker.update(result_at(1.1, {car(10, 0), car(20, 0)}));
  EXPECT_EQ(ids(same), (Ids{1}));
  EXPECT_EQ(same[0].hits, 2);
  EXPECT_EQ(same[0].detection, -1);  // else it could index beyond the boxes of this frame
  EXPECT_EQ(tracker.health().repeats, 1);
  EXPECT_EQ(ids(tracker.update(result_at(0.5, {car(10, 0)}))), (Ids{2}));
  EXPECT_EQ(tracker.health().restarts, 1);
  Result last = result_at(0, {car(10, 0)});
  last.timestamp_ns = std::numeric_limits<std::int64_t>::min();
  EXPECT_EQ(ids(tracker.update(last)), (Ids{3}));
  last.timestamp_ns = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(ids(tracker.update(last)), (Ids{4}));
}

TEST(Tracker, ignores_what_is_no_box_and_counts_it) {
  Tracker tracker(small_spec());
  std::vector<Detection> detections{car(10, 0)};
  for (float Detection::* field : {&Detection::x, &Detection::y, &Detection::z, &Detection::length, &Detection::width,
                                   &Detection::height, &Detection::yaw, &Detection::score})
    for (const float value : {kNan, kInf, -kInf, 2e5F}) {
      detections.push_back(car(30, 0));
      detections.back().*field = value;
    }
  detections.push_back(car(30, 0, 0, 0, -0.1));
  detections.push_back(car(30, 0));
  detections.back().length = 0;
  for (const int label : {-1, 2, 1'000'000}) {
    detections.push_back(car(30, 0));
    detections.back().label = label;
  }
  detections.push_back(car(-10, 0, kInf, 0));  // a box, whose velocity is unknown
  const auto& tracks = tracker.update(result_at(0, detections));
  EXPECT_EQ(ids(tracks), (Ids{1, 2}));
  EXPECT_EQ(tracker.health().detections_invalid, 8 * 4 + 5);
  EXPECT_FALSE(tracks[1].velocity_measured);
  EXPECT_EQ(tracks[1].detection, static_cast<int>(detections.size()) - 1);
}

TEST(Tracker, tracks_in_the_ego_frame_without_ego_motion) {
  Tracker tracker(small_spec());
  for (int i = 0; i < 20; ++i) {
    Result result = result_at(0.1 * i, {car(20 - 0.5 * i, 0, 0, 0)});  // stands; the ego drives at 5 m/s
    result.ego = {};
    const auto& tracks = tracker.update(result);
    ASSERT_EQ(ids(tracks), (Ids{1}));
    if (i == 19) {
      EXPECT_NEAR(tracks[0].box.vx, -5, 0.5);  // relative
    }
  }
  EXPECT_FALSE(tracker.health().over_ground);
  EXPECT_EQ(ids(tracker.update(result_at(2, {car(10, 0)}))), (Ids{2}));  // the ego motion becomes known
  EXPECT_TRUE(tracker.health().over_ground);
}

TEST(Tracker, refuses_options_out_of_range) {
  const auto refused = [](TrackerOptions options) {
    try {
      Tracker tracker(small_spec(), options);
    } catch (const Error& error) {
      return error.code() == Code::spec_bad_value;
    }
    return false;
  };
  TrackerOptions good;
  EXPECT_FALSE(refused(good));
  for (double TrackerOptions::* field : {&TrackerOptions::birth_score, &TrackerOptions::confirm_score,
                                         &TrackerOptions::max_age, &TrackerOptions::max_gap})
    for (const double value : {-1.0, 61.0, std::nan("")}) {
      TrackerOptions options;
      options.*field = value;
      EXPECT_TRUE(refused(options));
    }
  good.max_tracks = 0;
  EXPECT_TRUE(refused(good));
  good.max_tracks = 512;
  good.classes = {{"car", 0.5, 1, 0, 1}};
  EXPECT_TRUE(refused(good));
  good.classes = {{"no such class", 0.5, 1, 1, 1}};
  EXPECT_TRUE(refused(good));
  good.classes = {{"car", 0.5, 1, 1, 1}};
  EXPECT_FALSE(refused(good));
  good.classes.push_back({"car", 0.6, 1, 1, 1});
  EXPECT_TRUE(refused(good));
}

}  // namespace
