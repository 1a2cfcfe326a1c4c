#include <algorithm>
#include <cmath>

#include "clones.hpp"
#include "imkd/ops.hpp"
#include "warp_sampling.hpp"

namespace imkd {
namespace {

constexpr int kBlock = 512;  // consecutive cells whose taps are computed once and used for every channel

struct Taps {  // of kBlock cells: the four source cells and their weights, 0 where one lies off the map
  std::int32_t cell[4][kBlock];
  float weight[4][kBlock];
};

// The taps of cells [begin, begin + count) of the present map.
void compute_taps(const Warp& warp, int begin, int count, Taps& taps) {
  int row = begin / warp.width;
  int column = begin % warp.width;
  for (int i = 0; i < count; ++i, ++column) {
    if (column == warp.width) {
      ++row;
      column = 0;
    }
    const Warp::Sample sample = warp.sample(row, column);
    for (int tap = 0; tap < 4; ++tap) taps.cell[tap][i] = warp.tap(sample, tap, taps.weight[tap][i]);
  }
}

// A neighbour of weight 0 counts as 0, even where it is infinite or NaN.
IMKD_CLONES void blend(const Taps& taps, const float* map /* (H,W) */, float* out, int count) {
  for (int i = 0; i < count; ++i) {
    float sum = 0;
    for (int tap = 0; tap < 4; ++tap) {
      const float weight = taps.weight[tap][i];
      const float value = map[taps.cell[tap][i]];
      sum += weight > 0 ? weight * value : 0.f;
    }
    out[i] = sum;
  }
}

}  // namespace

void warp_bev(const GridSpec& grid, const Vec3& ground, const float* features, int channels, const Mat4& T_then_now,
              float* out, ThreadPool& pool) {
  Warp warp(grid);
  const std::size_t cells = std::size_t(warp.width) * warp.height;
  if (!warp.set(grid, ground, T_then_now)) {
    std::fill(out, out + cells * channels, 0.f);
    return;
  }
  pool.parallel_for((static_cast<int>(cells) + kBlock - 1) / kBlock, [&](int first, int last) {
    Taps taps;
    for (int block = first; block < last; ++block) {
      const int begin = block * kBlock;
      const int count = std::min(kBlock, static_cast<int>(cells) - begin);
      compute_taps(warp, begin, count, taps);
      for (int c = 0; c < channels; ++c) blend(taps, features + c * cells, out + c * cells + begin, count);
    }
  });
}

}  // namespace imkd
