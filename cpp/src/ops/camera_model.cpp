#include "camera_model.hpp"

#include <limits>

#include "imkd/ops.hpp"

namespace imkd {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kFullTurn = 3.141592653589793;  // rad, the largest angle from the axis
constexpr int kScan = 2048;                      // samples of q in search of a fold

// The largest q up to which the radial image grows: the first sample where it does not, refined by bisection. r = tan
// is sampled as r / (1 + r), up to 2047, which is 89.97 degrees.
double growth_limit(const Lens& lens) {
  const bool fisheye = lens.distortion == Distortion::fisheye;
  const auto sample = [&](double t) { return fisheye ? t * kFullTurn : t / (1 - t); };
  const auto grows = [&](double t) {
    const RadialImage image = radial_image(lens, sample(t));
    return image.slope > 0 && image.value >= 0 && image.value < std::numeric_limits<double>::infinity();
  };
  const int last = fisheye ? kScan : kScan - 1;
  int index = 1;
  while (index <= last && grows(double(index) / kScan)) ++index;
  double low = double(index - 1) / kScan, high = double(index) / kScan;
  if (index > last) return sample(low);
  for (int step = 0; step < kSolverSteps; ++step) {
    const double middle = low + (high - low) / 2;
    (grows(middle) ? low : high) = middle;
  }
  return sample(low);
}

}  // namespace

Lens::Lens(const CameraCalibration& camera) : K(camera.K), distortion(camera.distortion) {
  for (std::size_t i = 0; i < k.size() && i < camera.coefficients.size(); ++i) k[i] = camera.coefficients[i];
  if (distortion != Distortion::none) limit = growth_limit(*this);
}

void project(const CameraCalibration& camera, const double* points, std::size_t count, double* pixels) {
  const Lens lens(camera);
  for (std::size_t i = 0; i < count; ++i, points += 3, pixels += 2)
    if (!project(lens, {points[0], points[1], points[2]}, pixels[0], pixels[1])) pixels[0] = pixels[1] = kNan;
}

void pixel_rays(const CameraCalibration& camera, const double* pixels, std::size_t count, double* rays) {
  const Lens lens(camera);
  for (std::size_t i = 0; i < count; ++i, pixels += 2, rays += 3) {
    Vec3 ray{kNan, kNan, kNan};
    unproject(lens, pixels[0], pixels[1], ray);
    for (int axis = 0; axis < 3; ++axis) rays[axis] = ray[axis];
  }
}

}  // namespace imkd
