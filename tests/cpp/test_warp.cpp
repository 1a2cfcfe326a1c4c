// warp_bev: poses that Python refuses, and equal bits for any number of threads. The values are tested in tests/ops.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "imkd/ops.hpp"

using namespace imkd;

namespace {

constexpr int kChannels = 3, kCells = 20 * 30;
const GridSpec kGrid{-10, 20, -10, 10, -5, 3, 1};

std::vector<float> warped(const Mat4& T, int threads = 1, const Vec3& ground = {}) {
  std::vector<float> map(kChannels * kCells), out(map.size(), -1);
  for (std::size_t i = 0; i < map.size(); ++i) map[i] = 1 + std::sin(static_cast<float>(i));
  ThreadPool pool(threads);
  warp_bev(kGrid, ground, map.data(), kChannels, T, out.data(), pool);
  return out;
}

TEST(Warp, OfAPoseThatIsNoNumberOrFarAwayIsZero) {
  const double values[] = {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                           -std::numeric_limits<double>::infinity(), 1e18, -1e300};
  for (double value : values)
    for (int element : {0, 1, 3, 4, 5, 7}) {
      Mat4 T = identity4();
      T[element] = value;
      EXPECT_EQ(warped(T), std::vector<float>(kChannels * kCells, 0.f)) << value << " at " << element;
    }
}

TEST(Warp, IgnoresHeightAndTiltWhereTheGroundIsTheEgoFramesPlane) {
  Mat4 T = identity4();
  T[2] = T[6] = 0.3;
  T[8] = T[9] = T[10] = T[11] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(warped(T), warped(identity4()));
}

TEST(Warp, SamplesWhereTheGroundBelowACellLay) {
  const Vec3 ground{0, 0, -2};  // a tilt by T[2] moves it by -2 * T[2] along x: one cell
  Mat4 tilted = identity4(), shifted = identity4();
  tilted[2] = -kGrid.cell / 2;
  shifted[3] = kGrid.cell;
  EXPECT_EQ(warped(tilted, 1, ground), warped(shifted));
}

TEST(Warp, DoesNotDependOnThreads) {
  const Mat4 T{std::cos(0.3), -std::sin(0.3), 0, 1.7, std::sin(0.3), std::cos(0.3), 0, -0.4, 0, 0, 1, 0, 0, 0, 0, 1};
  const std::vector<float> one = warped(T);
  for (int threads : {2, 3, 8}) {
    const std::vector<float> several = warped(T, threads);
    EXPECT_EQ(std::memcmp(one.data(), several.data(), one.size() * sizeof(float)), 0);
  }
  EXPECT_GT(*std::max_element(one.begin(), one.end()), 1);
}

}  // namespace
