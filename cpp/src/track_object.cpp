#include "track_object.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace imkd {
namespace {

constexpr double kPi = 3.14159265358979323846;
// Standard deviations of one detection, and of the drift within 1 s.
constexpr double kYawStd = 0.2, kYawDrift = 0.4;        // rad
constexpr double kHeightStd = 0.2, kHeightDrift = 0.2;  // m, of the centre
constexpr double kSizeStd = 0.3, kSizeDrift = 0.02;     // m

}  // namespace

double wrapped(double angle) { return angle - 2 * kPi * std::floor((angle + kPi) / (2 * kPi)); }

float yaw_of(double angle) {
  const auto yaw = static_cast<float>(wrapped(angle));
  return yaw < kPi ? yaw : -yaw;
}

// A heading that differs by more than 90 degrees counts as the opposite one, and votes against the track's.
void TrackObject::observe_yaw(double angle, double weight) {
  double innovation = wrapped(angle - yaw.value);
  const bool opposite = std::abs(innovation) > kPi / 2;
  if (opposite) innovation = wrapped(innovation + kPi);
  yaw.observe(innovation, square(kYawStd));
  votes = std::min(votes + (opposite ? -weight : weight), kMaxVotes);
  if (votes < 0) {
    yaw.value += kPi;
    votes = -votes;
  }
  yaw.value = wrapped(yaw.value);
}

void TrackObject::begin(const Observation& o, const ClassMotion& kind) {
  label = o.label;
  motion.position = o.position;
  motion.pp = square(kind.position_std);
  motion.vv = square(kind.speed_std);
  z = {o.z, square(kHeightStd)};
  yaw = {o.yaw, square(kYawStd)};
  for (std::size_t i = 0; i < 3; ++i) size[i] = {o.size[i], square(kSizeStd)};
}

void TrackObject::observe(const Observation& o, const ClassMotion& kind) {
  motion.observe_position(o.position, square(kind.position_std));
  observe_yaw(o.yaw, o.score);
  z.observe(o.z - z.value, square(kHeightStd));
  for (std::size_t i = 0; i < 3; ++i) size[i].observe(o.size[i] - size[i].value, square(kSizeStd));
}

void TrackObject::count(const Observation& o, const ClassMotion& kind, std::int64_t now_ns) {
  if (o.has_velocity) motion.observe_velocity(o.velocity, square(kind.velocity_std));
  velocity_measured |= o.has_velocity;
  score = 1 - (1 - score) * (1 - o.score);
  detection = o.detection;
  last_ns = now_ns;
  ++hits;
}

void TrackObject::predict(const ClassMotion& kind, double seconds) {
  motion.predict(seconds, kind.acceleration);
  z.predict(seconds, kHeightDrift);
  yaw.predict(seconds, kYawDrift);
  for (DriftFilter& one : size) one.predict(seconds, kSizeDrift);
  detection = -1;
}

ClassMotion class_motion(const std::string& name) {
  static const std::vector<ClassMotion> motions = {
      {"pedestrian", 0.3, 2.0, 1.5, 1.0}, {"person", 0.3, 2.0, 1.5, 1.0},       {"bicycle", 0.4, 2.0, 4.0, 1.5},
      {"cyclist", 0.4, 2.0, 4.0, 1.5},    {"traffic_cone", 0.3, 2.0, 0.2, 0.1}, {"barrier", 0.3, 2.0, 0.2, 0.1},
      {"pallet", 0.3, 2.0, 0.2, 0.1},     {"forklift", 0.4, 2.0, 3.0, 1.5},
  };
  for (const ClassMotion& motion : motions)
    if (motion.name == name) return motion;
  ClassMotion any;
  any.name = name;
  return any;
}

}  // namespace imkd
