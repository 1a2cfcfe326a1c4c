// SensorRig: the cameras and radars of a vehicle, their lenses and mounting, and the ground it stands on.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "imkd/geometry.hpp"

namespace imkd {

// The largest entry of |R^T R - I| of a rotation R that is accepted: calibrations with four decimals reach 2e-4.
// Readers and runtime share it.
constexpr double kRigidTolerance = 1e-3;
// Throws Error rig_not_rigid, or rig_bad_value for a number that is not finite.
void check_rigid(const Mat4& T, std::string_view where);
// T with the nearest rotation (the polar factor) in place of its own; a rotation that is exact to 1e-6, as in float32,
// stays as it is, to the bit. Throws as check_rigid.
Mat4 orthonormalised(const Mat4& T, std::string_view where);
bool is_rigid(const Mat4& T);  // whether check_rigid accepts it; allocates nothing

enum class Distortion { none, plumb_bob, rational_polynomial, fisheye };

struct CameraCalibration {
  std::string name;
  int width = 0;  // px, of the raw image
  int height = 0;
  Mat3 K{};  // px; pixel centres at integers (OpenCV's convention)
  Distortion distortion = Distortion::none;
  // plumb_bob: k1 k2 p1 p2 k3; rational_polynomial: k1 k2 p1 p2 k3 k4 k5 k6; fisheye: k1 k2 k3 k4; none: empty
  std::vector<double> coefficients;
  Mat4 T_ego_camera = identity4();
};

enum class RadialVelocity { compensated, raw, aliased };

struct RadarCalibration {
  std::string name;
  Mat4 T_ego_radar = identity4();
  RadialVelocity velocity = RadialVelocity::compensated;  // of ego motion; positive = receding
  double period = 0;  // m/s, for aliased: the span of unambiguous velocity (aliased implies raw)
};

struct SensorRig {
  std::vector<CameraCalibration> cameras;  // their order is the order of the network's camera slots
  std::vector<RadarCalibration> radars;
  // z = a x + b y + c in the ego frame, m. Without one it is z = 0, or what a bundle of spec version 1 or 2 was made
  // for: see ground_of.
  std::optional<Vec3> ground_plane;
  int camera_index(const std::string& name) const;  // -1 when absent
  int radar_index(const std::string& name) const;
  std::string to_json() const;                          // canonical
  static SensorRig from_json(const std::string& text);  // orthonormalised; throws Error 21x
  static SensorRig load(const std::string& path);
  void check() const;
  SensorRig orthonormalised() const;  // checked, and each transform with an exact rotation; Detector does it itself
  std::string hash() const;           // 16 hex digits of SHA-256 over to_json()
};

}  // namespace imkd
