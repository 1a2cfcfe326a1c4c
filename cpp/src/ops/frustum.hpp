// The BEV cells that a pixel's frustum points fall into.
#pragma once
#include "camera_model.hpp"
#include "imkd/ops.hpp"

namespace imkd {

struct Frustum {  // one camera seen through its crop, over the grid
  Lens lens;
  Mat4 T_ego_camera = identity4();
  ImageCrop crop;
  GridSpec grid;
  int grid_width, grid_height, stride;
  Vec3 ground_plane;

  Frustum(const ModelSpec& spec, const CameraCalibration& camera, const ImageCrop& crop)
      : lens(camera),
        T_ego_camera(camera.T_ego_camera),
        crop(crop),
        grid(spec.grid),
        grid_width(spec.grid.width()),
        grid_height(spec.grid.height()),
        stride(spec.image.stride),
        ground_plane(spec.ground_plane) {}

  // The ray of a feature pixel; false where the lens has none.
  IMKD_HD bool ray(int row, int column, double& x, double& y) const {
    const double input_u = (column + 0.5) * stride - 0.5, input_v = (row + 0.5) * stride - 0.5;
    const double u = (input_u + 0.5 + crop.left) / crop.scale - 0.5, v = (input_v + 0.5 + crop.top) / crop.scale - 0.5;
    return undistort(lens, u, v, x, y);
  }

  // The cell, row * width + column, of the point at a depth along the ray; kOutside where it is in none.
  IMKD_HD int cell(double x, double y, double depth) const {
    const Vec3 p = transform(T_ego_camera, {x * depth, y * depth, depth});
    const double above = p[2] - height_of(ground_plane, p[0], p[1]);  // the z window follows the ground
    if (!(above >= grid.z_min && above < grid.z_max)) return kOutside;
    const int cx = cell_index(float(p[0]), float(grid.x_min), float(grid.cell), grid_width);
    const int cy = cell_index(float(p[1]), float(grid.y_min), float(grid.cell), grid_height);
    return cx != kOutside && cy != kOutside ? cy * grid_width + cx : kOutside;
  }
};

}  // namespace imkd
