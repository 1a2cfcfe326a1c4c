// Undistortion: raw pixel -> ray of a camera, for every distortion model of the rig.
#pragma once
#include <array>
#include <cmath>

#include "device.hpp"
#include "imkd/rig.hpp"

namespace imkd {

struct Lens {  // of a CameraCalibration, trivially copyable
  Mat3 K{};
  Distortion distortion = Distortion::none;
  std::array<double, 5> k{};
  Lens() = default;
  explicit Lens(const CameraCalibration& camera) : K(camera.K), distortion(camera.distortion) {
    for (std::size_t i = 0; i < k.size() && i < camera.coefficients.size(); ++i) k[i] = camera.coefficients[i];
  }
};

constexpr int kNewtonSteps = 50;            // a usable pixel needs fewer than 10
constexpr double kNewtonTolerance = 1e-12;  // normalised units

// Brown-Conrady (plumb_bob, k = k1 k2 p1 p2 k3): solves distort(x, y) = (xd, yd) by Newton's method from (xd, yd).
IMKD_HD inline bool undistort_plumb_bob(const std::array<double, 5>& k, double xd, double yd, double& x, double& y) {
  x = xd;
  y = yd;
  for (int step = 0; step < kNewtonSteps; ++step) {
    const double r2 = x * x + y * y;
    const double radial = 1 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]));
    const double slope = k[0] + r2 * (2 * k[1] + r2 * 3 * k[4]);
    const double fx = x * radial + 2 * k[2] * x * y + k[3] * (r2 + 2 * x * x) - xd;
    const double fy = y * radial + k[2] * (r2 + 2 * y * y) + 2 * k[3] * x * y - yd;
    const double xx = radial + 2 * x * x * slope + 2 * k[2] * y + 6 * k[3] * x;
    const double xy = 2 * x * y * slope + 2 * k[2] * x + 2 * k[3] * y;
    const double yy = radial + 2 * y * y * slope + 6 * k[2] * y + 2 * k[3] * x;
    const double det = xx * yy - xy * xy;
    if (!(det > 0) || !(radial > 0)) return false;  // beyond the fold of the polynomial
    if (std::abs(fx) + std::abs(fy) < kNewtonTolerance) return true;
    x -= (yy * fx - xy * fy) / det;
    y -= (xx * fy - xy * fx) / det;
  }
  return false;
}

// Kannala-Brandt (fisheye, k1..k4): theta_d = theta (1 + k1 theta^2 + ... + k4 theta^8), theta the angle from the
// optical axis.
IMKD_HD inline bool undistort_fisheye(const std::array<double, 5>& k, double xd, double yd, double& x, double& y) {
  const double theta_d = std::sqrt(xd * xd + yd * yd);  // not hypot, which differs between libraries
  double theta = theta_d;
  for (int step = 0; step < kNewtonSteps; ++step) {
    const double t2 = theta * theta;
    const double value = theta * (1 + t2 * (k[0] + t2 * (k[1] + t2 * (k[2] + t2 * k[3])))) - theta_d;
    const double slope = 1 + t2 * (3 * k[0] + t2 * (5 * k[1] + t2 * (7 * k[2] + t2 * 9 * k[3])));
    if (!(slope > 0)) return false;
    if (std::abs(value) < kNewtonTolerance) {
      const double half_pi = 1.5707963267948966;
      if (theta < 0 || theta >= half_pi - 1e-6) return false;  // at or behind the plane z = 0
      const double stretch = theta_d > 1e-12 ? std::tan(theta) / theta_d : 1;
      x = xd * stretch;
      y = yd * stretch;
      return true;
    }
    theta -= value / slope;
  }
  return false;
}

// The point on the plane z = 1 of the camera frame that projects to raw pixel (u, v); false where the lens model has no
// such point (behind the camera, or beyond the radius up to which the distortion polynomial is invertible).
IMKD_HD inline bool undistort(const Lens& lens, double u, double v, double& x, double& y) {
  const Mat3& K = lens.K;
  const double yd = (v - K[5]) / K[4];
  const double xd = (u - K[2] - K[1] * yd) / K[0];
  if (lens.distortion == Distortion::plumb_bob) return undistort_plumb_bob(lens.k, xd, yd, x, y);
  if (lens.distortion == Distortion::fisheye) return undistort_fisheye(lens.k, xd, yd, x, y);
  x = xd;
  y = yd;
  return true;
}

}  // namespace imkd
