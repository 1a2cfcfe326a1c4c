// What a Tracker keeps of one object, and how a detection changes it.
#pragma once
#include <array>
#include <cstdint>

#include "imkd/tracker.hpp"
#include "track_filter.hpp"

namespace imkd {

constexpr double kMaxVotes = 3.0;  // detections of the other heading that turn a track round at most

inline double square(double x) { return x * x; }
double wrapped(double angle);  // [-pi, pi)
float yaw_of(double angle);    // of a Detection: below pi as a float too, which rounds up to the float above pi

// A detection in the odometry frame.
struct Observation {
  int detection, label;
  double score;
  std::array<double, 2> position, velocity;
  bool has_velocity;
  double z, yaw;
  std::array<double, 3> size;
};

// One tracked object, in the odometry frame.
struct TrackObject {
  std::int64_t id = 0;
  int label = 0;
  bool confirmed = false, velocity_measured = false;
  double score = 0;
  MotionFilter motion;
  DriftFilter z, yaw;
  std::array<DriftFilter, 3> size;         // length, width, height
  double votes = kMaxVotes;                // below 0 the heading is the other one
  std::int64_t first_ns = 0, last_ns = 0;  // detections
  int hits = 0;
  int detection = -1;  // of this frame, index into Result::detections

  void predict(const ClassMotion& kind, double seconds);
  void begin(const Observation& o, const ClassMotion& kind);    // its first detection, then count
  void observe(const Observation& o, const ClassMotion& kind);  // a later one, then count
  void count(const Observation& o, const ClassMotion& kind, std::int64_t now_ns);

 private:
  void observe_yaw(double angle, double weight);
};

}  // namespace imkd
