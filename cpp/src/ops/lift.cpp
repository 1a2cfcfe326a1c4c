#include <algorithm>
#include <string>

#include "clones.hpp"
#include "frustum.hpp"
#include "imkd/error.hpp"
#include "imkd/ops.hpp"

namespace imkd {
namespace {

constexpr int kBlock = 16;      // BEV cells summed together, so that each channel is written as one cache line
constexpr int kChannels = 128;  // channels summed together: kBlock * kChannels sums on the stack

// BEV cell of each frustum point of a camera, in the order (bin, row, column); kOutside for points in no cell.
void frustum_cells(const ModelSpec& spec, const Frustum& frustum, std::int32_t* out) {
  const int h = spec.image.feature_height(), w = spec.image.feature_width();
  std::fill(out, out + std::size_t(spec.depth.bins) * h * w, kOutside);
  for (int row = 0; row < h; ++row)
    for (int column = 0; column < w; ++column) {
      double x = 0, y = 0;
      if (!frustum.ray(row, column, x, y)) continue;
      for (int bin = 0; bin < spec.depth.bins; ++bin) out[(bin * h + row) * w + column] = frustum.cell(x, y, spec.depth.edge(bin + 0.5));
    }
}

IMKD_CLONES void add_scaled(float* sum, const float* context, float weight, int count) {
  for (int c = 0; c < count; ++c) sum[c] += weight * context[c];
}

// (C, pixels) -> (pixels, C), for pixels [begin, end)
void transpose(const float* context, int channels, int pixels, int begin, int end, float* out) {
  constexpr int kTile = 16;
  for (int p0 = begin; p0 < end; p0 += kTile)
    for (int c0 = 0; c0 < channels; c0 += kTile)
      for (int p = p0; p < std::min(p0 + kTile, end); ++p)
        for (int c = c0; c < std::min(c0 + kTile, channels); ++c) out[std::size_t(p) * channels + c] = context[std::size_t(c) * pixels + p];
}

struct Lift {
  const LiftTable& table;
  const float* depth;
  const float* context;  // (N,h,w,C)
  float* out;            // (C+1, cells)
  int channels;
  std::size_t cells;  // of the grid

  // Grid cells [begin, begin + count), count <= kBlock; k is the first entry of the table at or after begin. Returns the next entry.
  std::size_t block(int begin, int count, std::size_t k) const {
    std::size_t last = k;
    while (last < table.cells.size() && table.cells[last] < begin + count) ++last;
    float sums[kBlock * kChannels];
    for (int c0 = 0; c0 < channels; c0 += kChannels) {
      const int span = std::min(kChannels, channels - c0);
      std::fill(sums, sums + count * span, 0.f);
      for (std::size_t i = k; i < last; ++i) {
        float* sum = sums + (table.cells[i] - begin) * span;
        for (int p = table.starts[i]; p < table.starts[i + 1]; ++p)
          add_scaled(sum, context + std::size_t(table.pixels[p]) * channels + c0, depth[table.points[p]], span);
      }
      for (int c = 0; c < span; ++c)
        for (int i = 0; i < count; ++i) out[(c0 + c) * cells + begin + i] = sums[i * span + c];
    }
    float* evidence = out + channels * cells + begin;
    std::fill(evidence, evidence + count, 0.f);
    for (std::size_t i = k; i < last; ++i)
      for (int p = table.starts[i]; p < table.starts[i + 1]; ++p) evidence[table.cells[i] - begin] += depth[table.points[p]];
    return last;
  }
};

}  // namespace

LiftTable lift_table(const ModelSpec& spec, const SensorRig& rig, const ImageCrop* crops) {
  if (static_cast<int>(rig.cameras.size()) != spec.cameras)
    throw Error(Code::rig_mismatch,
                "the rig has " + std::to_string(rig.cameras.size()) + " cameras, the model " + std::to_string(spec.cameras), "rig.cameras",
                "use the rig that the model was made for");
  const std::size_t pixels = std::size_t(spec.image.feature_height()) * spec.image.feature_width(), per_camera = pixels * spec.depth.bins;
  const std::size_t cells = std::size_t(spec.grid.width()) * spec.grid.height();
  std::vector<std::int32_t> cell(per_camera * rig.cameras.size());
  for (std::size_t n = 0; n < rig.cameras.size(); ++n)
    frustum_cells(spec, Frustum(spec, rig.cameras[n], crops[n]), cell.data() + n * per_camera);

  std::vector<std::int32_t> next(cells + 1, 0);  // counting sort: how many, then where the next point of the cell goes
  for (std::int32_t c : cell)
    if (c != kOutside) ++next[c + 1];
  LiftTable table;
  for (std::size_t c = 0; c < cells; ++c) {
    if (next[c + 1] > 0) {
      table.cells.push_back(static_cast<std::int32_t>(c));
      table.starts.push_back(next[c]);
    }
    next[c + 1] += next[c];
  }
  table.starts.push_back(next[cells]);
  table.points.resize(next[cells]);
  table.pixels.resize(next[cells]);
  for (std::size_t i = 0; i < cell.size(); ++i)
    if (cell[i] != kOutside) {
      const std::int32_t at = next[cell[i]]++;
      table.points[at] = static_cast<std::int32_t>(i);
      table.pixels[at] = static_cast<std::int32_t>(i / per_camera * pixels + i % pixels);
    }
  return table;
}

std::size_t lift_workspace(const ModelSpec& spec) {
  return std::size_t(spec.cameras) * spec.image.feature_height() * spec.image.feature_width() * spec.context_channels;
}

void lift(const ModelSpec& spec, const LiftTable& table, const float* depth, const float* context, float* out, float* workspace,
          ThreadPool& pool) {
  const int pixels = spec.image.feature_height() * spec.image.feature_width(), channels = spec.context_channels;
  pool.parallel_for(spec.cameras * pixels, [&](int begin, int end) {
    while (begin < end) {
      const int camera = begin / pixels, last = std::min(end, (camera + 1) * pixels);
      const std::size_t offset = std::size_t(camera) * pixels * channels;
      transpose(context + offset, channels, pixels, begin - camera * pixels, last - camera * pixels, workspace + offset);
      begin = last;
    }
  });
  const int cells = spec.grid.width() * spec.grid.height();
  const Lift op{table, depth, workspace, out, channels, static_cast<std::size_t>(cells)};
  pool.parallel_for((cells + kBlock - 1) / kBlock, [&](int begin, int end) {
    std::size_t k = std::lower_bound(table.cells.begin(), table.cells.end(), begin * kBlock) - table.cells.begin();
    for (int block = begin; block < end; ++block) k = op.block(block * kBlock, std::min(kBlock, cells - block * kBlock), k);
  });
}

}  // namespace imkd
