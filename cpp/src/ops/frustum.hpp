// Rays of feature pixels, and the BEV cells that the points along them fall into.
#pragma once
#include "camera_model.hpp"
#include "plane.hpp"

namespace imkd {

// The point at optical depth 1 on the ray of a feature pixel, in the camera frame; false where the lens has no such
// ray.
IMKD_HD inline bool feature_ray(const Lens& lens, const ImageCrop& crop, int stride, int row, int column, double& x,
                                double& y) {
  const double input_u = (column + 0.5) * stride - 0.5;
  const double input_v = (row + 0.5) * stride - 0.5;
  const double u = (input_u + 0.5 + crop.left) / crop.scale - 0.5;
  const double v = (input_v + 0.5 + crop.top) / crop.scale - 0.5;
  return undistort(lens, u, v, x, y);
}

struct Frustum {  // one camera, its crop, and the grid below it
  Lens lens;
  Mat4 T_ego_camera = identity4();
  ImageCrop crop;
  Plane bev;
  double z_min, z_max;  // m above the ground
  int stride;

  Frustum(const ModelSpec& spec, const Vec3& ground, const CameraCalibration& camera, const ImageCrop& crop)
      : lens(camera),
        T_ego_camera(camera.T_ego_camera),
        crop(crop),
        bev(Plane::of_bev(spec, ground)),
        z_min(spec.grid.z_min),
        z_max(spec.grid.z_max),
        stride(spec.image.stride) {}

  IMKD_HD bool ray(int row, int column, double& x, double& y) const {
    return feature_ray(lens, crop, stride, row, column, x, y);
  }

  // The cell, row * width + column, of the point at a depth along the ray; kOutside where it is in none.
  IMKD_HD int cell(double x, double y, double depth) const {
    const Vec3 p = transform(T_ego_camera, {x * depth, y * depth, depth});
    const double above = p[2] - bev.ground(p[0], p[1]);  // the z window follows the ground
    return above >= z_min && above < z_max ? bev.at(p[0], p[1]) : kOutside;
  }
};

}  // namespace imkd
