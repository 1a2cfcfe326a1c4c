#include <algorithm>
#include <limits>

#include "clones.hpp"
#include "frustum.hpp"
#include "imkd/error.hpp"
#include "imkd/ops.hpp"
#include "lift_builder.hpp"

namespace imkd {
namespace {

constexpr int kBlock = 16;         // BEV cells written at once: one cache line per channel
constexpr int kChannelBlock = 32;  // channels summed at once, in registers

// Floats of a pixel's row in the workspace: the channels, a 1 whose weighted sum is the sum of depth, and zeros.
int row_length(int channels) { return (channels + kChannelBlock) / kChannelBlock * kChannelBlock; }

// (C, pixels) -> rows of `length` floats, for pixels [begin, end)
void transpose(const float* context, int channels, int pixels, int begin, int end, int length, float* out) {
  constexpr int kTile = 16;
  for (int p0 = begin; p0 < end; p0 += kTile) {
    const int p1 = std::min(p0 + kTile, end);
    for (int c0 = 0; c0 < channels; c0 += kTile)
      for (int p = p0; p < p1; ++p)
        for (int c = c0; c < std::min(c0 + kTile, channels); ++c)
          out[std::size_t(p) * length + c] = context[std::size_t(c) * pixels + p];
    for (int p = p0; p < p1; ++p) {
      float* rest = out + std::size_t(p) * length + channels;
      *rest = 1.f;
      std::fill(rest + 1, rest + length - channels, 0.f);
    }
  }
}

typedef float Lanes __attribute__((vector_size(32), aligned(4), may_alias));

// The weighted sum of the rows of points [begin, end) of the table, kChannelBlock floats of each.
IMKD_CLONES void weighted_sum(const LiftTable& table, int begin, int end, const float* depth, const float* rows,
                              int length, float* out) {
  Lanes a{}, b{}, c{}, d{};
  for (int p = begin; p < end; ++p) {
    const Lanes* row = reinterpret_cast<const Lanes*>(rows + std::size_t(table.pixels[p]) * length);
    const float weight = depth[table.points[p]];
    a += weight * row[0];
    b += weight * row[1];
    c += weight * row[2];
    d += weight * row[3];
  }
  Lanes* sums = reinterpret_cast<Lanes*>(out);
  sums[0] = a;
  sums[1] = b;
  sums[2] = c;
  sums[3] = d;
}

using Sums = float[kBlock][kChannelBlock];

// Writes one channel of a block of cells.
void write_line(const Sums& sums, int channel, int count, float* to) {
  if (count == kBlock)
    for (int i = 0; i < kBlock; ++i) to[i] = sums[i][channel];
  else
    for (int i = 0; i < count; ++i) to[i] = sums[i][channel];
}

struct Lift {
  const LiftTable& table;
  const float* depth;
  const float* rows;  // (N * h * w, length)
  float* out;         // (C+1, cells)
  int channels;
  int length;
  std::size_t cells;  // of the grid

  // Sums the cells [begin, begin + count), count <= kBlock; k is the table's first entry at or after begin. Returns the
  // first entry beyond them.
  std::size_t block(int begin, int count, std::size_t k) const {
    std::size_t last = k;
    while (last < table.cells.size() && table.cells[last] < begin + count) ++last;
    for (int c0 = 0; c0 <= channels; c0 += kChannelBlock) {
      Sums sums = {};
      for (std::size_t i = k; i < last; ++i)
        weighted_sum(table, table.starts[i], table.starts[i + 1], depth, rows + c0, length,
                     sums[table.cells[i] - begin]);
      for (int c = c0; c < std::min(c0 + kChannelBlock, channels + 1); ++c)
        write_line(sums, c - c0, count, out + c * cells + begin);
    }
    return last;
  }

  void clear(int begin, int end) const {  // cells without a point
    for (int c = 0; c <= channels; ++c) std::fill(out + c * cells + begin, out + c * cells + end, 0.f);
  }

  // Sums the cells [begin, end); begin is a multiple of kBlock.
  void range(int begin, int end) const {
    std::size_t k = std::lower_bound(table.cells.begin(), table.cells.end(), begin) - table.cells.begin();
    while (begin < end) {
      const int next = k < table.cells.size() ? std::min(table.cells[k] / kBlock * kBlock, end) : end;
      clear(begin, next);
      if (next < end) k = block(next, std::min(kBlock, end - next), k);
      begin = next + kBlock;
    }
  }
};

}  // namespace

void image_rays(const ImageSpec& spec, const CameraCalibration& camera, const ImageCrop& crop, double* out) {
  const Lens lens(camera);
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  for (int row = 0; row < spec.feature_height(); ++row)
    for (int column = 0; column < spec.feature_width(); ++column, out += 3) {
      double x = 0, y = 0;
      const bool visible = feature_ray(lens, crop, spec.stride, row, column, x, y);
      out[0] = visible ? x : kNan;
      out[1] = visible ? y : kNan;
      out[2] = visible ? 1 : kNan;
    }
}

void check_cameras(const ModelSpec& spec, const SensorRig& rig) {
  const std::string count = std::to_string(rig.cameras.size());
  if (static_cast<int>(rig.cameras.size()) <= spec.cameras) return;
  throw Error(
      Code::rig_mismatch, "the rig has " + count + " cameras, the model has " + std::to_string(spec.cameras),
      "rig.cameras",
      "name recordings of the model's rig (--data), or make a bundle for as many, the weights are shared by all "
      "cameras: imkd-edge export BUNDLE --cameras " +
          count + " --out NEW.imkd");
}

LiftTable lift_table(const ModelSpec& spec, const SensorRig& rig, const ImageCrop* crops) {
  check_cameras(spec, rig);
  ThreadPool pool(1);
  return LiftTableBuilder(spec, rig, crops, pool).table();
}

std::size_t lift_workspace(const ModelSpec& spec) {
  return std::size_t(spec.cameras) * spec.image.feature_height() * spec.image.feature_width() *
         row_length(spec.context_channels);
}

void lift(const ModelSpec& spec, const LiftTable& table, const float* depth, const float* context, float* out,
          float* workspace, ThreadPool& pool) {
  const int pixels = spec.image.feature_height() * spec.image.feature_width();
  const int channels = spec.context_channels;
  const int length = row_length(channels);
  pool.parallel_for(spec.cameras * pixels, [&](int begin, int end) {
    while (begin < end) {
      const int camera = begin / pixels, last = std::min(end, (camera + 1) * pixels);
      const std::size_t first = std::size_t(camera) * pixels;
      transpose(context + first * channels, channels, pixels, begin - camera * pixels, last - camera * pixels, length,
                workspace + first * length);
      begin = last;
    }
  });
  const int cells = spec.grid.width() * spec.grid.height();
  const Lift op{table, depth, workspace, out, channels, length, static_cast<std::size_t>(cells)};
  pool.parallel_for((cells + kBlock - 1) / kBlock,
                    [&](int begin, int end) { op.range(begin * kBlock, std::min(end * kBlock, cells)); });
}

}  // namespace imkd
