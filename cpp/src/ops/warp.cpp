#include <algorithm>
#include <cmath>

#include "clones.hpp"
#include "imkd/ops.hpp"

namespace imkd {
namespace {

constexpr int kBlock = 512;            // cells in a row or several, whose places are found together and used for every channel
constexpr int kFraction = 32;          // bits after the point of a place, in cells
constexpr int kWeight = 10;            // bits of a bilinear weight along one axis: 1/1024 cell
constexpr double kFarthest = 1 << 20;  // cells; beyond it no place can be on a map

// Why integers: the place of each cell is row * a + column * b + c in 64-bit fixed point, so it is the same on every processor, with and
// without FMA, and does not gather rounding errors along a row. 2^-32 cell is far finer than the errors of the doubles that a pose goes
// through (a whole cell comes out as 0.9999999999), and the weights' 1/1024 is far coarser: rounding to it gives the whole cell back.
// The bounds below keep every sum within 2^53.
struct Affine {  // source coordinate, in cells from the centre of cell 0: (row * by_row + column * by_column + start) / 2^kFraction
  std::int64_t by_row = 0, by_column = 0, start = 0;
  // False where the pose is not finite, not a rotation, or takes every cell off the map.
  bool set(double row, double column, double offset) {
    if (!(std::abs(row) <= 2 && std::abs(column) <= 2 && std::abs(offset) <= kFarthest)) return false;
    const double one = std::ldexp(1., kFraction);
    by_row = std::llround(row * one), by_column = std::llround(column * one), start = std::llround(offset * one);
    return true;
  }
  std::int64_t steps(int row, int column) const {  // in 2^-kWeight cells, rounded to the nearest
    constexpr int kDrop = kFraction - kWeight;
    return (row * by_row + column * by_column + start + (std::int64_t(1) << (kDrop - 1))) >> kDrop;
  }
};

struct Taps {  // of kBlock cells: the four source cells, and their weights, 0 where one is not to be read
  std::int32_t cell[4][kBlock];
  float weight[4][kBlock];
};

struct Warp {
  int width, height;
  Affine u, v;  // source column and row

  // The taps of cells [begin, begin + count) of the present map.
  void find(int begin, int count, Taps& taps) const {
    int row = begin / width, column = begin % width;
    for (int i = 0; i < count; ++i, ++column) {
      if (column == width) ++row, column = 0;
      const std::int64_t su = u.steps(row, column), sv = v.steps(row, column);
      const std::int64_t left = su >> kWeight, top = sv >> kWeight;
      const int right_weight = int(su & ((1 << kWeight) - 1)), bottom_weight = int(sv & ((1 << kWeight) - 1));
      for (int tap = 0; tap < 4; ++tap) {
        const std::int64_t x = left + (tap & 1), y = top + (tap >> 1);
        const int weight =
            ((tap & 1) ? right_weight : (1 << kWeight) - right_weight) * ((tap >> 1) ? bottom_weight : (1 << kWeight) - bottom_weight);
        const bool read = weight > 0 && x >= 0 && x < width && y >= 0 && y < height;
        taps.cell[tap][i] = read ? std::int32_t(y * width + x) : 0;
        taps.weight[tap][i] = read ? float(weight) / (1 << 2 * kWeight) : 0.f;
      }
    }
  }
};

// A weight of 0 must not turn an infinite or NaN neighbour into NaN: it counts as 0, whatever stands there.
IMKD_CLONES void blend(const Taps& taps, const float* map /* (H,W) */, float* out, int count) {
  for (int i = 0; i < count; ++i) {
    float sum = 0;
    for (int tap = 0; tap < 4; ++tap) {
      const float weight = taps.weight[tap][i], value = map[taps.cell[tap][i]];
      sum += weight > 0 ? weight * value : 0.f;
    }
    out[i] = sum;
  }
}

}  // namespace

void warp_bev(const GridSpec& grid, const float* features, int channels, const Mat4& T_then_now, float* out, ThreadPool& pool) {
  Warp warp{grid.width(), grid.height(), {}, {}};
  const std::size_t cells = std::size_t(warp.width) * warp.height;
  const Mat4& T = T_then_now;
  const double x0 = grid.x_min + grid.cell / 2, y0 = grid.y_min + grid.cell / 2;  // m, centre of cell 0
  const bool near = warp.u.set(T[1], T[0], (T[0] * x0 + T[1] * y0 + T[3] - x0) / grid.cell) &&
                    warp.v.set(T[5], T[4], (T[4] * x0 + T[5] * y0 + T[7] - y0) / grid.cell);
  if (!near) {
    std::fill(out, out + cells * channels, 0.f);
    return;
  }
  pool.parallel_for((static_cast<int>(cells) + kBlock - 1) / kBlock, [&](int first, int last) {
    Taps taps;
    for (int block = first; block < last; ++block) {
      const int begin = block * kBlock, count = std::min(kBlock, static_cast<int>(cells) - begin);
      warp.find(begin, count, taps);
      for (int c = 0; c < channels; ++c) blend(taps, features + c * cells, out + c * cells + begin, count);
    }
  });
}

}  // namespace imkd
