#include <algorithm>
#include <cmath>

#include "clones.hpp"
#include "imkd/ops.hpp"
#include "warp_place.hpp"

namespace imkd {
namespace {

constexpr int kBlock = 512;  // cells in a row or several, whose places are found together and used for every channel

struct Taps {  // of kBlock cells: the four source cells, and their weights, 0 where one is not to be read
  std::int32_t cell[4][kBlock];
  float weight[4][kBlock];
};

// The taps of cells [begin, begin + count) of the present map.
void find(const Warp& warp, int begin, int count, Taps& taps) {
  int row = begin / warp.width, column = begin % warp.width;
  for (int i = 0; i < count; ++i, ++column) {
    if (column == warp.width) ++row, column = 0;
    const Warp::Place place = warp.place(row, column);
    for (int tap = 0; tap < 4; ++tap) taps.cell[tap][i] = warp.tap(place, tap, taps.weight[tap][i]);
  }
}

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

void warp_bev(const GridSpec& grid, const float* features, int channels, const Mat4& T_then_now, float* out,
              ThreadPool& pool) {
  Warp warp(grid);
  const std::size_t cells = std::size_t(warp.width) * warp.height;
  if (!warp.set(grid, T_then_now)) {
    std::fill(out, out + cells * channels, 0.f);
    return;
  }
  pool.parallel_for((static_cast<int>(cells) + kBlock - 1) / kBlock, [&](int first, int last) {
    Taps taps;
    for (int block = first; block < last; ++block) {
      const int begin = block * kBlock, count = std::min(kBlock, static_cast<int>(cells) - begin);
      find(warp, begin, count, taps);
      for (int c = 0; c < channels; ++c) blend(taps, features + c * cells, out + c * cells + begin, count);
    }
  });
}

}  // namespace imkd
