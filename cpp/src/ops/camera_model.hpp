// Lens models: a ray of a camera to its raw pixel and back, for every distortion of the rig.
#pragma once
#include <array>
#include <cmath>

#include "device.hpp"
#include "imkd/rig.hpp"

namespace imkd {

constexpr int kSolverSteps = 60;            // Newton's method needs fewer than 10, bisection alone 52
constexpr double kSolverTolerance = 1e-12;  // of 1 + the distance in the image, normalised units

// What a lens does to the distance q from the optical axis: q is tan(angle) for the polynomials in r = tan(angle), and
// the angle in rad for fisheye.
struct RadialImage {
  double value = 0;  // distance in the image, normalised units
  double slope = 0;  // its derivative by q
};

struct Lens {  // of a CameraCalibration, trivially copyable
  Mat3 K{};
  Distortion distortion = Distortion::none;
  std::array<double, 8> k{};
  // The radial image grows strictly on [0, limit): a ray beyond the limit has no pixel, a pixel beyond its image no
  // ray.
  double limit = 0;
  Lens() = default;
  explicit Lens(const CameraCalibration& camera);
};

// Brown-Conrady, k = k1 k2 p1 p2 k3 k4 k5 k6 as in OpenCV (plumb_bob: k4 = k5 = k6 = 0): the factor of a point at
// r^2 = s, and half its derivative by r over r.
IMKD_HD inline void brown_conrady(const std::array<double, 8>& k, double s, double& factor, double& slope) {
  const double above = 1 + s * (k[0] + s * (k[1] + s * k[4]));
  const double below = 1 + s * (k[5] + s * (k[6] + s * k[7]));
  const double above_slope = k[0] + s * (2 * k[1] + s * 3 * k[4]);
  const double below_slope = k[5] + s * (2 * k[6] + s * 3 * k[7]);
  factor = above / below;
  slope = (above_slope - factor * below_slope) / below;
}

// Kannala-Brandt (fisheye, k1..k4): theta (1 + k1 theta^2 + ... + k4 theta^8), theta the angle from the optical axis.
IMKD_HD inline RadialImage radial_image(const Lens& lens, double q) {
  const std::array<double, 8>& k = lens.k;
  const double s = q * q;
  if (lens.distortion == Distortion::fisheye)
    return {q * (1 + s * (k[0] + s * (k[1] + s * (k[2] + s * k[3])))),
            1 + s * (3 * k[0] + s * (5 * k[1] + s * (7 * k[2] + s * 9 * k[3])))};
  double factor, slope;
  brown_conrady(k, s, factor, slope);
  return {q * factor, factor + 2 * s * slope};
}

// The q below the lens's limit whose image is at a distance: Newton's method, kept between bounds; false where there is
// none.
IMKD_HD inline bool solve_radial(const Lens& lens, double distance, double& q) {
  double low = 0, high = lens.limit;
  if (!(distance <= radial_image(lens, high).value)) return false;
  q = distance < high ? distance : high / 2;
  for (int step = 0; step < kSolverSteps; ++step) {
    const RadialImage image = radial_image(lens, q);
    const double error = image.value - distance;
    if (std::abs(error) < kSolverTolerance * (1 + distance)) return true;
    (error > 0 ? high : low) = q;
    q -= error / image.slope;
    if (!(q > low && q < high)) q = low + (high - low) / 2;
  }
  return high - low <= kSolverTolerance * (1 + high);
}

IMKD_HD inline void distort_brown_conrady(const Lens& lens, double x, double y, double& xd, double& yd) {
  const std::array<double, 8>& k = lens.k;
  const double r2 = x * x + y * y;
  double factor, slope;
  brown_conrady(k, r2, factor, slope);
  xd = x * factor + 2 * k[2] * x * y + k[3] * (r2 + 2 * x * x);
  yd = y * factor + k[2] * (r2 + 2 * y * y) + 2 * k[3] * x * y;
}

// Solves distort(x, y) = (xd, yd) by Newton's method from the solution without the tangential part.
IMKD_HD inline bool undistort_brown_conrady(const Lens& lens, double xd, double yd, double& x, double& y) {
  const std::array<double, 8>& k = lens.k;
  const double distance = std::sqrt(xd * xd + yd * yd);  // not hypot, which differs between libraries
  double radius;
  if (!solve_radial(lens, distance, radius)) return false;
  const double scale = distance > 0 ? radius / distance : 1;
  x = xd * scale;
  y = yd * scale;
  for (int step = 0; step < kSolverSteps; ++step) {
    const double r2 = x * x + y * y;
    if (!(r2 < lens.limit * lens.limit)) return false;
    double factor, slope, fx, fy;
    brown_conrady(k, r2, factor, slope);
    distort_brown_conrady(lens, x, y, fx, fy);
    fx -= xd;
    fy -= yd;
    if (std::abs(fx) + std::abs(fy) < kSolverTolerance * (1 + distance)) return true;
    const double xx = factor + 2 * x * x * slope + 2 * k[2] * y + 6 * k[3] * x;
    const double xy = 2 * x * y * slope + 2 * k[2] * x + 2 * k[3] * y;
    const double yy = factor + 2 * y * y * slope + 6 * k[2] * y + 2 * k[3] * x;
    const double det = xx * yy - xy * xy;
    if (!(det > 0)) return false;  // beyond the fold of the polynomial
    x -= (yy * fx - xy * fy) / det;
    y -= (xx * fy - xy * fx) / det;
  }
  return false;
}

IMKD_HD inline void normalised_pixel(const Mat3& K, double u, double v, double& xd, double& yd) {
  yd = (v - K[5]) / K[4];
  xd = (u - K[2] - K[1] * yd) / K[0];
}

// The point on the plane z = 1 of the camera frame that projects to raw pixel (u, v); false where the lens has no such
// point: beyond the radius up to which its image grows, or, in a fisheye, 90 degrees or more off the axis, where a ray
// has no optical depth.
IMKD_HD inline bool undistort(const Lens& lens, double u, double v, double& x, double& y) {
  double xd, yd;
  normalised_pixel(lens.K, u, v, xd, yd);
  x = xd;
  y = yd;
  if (lens.distortion == Distortion::none) return true;
  if (lens.distortion != Distortion::fisheye) return undistort_brown_conrady(lens, xd, yd, x, y);

  constexpr double kBesidePlane = 1.5707963267948966 - 1e-6;  // rad
  const double distance = std::sqrt(xd * xd + yd * yd);
  double theta;
  if (!solve_radial(lens, distance, theta) || theta >= kBesidePlane) return false;
  const double stretch = distance > 1e-12 ? std::tan(theta) / distance : 1;
  x = xd * stretch;
  y = yd * stretch;
  return true;
}

// The unit vector, in the camera frame, of the ray that projects to raw pixel (u, v), behind the plane z = 0 too; false
// where the lens has none.
IMKD_HD inline bool unproject(const Lens& lens, double u, double v, Vec3& ray) {
  double x, y, z = 1;
  if (lens.distortion == Distortion::fisheye) {
    normalised_pixel(lens.K, u, v, x, y);
    const double distance = std::sqrt(x * x + y * y);
    double theta;
    if (!solve_radial(lens, distance, theta)) return false;
    const double stretch = distance > 1e-12 ? std::sin(theta) / distance : 1;
    ray = {x * stretch, y * stretch, std::cos(theta)};
    return true;
  }
  if (!undistort(lens, u, v, x, y)) return false;
  const double length = std::sqrt(x * x + y * y + z * z);
  ray = {x / length, y / length, z / length};
  return true;
}

// The raw pixel of a point in the camera frame; false where the lens has none: beyond its limit and, in every lens but
// fisheye, at or behind the plane z = 0.
IMKD_HD inline bool project(const Lens& lens, const Vec3& p, double& u, double& v) {
  double x, y;
  if (lens.distortion == Distortion::fisheye) {
    const double across = std::sqrt(p[0] * p[0] + p[1] * p[1]);
    const double theta = std::atan2(across, p[2]);
    if (!(theta < lens.limit) || (across == 0 && !(p[2] > 0))) return false;
    const double scale = across > 0 ? radial_image(lens, theta).value / across : 0;
    x = p[0] * scale;
    y = p[1] * scale;
  } else {
    if (!(p[2] > 0)) return false;
    x = p[0] / p[2];
    y = p[1] / p[2];
    if (lens.distortion != Distortion::none) {
      if (!(x * x + y * y < lens.limit * lens.limit)) return false;
      distort_brown_conrady(lens, x, y, x, y);
    }
  }
  const Mat3& K = lens.K;
  u = K[0] * x + K[1] * y + K[2];
  v = K[4] * y + K[5];
  return std::isfinite(u) && std::isfinite(v);
}

}  // namespace imkd
