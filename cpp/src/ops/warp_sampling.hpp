// Where on a past map each present cell is sampled, in fixed point. The CPU op and its CUDA twin share it.
#pragma once
#include <cmath>

#include "device.hpp"
#include "imkd/ops.hpp"

namespace imkd {

constexpr int kFraction = 32;          // fractional bits of a source coordinate in cells
constexpr int kWeight = 10;            // bits of a bilinear weight along one axis: 1/1024 cell
constexpr double kFarthest = 1 << 20;  // cells; a map lies nearer than this

// One source coordinate, in cells from the centre of cell 0:
//   (row * by_row + column * by_column + start) / 2^kFraction
// 64-bit integers give the same coordinate on every processor, with and without FMA, and gather no rounding error along
// a row. 2^-32 cell is far finer than the errors of the doubles of a pose (a whole cell comes out as 0.9999999999); the
// weights' 1/1024 is far coarser, so rounding to it restores the whole cell. The bounds in set keep every sum within
// 2^53.
struct Affine {
  std::int64_t by_row = 0;
  std::int64_t by_column = 0;
  std::int64_t start = 0;

  // False where the pose is not finite, not a rotation, or takes every cell off the map.
  bool set(double row, double column, double offset) {
    if (!(std::abs(row) <= 2 && std::abs(column) <= 2 && std::abs(offset) <= kFarthest)) return false;
    const double one = std::ldexp(1., kFraction);
    by_row = std::llround(row * one);
    by_column = std::llround(column * one);
    start = std::llround(offset * one);
    return true;
  }
  IMKD_HD std::int64_t steps(int row, int column) const {  // in 2^-kWeight cells, rounded to the nearest
    constexpr int kDrop = kFraction - kWeight;
    return (row * by_row + column * by_column + start + (std::int64_t(1) << (kDrop - 1))) >> kDrop;
  }
};

struct Warp {
  int width, height;
  Affine u, v;  // source column and row

  struct Sample {  // upper left source cell, weights of the cells to its right and below in 1 / 2^kWeight
    std::int64_t left, top;
    int right_weight, bottom_weight;
  };

  explicit Warp(const GridSpec& grid) : width(grid.width()), height(grid.height()) {}
  // False where every cell comes out as 0.
  bool set(const GridSpec& grid, const Vec3& ground, const Mat4& T) {
    const double x0 = grid.x_min + grid.cell / 2;  // m, centre of cell 0
    const double y0 = grid.y_min + grid.cell / 2;
    const auto on_ground = [&](int row, double& x, double& y, double& offset) {  // with z = ground(x, y)
      x = T[row] + T[row + 2] * ground[0];
      y = T[row + 1] + T[row + 2] * ground[1];
      offset = x * x0 + y * y0 + (T[row + 3] + T[row + 2] * ground[2]);
    };
    double ux, uy, u0, vx, vy, v0;
    on_ground(0, ux, uy, u0);
    on_ground(4, vx, vy, v0);
    return u.set(uy, ux, (u0 - x0) / grid.cell) && v.set(vy, vx, (v0 - y0) / grid.cell);
  }
  IMKD_HD Sample sample(int row, int column) const {
    constexpr int kMask = (1 << kWeight) - 1;
    const std::int64_t su = u.steps(row, column);
    const std::int64_t sv = v.steps(row, column);
    return {su >> kWeight, sv >> kWeight, int(su & kMask), int(sv & kMask)};
  }
  // One of the four source cells, and its weight; cell 0 with weight 0 where it lies off the map.
  IMKD_HD std::int32_t tap(const Sample& sample, int tap, float& weight) const {
    const std::int64_t x = sample.left + (tap & 1);
    const std::int64_t y = sample.top + (tap >> 1);
    const int part = ((tap & 1) ? sample.right_weight : (1 << kWeight) - sample.right_weight) *
                     ((tap >> 1) ? sample.bottom_weight : (1 << kWeight) - sample.bottom_weight);
    const bool inside = part > 0 && x >= 0 && x < width && y >= 0 && y < height;
    weight = inside ? float(part) / (1 << 2 * kWeight) : 0.f;
    return inside ? std::int32_t(y * width + x) : 0;
  }
};

}  // namespace imkd
