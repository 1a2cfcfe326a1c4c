// The assignment and the odometry of Tracker.
#include "assignment.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>

#include "odometry.hpp"
#include "track_cases.hpp"

using namespace imkd;
using namespace imkd::track_cases;

namespace {

TEST(Assignment, is_the_best_of_all_permutations) {
  std::mt19937 random(3);
  std::uniform_int_distribution<int> size(1, 6), value(-4, 4);
  Assignment assignment(6);
  for (int round = 0; round < 2000; ++round) {
    const int rows = size(random), columns = size(random);
    std::vector<double> cost;
    for (int i = 0; i < rows * columns; ++i) cost.push_back(value(random));
    const auto at = [&](int i, int j) { return cost[static_cast<std::size_t>(i * columns + j)]; };
    // Every permutation of the longer side against the shorter one.
    std::vector<int> order(static_cast<std::size_t>(std::max(rows, columns)));
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
    double best = 1e9;
    do {
      double sum = 0;
      for (int k = 0; k < std::min(rows, columns); ++k) {
        const int other = order[static_cast<std::size_t>(k)];
        sum += rows <= columns ? at(k, other) : at(other, k);
      }
      best = std::min(best, sum);
    } while (std::next_permutation(order.begin(), order.end()));

    const std::vector<int>& column_of_row =
        assignment.solve([&](std::size_t i, std::size_t j) { return cost[i * static_cast<std::size_t>(columns) + j]; },
                         static_cast<std::size_t>(rows), static_cast<std::size_t>(columns));
    std::set<int> used;
    double sum = 0;
    for (int i = 0; i < rows; ++i) {
      const int j = column_of_row[static_cast<std::size_t>(i)];
      if (j < 0) continue;
      ASSERT_LT(j, columns);
      sum += at(i, j);
      used.insert(j);
    }
    ASSERT_EQ(used.size(), static_cast<std::size_t>(std::min(rows, columns)));
    ASSERT_DOUBLE_EQ(sum, best);
  }
}

TEST(Odometry, of_a_twist_is_a_circle) {
  Odometry odometry;  // 10 m/s and 36 degrees/s: a full circle in 10 s
  const double rate = std::acos(-1.0) / 5;
  for (int i = 0; i <= 100; ++i) {
    const auto step = odometry.advance(i * kSecond / 10, {{}, Vec3{10, 0, rate}});
    EXPECT_EQ(step, i ? Odometry::Step::motion : Odometry::Step::start);
    if (i == 50) {
      EXPECT_NEAR(odometry.T_odom_ego()[7], 2 * 10 / rate, 1e-9);  // the diameter, to the left
    }
  }
  EXPECT_NEAR(odometry.T_odom_ego()[3], 0, 1e-9);
  EXPECT_NEAR(odometry.T_odom_ego()[7], 0, 1e-9);
}

TEST(Odometry, of_poses_skips_frames_without_one) {
  Odometry odometry;
  const Mat4 first = turned(0.3, 5e5, 4e6), second = compose(first, turned(0.2, 12, 1));
  EXPECT_EQ(odometry.advance(0, {first, {}}), Odometry::Step::start);
  EXPECT_EQ(odometry.advance(kSecond / 2, {{}, Vec3{3, 0, 0}}), Odometry::Step::motion);  // by its twist
  EXPECT_NEAR(odometry.T_odom_ego()[3], 1.5, 1e-12);
  EXPECT_EQ(odometry.advance(kSecond, {second, {}}), Odometry::Step::motion);  // from the first pose
  EXPECT_NEAR(odometry.T_odom_ego()[3], 12, 1e-6);
  EXPECT_NEAR(odometry.T_odom_ego()[7], 1, 1e-6);
}

TEST(Odometry, continues_the_last_twist_for_a_second) {
  Odometry odometry;
  odometry.advance(0, {{}, Vec3{4, 0, 0}});
  EXPECT_EQ(odometry.advance(kSecond / 2, {}), Odometry::Step::motion);
  EXPECT_EQ(odometry.advance(kSecond, {}), Odometry::Step::motion);
  EXPECT_NEAR(odometry.T_odom_ego()[3], 4, 1e-12);
  EXPECT_EQ(odometry.advance(kSecond + 1, {}), Odometry::Step::none);
  EXPECT_NEAR(odometry.T_odom_ego()[3], 4, 1e-12);
}

// Drives of a simulator run along an axis of the world: a half turn, whose sine is exactly 0.
TEST(Odometry, of_poses_that_head_exactly_backwards_in_the_world_goes_forward) {
  Odometry odometry;
  for (int i = 0; i <= 10; ++i) {
    const Mat4 T_world_ego{-1, 0, 0, 100.0 - i, 0, -1, 0, 7, 0, 0, 1, 0, 0, 0, 0, 1};
    odometry.advance(i * kSecond / 10, {T_world_ego, {}});
    EXPECT_NEAR(odometry.T_odom_ego()[3], i, 1e-9);
    EXPECT_NEAR(odometry.T_odom_ego()[7], 0, 1e-9);
  }
}

TEST(Geometry, a_rotation_vector_is_that_of_its_rotation_up_to_half_a_turn) {
  std::mt19937 random(4);
  std::normal_distribution<double> noise;
  std::vector<Vec3> axes{{1, 0, 0}, {0, -1, 0}, {0, 0, 1}, {0, 0, -1}};
  for (int i = 0; i < 100; ++i) axes.push_back({noise(random), noise(random), noise(random)});
  for (const auto& [x, y, z] : axes) {
    const double norm = std::sqrt(x * x + y * y + z * z);
    const Vec3 a{x / norm, y / norm, z / norm};
    Mat4 half = identity4();  // 2 a a^T - 1
    for (std::size_t r = 0; r < 3; ++r)
      for (std::size_t c = 0; c < 3; ++c) half[r * 4 + c] = 2 * a[r] * a[c] - (r == c);
    for (const double less : {0.0, 1e-17, 1e-12, 1e-7, 0.1, 1.0, 3.0, 3.14}) {  // rad that the turn is short of half
      const Mat4 T = compose(half, rigid({-less * a[0], -less * a[1], -less * a[2]}, {}));
      const Mat4 again = rigid(rotation_vector(T), {});
      for (std::size_t i = 0; i < 16; ++i) ASSERT_NEAR(again[i], T[i], 1e-14) << less << ' ' << x << ' ' << y;
    }
    EXPECT_FALSE(interpolate(identity4(), half, 0.5));  // its axis may be either of two
  }
}

TEST(Odometry, takes_no_jump_and_no_matrix_that_is_not_rigid) {
  Odometry odometry;
  odometry.advance(0, {turned(0, 0, 0), {}});
  EXPECT_EQ(odometry.advance(kSecond / 10, {turned(0, 11, 0), {}}), Odometry::Step::start);  // 110 m/s
  Mat4 wrong = identity4();
  wrong[0] = 2;
  EXPECT_EQ(odometry.advance(kSecond / 5, {wrong, {}}), Odometry::Step::none);
  wrong[0] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(odometry.advance(kSecond / 4, {wrong, Vec3{0, 0, wrong[0]}}), Odometry::Step::none);
  Mat4 mirrored = turned(0, 11, 0);
  mirrored[5] = -1;
  EXPECT_EQ(odometry.advance(3 * kSecond / 10, {mirrored, {}}), Odometry::Step::none);
}

}  // namespace
