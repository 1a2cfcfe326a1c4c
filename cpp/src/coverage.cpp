#include "imkd/coverage.hpp"

#include <cmath>

#include "imkd/frames.hpp"
#include "number_text.hpp"
#include "ops/frustum.hpp"

namespace imkd {
namespace {

constexpr double kFarthestMounting = 50;  // m from the ego frame's origin; no vehicle is longer
constexpr double kShortestFocal = 2;      // px; below it K is that of an image of width 1
constexpr double kSteep = 0.866;          // |z| of an optical axis more than 60 degrees from the horizontal
constexpr double kLevel = 0.5;            // -z of a camera's down; less: rolled by more than 60 degrees

std::string number(double value) { return number_text(value, 4); }

std::string point_text(double x, double y) { return "(" + number(x) + ", " + number(y) + ")"; }

// The usual mistakes, each with its cure.
std::string hint_of(const CameraCalibration& camera) {
  const Mat4& T = camera.T_ego_camera;
  const Mat3& K = camera.K;
  std::string text;
  const auto add = [&](const std::string& clause) { text += (text.empty() ? "" : "; ") + clause; };

  const double away = std::sqrt(T[3] * T[3] + T[7] * T[7] + T[11] * T[11]);
  if (away > kFarthestMounting)
    add("its translation is " + number(away) + " m long: T_ego_camera is in metres, are these millimetres?");

  if (K[0] < kShortestFocal || K[4] < kShortestFocal)
    add("its focal length is " + point_text(K[0], K[4]) +
        " px: K is in px of the raw image, is it normalised to 0..1? Multiply row 1 by the width and row 2 by the "
        "height");
  else if (!(K[2] >= 0 && K[2] < camera.width && K[5] >= 0 && K[5] < camera.height))
    add("its principal point " + point_text(K[2], K[5]) + " px lies outside the image of " +
        std::to_string(camera.width) + "x" + std::to_string(camera.height) + ": K is that of another image size");

  const double ahead_z = T[10], down_z = T[9];  // of the optical axis and of the image's down, in the ego frame
  if (std::abs(ahead_z) > kSteep)
    add(std::string("its optical axis points at the ") + (ahead_z > 0 ? "sky" : "ground") +
        ": T_ego_camera maps optical axes (x right, y down, z ahead), are these body axes (x ahead, y left, z up)?");
  else if (-down_z < kLevel)
    add("its image's down has z = " + number(down_z) +
        " in the ego frame, -1 when level: the camera is rolled, or these are not optical axes (x right, y down, z "
        "ahead)");
  return text;
}

struct Reach {  // of one ray
  bool in_grid = false;
  double length = 0;  // m, horizontal, from its first to its last point in the grid
};

Reach reach_of(const ModelSpec& spec, const Frustum& frustum, double x, double y) {
  const auto depth = [&](int bin) { return spec.depth.edge(bin + 0.5); };
  int first = 0, last = spec.depth.bins - 1;
  while (first <= last && frustum.cell(x, y, depth(first)) == kOutside) ++first;
  while (first <= last && frustum.cell(x, y, depth(last)) == kOutside) --last;
  if (first > last) return {};
  const Vec3 ray = rotate(frustum.T_ego_camera, {x, y, 1});
  return {true, std::hypot(ray[0], ray[1]) * (depth(last) - depth(first))};
}

}  // namespace

std::vector<CameraCoverage> camera_coverage(const ModelSpec& spec, const SensorRig& rig) {
  std::vector<CameraCoverage> result;
  const int h = spec.image.feature_height(), w = spec.image.feature_width();
  for (const CameraCalibration& camera : rig.cameras) {
    const Frustum frustum(spec, ground_of(spec, rig), camera, image_crop(spec.image, camera.width, camera.height));
    int in_grid = 0, across = 0;
    for (int row = 0; row < h; ++row)
      for (int column = 0; column < w; ++column) {
        double x = 0, y = 0;
        if (!frustum.ray(row, column, x, y)) continue;
        const Reach reach = reach_of(spec, frustum, x, y);
        in_grid += reach.in_grid;
        across += reach.length >= kCellsAcross * spec.grid.cell;
      }
    const double pixels = double(h) * w;
    result.push_back({camera.name, in_grid / pixels, across / pixels, hint_of(camera)});
  }
  return result;
}

SensorState camera_state(const CameraCoverage& coverage, double age) {
  if (!coverage.usable()) return SensorState::unusable;
  const double off = std::abs(age);
  return off > kSensorPeriod ? SensorState::stale : off > kSensorPeriod / 2 ? SensorState::late : SensorState::ok;
}

std::string to_text(const std::vector<CameraCoverage>& coverage) {
  std::string text;
  for (const CameraCoverage& camera : coverage) {
    text += (text.empty() ? "camera " : "; camera ") + camera.name + ": " + number(100 * camera.in_grid) +
            " % of its pixels see the grid, " + number(100 * camera.across) + " % across " + number(kCellsAcross) +
            " cells or more";
    if (!camera.hint.empty()) text += " (" + camera.hint + ")";
  }
  return text;
}

}  // namespace imkd
