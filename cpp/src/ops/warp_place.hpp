// Where each present cell lies on a past map, in whole numbers.
#pragma once
#include <cmath>

#include "device.hpp"
#include "imkd/ops.hpp"

namespace imkd {

constexpr int kFraction = 32;          // bits after the point of a place, in cells
constexpr int kWeight = 10;            // bits of a bilinear weight along one axis: 1/1024 cell
constexpr double kFarthest = 1 << 20;  // cells; beyond it no place can be on a map

// Why integers: the place of each cell is row * a + column * b + c in 64-bit fixed point, so it is the same on every
// processor, with and without FMA, and does not gather rounding errors along a row. 2^-32 cell is far finer than the
// errors of the doubles that a pose goes through (a whole cell comes out as 0.9999999999), and the weights' 1/1024 is
// far coarser: rounding to it gives the whole cell back. The bounds below keep every sum within 2^53.
struct Affine {  // source coordinate, in cells from the centre of cell 0: (row * by_row + column * by_column + start) /
                 // 2^kFraction
  std::int64_t by_row = 0, by_column = 0, start = 0;
  // False where the pose is not finite, not a rotation, or takes every cell off the map.
  bool set(double row, double column, double offset) {
    if (!(std::abs(row) <= 2 && std::abs(column) <= 2 && std::abs(offset) <= kFarthest)) return false;
    const double one = std::ldexp(1., kFraction);
    by_row = std::llround(row * one), by_column = std::llround(column * one), start = std::llround(offset * one);
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
  struct Place {
    std::int64_t left, top;
    int right_weight, bottom_weight;
  };  // the upper left source cell, weights in 1 / 2^kWeight

  explicit Warp(const GridSpec& grid) : width(grid.width()), height(grid.height()) {}
  // False where every cell comes out as 0.
  bool set(const GridSpec& grid, const Mat4& T) {
    const double x0 = grid.x_min + grid.cell / 2, y0 = grid.y_min + grid.cell / 2;  // m, centre of cell 0
    return u.set(T[1], T[0], (T[0] * x0 + T[1] * y0 + T[3] - x0) / grid.cell) &&
           v.set(T[5], T[4], (T[4] * x0 + T[5] * y0 + T[7] - y0) / grid.cell);
  }
  IMKD_HD Place place(int row, int column) const {
    constexpr int kMask = (1 << kWeight) - 1;
    const std::int64_t su = u.steps(row, column), sv = v.steps(row, column);
    return {su >> kWeight, sv >> kWeight, int(su & kMask), int(sv & kMask)};
  }
  // One of the four source cells, and its weight; cell 0 with weight 0 where it is not to be read.
  IMKD_HD std::int32_t tap(const Place& p, int tap, float& weight) const {
    const std::int64_t x = p.left + (tap & 1), y = p.top + (tap >> 1);
    const int part = ((tap & 1) ? p.right_weight : (1 << kWeight) - p.right_weight) *
                     ((tap >> 1) ? p.bottom_weight : (1 << kWeight) - p.bottom_weight);
    const bool read = part > 0 && x >= 0 && x < width && y >= 0 && y < height;
    weight = read ? float(part) / (1 << 2 * kWeight) : 0.f;
    return read ? std::int32_t(y * width + x) : 0;
  }
};

namespace cuda {
struct PastMap {  // one slot of the history, as a kernel reads it
  Warp warp;
  bool near = false;  // false: every cell is 0
  int place = 0;      // which of the kept maps
};
}  // namespace cuda

}  // namespace imkd
