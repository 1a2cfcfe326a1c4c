// A grid of cells in the ego frame over the ground plane: the BEV's and, finer, the radar's.
#pragma once
#include "device.hpp"
#include "imkd/ops.hpp"

namespace imkd {

struct Plane {  // of a ModelSpec and a ground plane, trivially copyable
  double x_min, y_min, cell;
  int width, height;
  Vec3 ground_plane;

  static Plane of_bev(const ModelSpec& spec, const Vec3& ground) {
    return {spec, ground, spec.grid.cell, spec.grid.width(), spec.grid.height()};
  }
  static Plane of_radar(const ModelSpec& spec, const Vec3& ground) {
    return {spec, ground, spec.radar.cell, spec.radar_width(), spec.radar_height()};
  }

  IMKD_HD int cells() const { return width * height; }
  // The cell of a point, row * width + column; kOutside beyond the grid.
  IMKD_HD int at(double x, double y) const {
    const int column = cell_index(float(x), float(x_min), float(cell), width);
    const int row = cell_index(float(y), float(y_min), float(cell), height);
    return column != kOutside && row != kOutside ? row * width + column : kOutside;
  }
  // m, of a position in cells from the corner: 0.5 is the centre of the first cell.
  IMKD_HD double x(double column) const { return x_min + column * cell; }
  IMKD_HD double y(double row) const { return y_min + row * cell; }
  IMKD_HD double ground(double x, double y) const { return height_of(ground_plane, x, y); }

 private:
  Plane(const ModelSpec& spec, const Vec3& ground, double cell, int width, int height)
      : x_min(spec.grid.x_min),
        y_min(spec.grid.y_min),
        cell(cell),
        width(width),
        height(height),
        ground_plane(ground) {}
};

}  // namespace imkd
