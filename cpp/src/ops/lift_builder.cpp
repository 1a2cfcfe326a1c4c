#include "lift_builder.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace imkd {
namespace {

constexpr double kStepsPerCell = 16;  // of rounded_exposure

double rounded(double value, double step) { return std::nearbyint(value / step) * step; }

}  // namespace

Mat4 rounded_exposure(const GridSpec& grid, const Mat4& T_ref_ego) {
  const double x = std::max(std::abs(grid.x_min), std::abs(grid.x_max));
  const double y = std::max(std::abs(grid.y_min), std::abs(grid.y_max));
  const double step = grid.cell / kStepsPerCell, angle = step / std::sqrt(x * x + y * y);
  const Vec3 r = rotation_vector(T_ref_ego);
  return rigid({rounded(r[0], angle), rounded(r[1], angle), rounded(r[2], angle)},
               {rounded(T_ref_ego[3], step), rounded(T_ref_ego[7], step), rounded(T_ref_ego[11], step)});
}

LiftTableBuilder::LiftTableBuilder(const ModelSpec& spec, const SensorRig& rig, const ImageCrop* crops,
                                   ThreadPool& pool)
    : width_(spec.image.feature_width()), pixels_(width_ * spec.image.feature_height()), bins_(spec.depth.bins) {
  for (int bin = 0; bin < bins_; ++bin) depths_.push_back(spec.depth.edge(bin + 0.5));
  for (std::size_t n = 0; n < rig.cameras.size(); ++n) {
    const CameraCalibration& camera = rig.cameras[n];
    cameras_.push_back(
        {Frustum(spec, ground_of(spec, rig), camera, crops[n]), camera.T_ego_camera, identity4(), {}, {}});
    for (int pixel = 0; pixel < pixels_; ++pixel) {
      double x = 0, y = 0;
      const bool visible = cameras_[n].frustum.ray(pixel / width_, pixel % width_, x, y);
      cameras_[n].x.push_back(visible ? x : std::numeric_limits<double>::quiet_NaN());
      cameras_[n].y.push_back(y);
    }
  }
  const std::size_t points = cameras_.size() * static_cast<std::size_t>(bins_) * pixels_;
  const std::size_t cells = std::size_t(spec.grid.width()) * spec.grid.height();
  cell_.resize(points);
  next_.resize(cells + 1);
  table_.cells.reserve(cells);
  table_.starts.reserve(cells + 1);
  table_.points.reserve(points);
  table_.pixels.reserve(points);
  for (std::size_t n = 0; n < cameras_.size(); ++n) find_cells(n, pool);
  sort();
}

void LiftTableBuilder::update(const Mat4* T_ref_ego, ThreadPool& pool) {
  bool moved = false;
  for (std::size_t n = 0; n < cameras_.size(); ++n) {
    Camera& camera = cameras_[n];
    if (T_ref_ego[n] == camera.T_ref_ego) continue;
    camera.T_ref_ego = T_ref_ego[n];
    camera.frustum.T_ego_camera = compose(T_ref_ego[n], camera.T_ego_camera);
    find_cells(n, pool);
    moved = true;
  }
  if (moved) sort();
}

// The BEV cell of each frustum point of a camera, in the order (bin, row, column).
void LiftTableBuilder::find_cells(std::size_t camera, ThreadPool& pool) {
  const Camera& c = cameras_[camera];
  std::int32_t* out = cell_.data() + camera * static_cast<std::size_t>(bins_) * pixels_;
  pool.parallel_for(bins_, [&](int begin, int end) {
    for (int bin = begin; bin < end; ++bin)
      for (int pixel = 0; pixel < pixels_; ++pixel)  // a NaN lies in no cell
        out[std::size_t(bin) * pixels_ + pixel] = c.frustum.cell(c.x[pixel], c.y[pixel], depths_[bin]);
  });
}

// Counting sort: next_[c + 1] counts the points of cell c, then next_[c] is where its next point goes.
void LiftTableBuilder::sort() {
  const std::size_t cells = next_.size() - 1;
  std::fill(next_.begin(), next_.end(), 0);
  for (std::int32_t c : cell_)
    if (c != kOutside) ++next_[c + 1];
  table_.cells.clear();
  table_.starts.clear();
  for (std::size_t c = 0; c < cells; ++c) {
    if (next_[c + 1] > 0) {
      table_.cells.push_back(static_cast<std::int32_t>(c));
      table_.starts.push_back(next_[c]);
    }
    next_[c + 1] += next_[c];
  }
  table_.starts.push_back(next_[cells]);
  table_.points.resize(next_[cells]);
  table_.pixels.resize(next_[cells]);

  std::int32_t point = 0;
  for (std::size_t camera = 0; camera < cameras_.size(); ++camera)
    for (int bin = 0; bin < bins_; ++bin) {
      const std::int32_t first = static_cast<std::int32_t>(camera) * pixels_;
      for (int pixel = 0; pixel < pixels_; ++pixel, ++point) {
        if (cell_[point] == kOutside) continue;
        const std::int32_t at = next_[cell_[point]]++;
        table_.points[at] = point;
        table_.pixels[at] = first + pixel;
      }
    }
}

}  // namespace imkd
