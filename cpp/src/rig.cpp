#include "imkd/rig.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <fstream>
#include <iterator>
#include <set>
#include <system_error>

#include "json.hpp"
#include "number_text.hpp"
#include "sha256.hpp"

namespace imkd {
namespace {

constexpr int kMaxSide = 65536;          // px of a raw image
constexpr double kExactRotation = 1e-6;  // |R^T R - I| of a rotation that stays as it is; float32 rounds to 1e-7

std::string short_text(double value) { return number_text(value, 3); }

[[noreturn]] void bad(std::string_view where, const std::string& what, const std::string& fix = {}) {
  throw Error(Code::rig_bad_value, what, std::string(where), fix);
}

template <class Numbers>
void check_finite(const Numbers& numbers, std::string_view where) {
  for (double value : numbers)
    if (!std::isfinite(value)) bad(where, "has a number that is not finite", "correct the calibration");
}

std::size_t coefficients_of(Distortion distortion) {
  switch (distortion) {
    case Distortion::plumb_bob:
      return 5;
    case Distortion::rational_polynomial:
      return 8;
    case Distortion::fisheye:
      return 4;
    default:
      return 0;
  }
}

void check_camera(const CameraCalibration& camera, const std::string& where) {
  for (const auto& [key, side] : {std::pair<const char*, int>{".width", camera.width}, {".height", camera.height}})
    if (side < 1 || side > kMaxSide)
      bad(where + key, std::to_string(side) + " px is out of range",
          "the size of the raw image, 1 to " + std::to_string(kMaxSide));
  check_finite(camera.K, where + ".K");
  const Mat3& K = camera.K;
  if (!(K[0] > 0) || !(K[4] > 0))
    bad(where + ".K", "a focal length is not above 0", "K = [[fx, skew, cx], [0, fy, cy], [0, 0, 1]] in px");
  if (K[3] != 0 || K[6] != 0 || K[7] != 0 || K[8] != 1)
    bad(where + ".K", "is not upper triangular with a final 1", "K = [[fx, skew, cx], [0, fy, cy], [0, 0, 1]]");
  check_known(camera.distortion, Code::rig_bad_value, where + ".distortion");
  const std::size_t expected = coefficients_of(camera.distortion);
  if (camera.coefficients.size() != expected)
    bad(where + ".coefficients",
        std::to_string(camera.coefficients.size()) + " coefficients, " + enum_name(camera.distortion) + " has " +
            std::to_string(expected),
        "plumb_bob: k1 k2 p1 p2 k3; rational_polynomial: k1 k2 p1 p2 k3 k4 k5 k6; fisheye: k1 k2 k3 k4; none: empty");
  check_finite(camera.coefficients, where + ".coefficients");
  check_rigid(camera.T_ego_camera, where + ".T_ego_camera");
}

void check_radar(const RadarCalibration& radar, const std::string& where) {
  check_rigid(radar.T_ego_radar, where + ".T_ego_radar");
  check_known(radar.velocity, Code::rig_bad_value, where + ".velocity");
  const bool aliased = radar.velocity == RadialVelocity::aliased;
  if (!std::isfinite(radar.period) || (aliased ? !(radar.period > 0) : radar.period != 0))
    bad(where + ".period", aliased ? "an aliased radar needs a period above 0" : "only an aliased radar has a period",
        aliased ? "the span of unambiguous velocity, m/s" : "set it to 0");
}

// A slope beyond 45 degrees is no ground: the plane is of another frame, or its numbers are in another order.
void check_plane(const Vec3& plane) {
  check_finite(plane, "ground_plane");
  constexpr double kSteepest = 1;
  if (std::hypot(plane[0], plane[1]) > kSteepest)
    bad("ground_plane", "has slope " + short_text(std::hypot(plane[0], plane[1])) + ", allowed is at most 1",
        "[a, b, c] of z = a x + b y + c in the ego frame, c in metres");
}

// The largest entry of |R^T R - I|.
double off_orthonormal(const Mat4& T) {
  double most = 0;
  for (int a = 0; a < 3; ++a)
    for (int b = 0; b < 3; ++b) {
      const double dot = T[a] * T[b] + T[4 + a] * T[4 + b] + T[8 + a] * T[8 + b];
      most = std::max(most, std::abs(dot - (a == b)));
    }
  return most;
}

// By row and column of the rotation; the indices are taken modulo 3.
double minor(const Mat4& T, int row, int column) {
  const auto at = [&](int r, int c) { return T[(row + r) % 3 * 4 + (column + c) % 3]; };
  return at(1, 1) * at(2, 2) - at(1, 2) * at(2, 1);
}

double determinant(const Mat4& T) { return T[0] * minor(T, 0, 0) + T[1] * minor(T, 0, 1) + T[2] * minor(T, 0, 2); }

template <class Sensor>
int index_of(const std::vector<Sensor>& sensors, const std::string& name) {
  for (std::size_t i = 0; i < sensors.size(); ++i)
    if (sensors[i].name == name) return static_cast<int>(i);
  return -1;
}

}  // namespace

void check_rigid(const Mat4& T, std::string_view where) {
  check_finite(T, where);
  const auto refuse = [&](const std::string& what,
                          const char* fix = "a 4x4 transform: rotation, translation in metres, last row 0 0 0 1") {
    throw Error(Code::rig_not_rigid, what, std::string(where), fix);
  };
  if (T[12] != 0 || T[13] != 0 || T[14] != 0 || T[15] != 1) refuse("the last row is not 0 0 0 1");
  const double off = off_orthonormal(T);
  if (off > kRigidTolerance)
    refuse("the rotation R is not orthonormal: the largest entry of |R^T R - I| is " + short_text(off) +
               ", allowed is " + short_text(kRigidTolerance),
           "orthonormalise it (for example by SVD), and check that it is a rotation of the right sensor, row by row");
  if (determinant(T) < 0)
    refuse("the rotation has determinant -1: a mirrored frame",
           "reverse one axis: the determinant must be +1, x, y and z right-handed");
}

bool is_rigid(const Mat4& T) {
  const bool finite = std::all_of(T.begin(), T.end(), [](double v) { return std::isfinite(v); });
  return finite && T[12] == 0 && T[13] == 0 && T[14] == 0 && T[15] == 1 && off_orthonormal(T) <= kRigidTolerance &&
         determinant(T) > 0;
}

// Newton's iteration for the polar factor, R <- (R + R^-T) / 2, squares the error: three steps from 1e-3 reach the last
// bit, the fourth is for the rounding (Higham, Functions of Matrices, 2008, section 8.3).
Mat4 orthonormalised(const Mat4& T, std::string_view where) {
  check_rigid(T, where);
  if (off_orthonormal(T) <= kExactRotation) return T;
  Mat4 R = T;
  for (int step = 0; step < 4; ++step) {
    const Mat4 last = R;
    const double det = determinant(last);
    for (int row = 0; row < 3; ++row)
      for (int column = 0; column < 3; ++column)
        R[row * 4 + column] = (last[row * 4 + column] + minor(last, row, column) / det) / 2;
  }
  return R;
}

int SensorRig::camera_index(const std::string& name) const { return index_of(cameras, name); }
int SensorRig::radar_index(const std::string& name) const { return index_of(radars, name); }

void SensorRig::check() const {
  if (ground_plane) check_plane(*ground_plane);
  if (cameras.empty() && radars.empty())
    throw Error(Code::rig_empty, "the rig has no sensor", "", "add a camera or a radar");
  std::set<std::string> names;
  const auto check_name = [&](const std::string& name, const std::string& where) {
    if (name.empty()) bad(where + ".name", "is empty", "give the sensor a name");
    if (!names.insert(name).second)
      throw Error(Code::rig_duplicate_name, "\"" + name + "\" is the name of two sensors", where + ".name",
                  "rename one");
  };
  for (std::size_t i = 0; i < cameras.size(); ++i) {
    const std::string where = "cameras[" + std::to_string(i) + "]";
    check_name(cameras[i].name, where);
    check_camera(cameras[i], where);
  }
  for (std::size_t i = 0; i < radars.size(); ++i) {
    const std::string where = "radars[" + std::to_string(i) + "]";
    check_name(radars[i].name, where);
    check_radar(radars[i], where);
  }
}

SensorRig SensorRig::orthonormalised() const {
  check();
  SensorRig rig = *this;
  for (CameraCalibration& camera : rig.cameras)
    camera.T_ego_camera = imkd::orthonormalised(camera.T_ego_camera, camera.name);
  for (RadarCalibration& radar : rig.radars) radar.T_ego_radar = imkd::orthonormalised(radar.T_ego_radar, radar.name);
  return rig;
}

std::string SensorRig::to_json() const {
  check();
  return json::dump(json::write(*this), json::kRigCodes);
}

SensorRig SensorRig::from_json(const std::string& text) {
  SensorRig rig;
  json::read(json::parse(text, json::kRigCodes), rig, json::At{json::kRigCodes, ""});
  return rig.orthonormalised();
}

constexpr std::size_t kMaxRig = 1 << 20;  // bytes; a rig of 64 cameras has a tenth

static std::string text_of(const std::string& path) {
  constexpr const char* kFix = "give the path of a rig JSON file";
  std::ifstream file(path, std::ios::binary);
  if (!file)
    throw Error(Code::source_missing_file, "the rig file cannot be opened: " + std::generic_category().message(errno),
                path, kFix);
  std::string text(kMaxRig + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad())  // a folder, or a failing disk
    throw Error(Code::source_missing_file, "the rig file cannot be read", path, kFix);
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.size() > kMaxRig)
    throw Error(Code::rig_bad_value, "the rig file has more than " + std::to_string(kMaxRig) + " bytes", path, kFix);
  return text;
}

SensorRig SensorRig::load(const std::string& path) {
  const std::string text = text_of(path);
  try {
    return from_json(text);
  } catch (const Error& e) {
    throw Error(e.code(), e.problem(), path + (e.where().empty() ? "" : ": " + e.where()), e.fix());
  }
}

std::string SensorRig::hash() const {
  const std::string text = to_json();
  return sha256_hex(text.data(), text.size()).substr(0, 16);
}

}  // namespace imkd
