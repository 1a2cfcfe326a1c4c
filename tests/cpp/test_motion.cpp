// resolve_sweeps: the sweeps used, their order, and the health of the radars.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "imkd/error.hpp"
#include "imkd/ops.hpp"

using namespace imkd;

namespace {

constexpr std::int64_t kNow = 1'700'000'000'000'000'000, kMillisecond = 1'000'000;
const float kNan = std::numeric_limits<float>::quiet_NaN();

struct Resolve : testing::Test {
  ModelSpec spec;  // max_age 0.6 s
  SensorRig rig;
  FrameSet frames;
  Health health;
  std::vector<RadarInput> inputs = std::vector<RadarInput>(32);
  std::vector<float> good = {1, 2, 0, 10, 0, 3, 4, 0, 10, 0}, bad = {kNan, 2, 0, 10, 0, 3, 4, 0, 10, kNan};

  Resolve() {
    rig.radars = {{"front"}, {"left"}, {"right"}};
    frames.timestamp_ns = kNow;
  }
  void sweep(int radar, std::int64_t age_ms, const std::vector<float>& points) {
    frames.sweeps.push_back(
        {radar, kNow - age_ms * kMillisecond, points.data(), static_cast<int>(points.size() / 5), {}});
  }
  int resolve() {
    const EgoMotion motion(rig, frames, spec.radar.max_age);
    set_health(motion, health);
    return resolve_sweeps(spec, rig, frames, motion, inputs.data(), health);
  }
  std::vector<SensorState> states(SensorState a, SensorState b, SensorState c) { return {a, b, c}; }
};

TEST_F(Resolve, WithoutSweepsEveryRadarIsMissing) {
  EXPECT_EQ(resolve(), 0);
  EXPECT_EQ(health.radars, states(SensorState::missing, SensorState::missing, SensorState::missing));
}

TEST_F(Resolve, AgeDecidesBetweenOkLateAndStale) {
  sweep(0, 299, good);
  sweep(1, 301, good);
  sweep(2, 601, good);
  EXPECT_EQ(resolve(), 2);
  EXPECT_EQ(health.radars, states(SensorState::ok, SensorState::late, SensorState::stale));
}

// A radar of 20 Hz on the frames' own clock: the oldest sweep that the Synchronizer puts into a frame.
TEST_F(Resolve, ASweepOfExactlyTheLargestAgeIsUsedAndOneOfHalfOfItIsNotLate) {
  sweep(0, 600, good);
  sweep(1, 300, good);
  sweep(2, -600, good);
  EXPECT_EQ(resolve(), 3);
  EXPECT_EQ(health.radars, states(SensorState::late, SensorState::ok, SensorState::late));
}

// The localisation corrects itself by less than a jump between two poses that follow each other at 100 Hz.
TEST_F(Resolve, TwoPosesThatNoVehicleDrivesBetweenGiveNoTwist) {
  Mat4 back = identity4();
  back[3] = -1.9;
  frames.ego.T_world_ego = identity4();
  sweep(0, 10, good);
  frames.sweeps[0].T_world_ego = back;
  const EgoMotion motion(rig, frames, spec.radar.max_age);
  EXPECT_FALSE(motion.ego().twist);  // 190 m/s
  EXPECT_DOUBLE_EQ(motion.T_ref_at(kNow - 500 * kMillisecond)[3], -1.9);
}

TEST_F(Resolve, TheNewestSweepCounts) {
  sweep(0, 900, good);
  sweep(0, 10, good);
  sweep(1, 590, good);
  sweep(1, 350, good);
  EXPECT_EQ(resolve(), 3);
  EXPECT_EQ(health.radars, states(SensorState::ok, SensorState::late, SensorState::missing));
}

TEST_F(Resolve, SweepsWithoutAGoodPointAreInvalid) {
  sweep(0, 0, bad);
  sweep(1, 0, {});
  sweep(2, 0, bad);
  sweep(2, 80, good);
  EXPECT_EQ(resolve(), 2);  // the empty one and the good one
  EXPECT_EQ(health.radars, states(SensorState::invalid, SensorState::invalid, SensorState::ok));
  EXPECT_EQ(health.radar_points_invalid, 2 * static_cast<int>(bad.size() / 5));
}

TEST_F(Resolve, ASweepWithMoreInvalidPointsThanValidOnesIsLeftOut) {
  std::vector<float> half(good.begin(), good.begin() + 5);
  half.insert(half.end(), bad.begin(), bad.begin() + 5);  // one of each
  std::vector<float> less = half;
  less.insert(less.end(), bad.begin(), bad.begin() + 5);  // one of three
  sweep(0, 0, half);
  sweep(1, 0, less);
  sweep(2, 0, less);
  sweep(2, 350, good);
  EXPECT_EQ(resolve(), 2);
  EXPECT_EQ(health.radars, states(SensorState::ok, SensorState::invalid, SensorState::late));
  EXPECT_EQ(health.radar_points_invalid, 6);
}

TEST_F(Resolve, ASweepFromTheFarFutureIsStale) {
  sweep(0, -5000, good);
  // The difference of the times overflows.
  frames.sweeps.push_back({1, std::numeric_limits<std::int64_t>::min(), good.data(), 2, {}});
  EXPECT_EQ(resolve(), 0);
  EXPECT_EQ(health.radars, states(SensorState::stale, SensorState::stale, SensorState::missing));
}

TEST_F(Resolve, SweepsComeNewestFirstThenByRadarThenAsGiven) {
  sweep(2, 100, good);
  sweep(0, 100, good);
  sweep(1, 0, good);
  const std::vector<float> other = good;
  sweep(0, 100, other);
  sweep(0, 700, good);
  ASSERT_EQ(resolve(), 4);
  const float ages[] = {0.f, 0.1f, 0.1f, 0.1f};
  for (int i = 0; i < 4; ++i) EXPECT_FLOAT_EQ(inputs[i].age, ages[i]);
  EXPECT_EQ(inputs[1].points, good.data());
  EXPECT_EQ(inputs[2].points, other.data());
  EXPECT_EQ(inputs[3].points, good.data());
}

TEST_F(Resolve, AnUnknownRadarIsTheCallersMistake) {
  for (int radar : {-1, 3}) {
    frames.sweeps.clear();
    sweep(radar, 0, good);
    try {
      resolve();
      FAIL();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::frame_unknown_sensor);
    }
  }
}

TEST_F(Resolve, OdometryIsReportedAndNotEstimated) {
  frames.ego.twist = Vec3{12.5, 0.25, 0.1};
  resolve();
  EXPECT_FLOAT_EQ(health.ego_speed, 12.5f);
  EXPECT_FALSE(health.ego_speed_estimated);
}

TEST_F(Resolve, AYawRateMovesARadarBesideTheAxle) {
  rig.radars[1].velocity = RadialVelocity::raw;
  rig.radars[1].T_ego_radar[3] = 3;  // 3 m ahead, 1 m to the left
  rig.radars[1].T_ego_radar[7] = 1;
  frames.ego.twist = Vec3{10, 0, 0.5};
  sweep(1, 0, good);
  ASSERT_EQ(resolve(), 1);
  EXPECT_DOUBLE_EQ(inputs[0].sensor_velocity[0], 9.5);  // v - rate * y
  EXPECT_DOUBLE_EQ(inputs[0].sensor_velocity[1], 1.5);  // rate * x
}

TEST_F(Resolve, AQuarterTurnIsIntegratedExactly) {
  const double pi = 3.141592653589793;
  frames.ego.twist = Vec3{pi, 0, pi};  // radius 1 m; half a second ago the ego was a quarter turn back
  sweep(0, 500, good);
  ASSERT_EQ(resolve(), 1);
  const Mat4& T = inputs[0].T_ref_radar;
  EXPECT_NEAR(T[3], -1, 1e-12);
  EXPECT_NEAR(T[7], 1, 1e-12);
  EXPECT_NEAR(T[0], 0, 1e-12);
  EXPECT_NEAR(T[4], -1, 1e-12);
}

TEST_F(Resolve, StaticReturnsTellTheSpeedOnlyWhereVelocityIsRaw) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> along(5, 60), across(-30, 30);
  std::vector<float> points;
  for (int i = 0; i < 200; ++i) {
    const float x = along(random), y = across(random);
    points.insert(points.end(), {x, y, 0, 20, -14 * x / std::hypot(x, y)});
  }
  sweep(0, 0, points);
  resolve();
  EXPECT_FALSE(health.ego_speed_estimated);
  rig.radars[0].velocity = RadialVelocity::raw;
  ASSERT_EQ(resolve(), 1);
  EXPECT_TRUE(health.ego_speed_estimated);
  EXPECT_NEAR(health.ego_speed, 14, 0.02);
  EXPECT_LT(health.ego_speed_residual, 0.02);
  EXPECT_NEAR(inputs[0].sensor_velocity[0], 14, 0.02);
  for (std::size_t i = 4; i < points.size(); i += 5) points[i] = across(random);
  resolve();
  EXPECT_FALSE(health.ego_speed_estimated);
  EXPECT_TRUE(std::isnan(inputs[0].sensor_velocity[0]));  // unknown
}

}  // namespace
