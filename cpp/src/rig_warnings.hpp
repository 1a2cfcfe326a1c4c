// Compares a rig at load with what a bundle was trained on.
#pragma once
#include <cstdio>
#include <optional>
#include <vector>

#include "imkd/contract.hpp"
#include "imkd/coverage.hpp"
#include "imkd/result.hpp"
#include "imkd/rig.hpp"
#include "imkd/spec.hpp"

namespace imkd {

template <class... Values>
Warning make_warning(WarningCode code, const char* format, Values... values) {
  Warning warning{code, {}};
  std::snprintf(warning.text.data(), warning.text.size(), format, values...);
  return warning;
}

inline bool outside(double value, double low, double high) { return !(value >= low && value <= high); }

// Degrees, horizontal, between the left and the right edge of the raw image through its principal row; where the lens
// maps no ray to an edge, up to the last column that has one.
double horizontal_view(const CameraCalibration& camera);

// Height of a sensor above the ground plane, along its normal, m.
double mounting_height(const Mat4& T_ego_sensor, const Vec3& ground);

// What a rig is unlike, by code; each code once, with the first sensor of its kind. Without a contract only what the
// spec alone tells: cameras of no use, and radars whose velocity leaves every velocity channel at 0. Allocates.
std::vector<Warning> rig_warnings(const ModelSpec& spec, const SensorRig& rig, const std::optional<Contract>& contract,
                                  const std::vector<CameraCoverage>& coverage);

}  // namespace imkd
