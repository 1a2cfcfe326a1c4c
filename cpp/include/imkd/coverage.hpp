// Coverage: how much of a model's grid the cameras of a rig see, and what in a calibration looks wrong.
#pragma once
#include <string>
#include <vector>

#include "imkd/result.hpp"
#include "imkd/rig.hpp"
#include "imkd/spec.hpp"

namespace imkd {

// A camera is of use where at least kMinCoverage of its feature pixels have a ray that runs through the grid over
// kCellsAcross cells or more. A shorter ray gives a position no better than the camera's own: that of a camera which
// looks at the sky or at the ground below it leaves the z window within a few cells, though every pixel has a point in
// the grid. On the grid of `tiny` level cameras reach 100 %, a level fisheye of 190 degrees 64 %, one that looks
// straight down 20 %; a camera of 70 degrees that looks straight up or down 0 %, that of Astyx with its translation in
// mm 12 %.
constexpr double kCellsAcross = 4;
constexpr double kMinCoverage = 0.15;

struct CameraCoverage {
  std::string name;
  double in_grid = 0;  // share of the feature pixels whose ray has a point in the grid, 0..1
  double across = 0;   // share of those whose ray runs through kCellsAcross cells of it or more
  std::string hint;    // the usual causes that the calibration shows; empty: none
  bool usable() const { return across >= kMinCoverage; }
};

// By camera, for checked sensors. Allocates.
std::vector<CameraCoverage> camera_coverage(const ModelSpec& spec, const SensorRig& rig);

// The state of a camera that delivers an image of this age, s. Only an image of a usable state is lifted: Detector and
// training share this rule.
SensorState camera_state(const CameraCoverage& coverage, double age);

// One clause a camera, with its shares and its hint.
std::string to_text(const std::vector<CameraCoverage>& coverage);

}  // namespace imkd
