// Tracker: the boxes of the frames of one drive -> tracks of objects, with ids and velocities.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "imkd/result.hpp"
#include "imkd/spec.hpp"

namespace imkd {

// How objects of a class move and how well a detector measures them. The standard deviations hold along each axis.
struct ClassMotion {
  std::string name;           // of ModelSpec::head.classes
  double position_std = 0.5;  // m, of a detection's centre
  double velocity_std = 2.0;  // m/s, of a detection's velocity
  double speed_std = 8.0;     // m/s, of the velocity of an object that was detected once, without a velocity
  double acceleration = 2.0;  // m/s, by which the velocity may change within 1 s
};

struct TrackerOptions {
  double birth_score = 0.2;          // a detection below it continues tracks but begins none; 0..1
  double confirm_score = 0.5;        // of a track, from which it is confirmed; 0..1
  double max_age = 2.0;              // s since its last detection, after which a track ends; at most 60
  double max_gap = 2.0;              // s from frame to frame, after which the tracker restarts; at most 60
  int max_tracks = 512;              // 1..4096
  std::vector<ClassMotion> classes;  // for classes whose values are not those of class_motion()
};

// The values for the usual class names; those of ClassMotion for any other name.
ClassMotion class_motion(const std::string& name);

// tentative: its score has not reached confirm_score; confirmed: it has, and the object is detected in this frame;
// coasting: it has, and the box is extrapolated.
enum class TrackState : std::uint8_t { tentative, confirmed, coasting };

struct Track {
  std::int64_t id = 0;  // from 1; never repeats in the life of a Tracker
  TrackState state = TrackState::tentative;
  // In the ego frame at the result's time. The score is that of the track: 1 - (1 - score)(1 - score of the detection)
  // with each detection, and falling without one. The velocity is over ground, or relative to the ego where
  // TrackerHealth::over_ground is false; NaN after a single detection without a velocity.
  Detection box;
  bool velocity_measured = false;  // false: no detection of the object had a velocity; it follows from positions alone
  float velocity_std = 0;          // m/s, along each axis
  float age = 0;                   // s since the first detection
  float coasting = 0;              // s since the last detection
  int hits = 0;                    // detections
  int detection = -1;              // index into Result::detections; -1: none in this frame
};

struct TrackerHealth {
  // false: neither pose nor twist of the ego is known, the objects are tracked in the ego frame and the velocities of
  // the detections are not used.
  bool over_ground = false;
  int detections_invalid = 0;   // of this frame, ignored: a number that is not finite or beyond 1e5, size <= 0, score
                                // outside 0..1, or a label that the spec lacks
  int detections_overflow = 0;  // of this frame, ignored: more than ModelSpec::head.max_detections, or no free track
  std::int64_t restarts = 0;    // so often all tracks were discarded
  std::int64_t repeats = 0;     // frames ignored because of the time of the frame before
};

// Assigns the boxes of each class to the tracks by the distance of the centres (Hungarian method), within three
// standard deviations of the predicted distance. Each object has a Kalman filter with constant velocity, in a frame
// that is fixed to the ground: the ego's path is integrated from Result::ego, poses first, then the twist. A frame
// whose ego motion is unknown continues the last twist for at most 1 s (kMaxPoseGap).
//
// Time: tracks are extrapolated to Result::timestamp_ns. A frame with the time of the frame before is ignored: the
// tracks stay, and have no detection in it. The tracker restarts, with new ids, where the time goes back, after more
// than max_gap, and where the ego motion becomes known or unknown, or jumps (kMaxEgoSpeed).
//
// update allocates nothing. One thread at a time.
class Tracker {
 public:
  // spec: of the detector. Throws Error 10x.
  explicit Tracker(const ModelSpec& spec, const TrackerOptions& options = {});
  ~Tracker();
  Tracker(Tracker&&) noexcept;  // one that was moved from may only be assigned to and destroyed
  Tracker& operator=(Tracker&&) noexcept;

  // Of the next frame; the tracks are sorted by id and valid until the next call. Never throws.
  const std::vector<Track>& update(const Result& result);
  const TrackerHealth& health() const;  // of the last update
  void reset();                         // discards the tracks; ids continue

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace imkd
