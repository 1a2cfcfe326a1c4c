// Synchronizer: images, radar sweeps and ego motion with their times, in any order -> one FrameSet per item of the
// reference sensor. Every time is an argument: now_ns is on the clock of the timestamps, so that a recording can be
// replayed at any pace.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "imkd/frames.hpp"
#include "imkd/rig.hpp"
#include "imkd/spec.hpp"

namespace imkd {

struct SynchronizerOptions {
  std::string reference;    // the sensor whose items make the frames; "": the rig's first camera, else its first radar
  double tolerance = 0.04;  // s from the reference time within which a sensor counts as there
  double timeout = 0.1;     // s that a frame waits for what is missing, from the arrival of its reference item
  double max_delay = 1.0;   // s from an item's time to its arrival
  double max_future = 0.1;  // s that an item's time may lie beyond now
  double lost_after = 1.0;  // s of silence after which no frame waits for a sensor
  int max_images = 8;       // kept per camera; the oldest go first
  int max_sweeps = 32;      // kept per radar, so the most of one radar in a frame
};

// What became of an item. Only a kept one changes anything.
//   late:      no frame to come can use it, or it is more than max_delay older than now
//   duplicate: its sensor has an item of that time; the first one stays
//   future:    its time is more than max_future beyond now
//   invalid:   an ego motion with numbers that are not finite, a pose that is not rigid, or one older than the newest
//   that it contradicts
enum class Pushed : std::uint8_t { kept, late, duplicate, future, invalid };

struct SynchronizerCounts {
  std::int64_t kept = 0, late = 0, duplicate = 0, future = 0, invalid = 0;  // by what became of an item
  std::int64_t complete = 0, incomplete = 0;                                // frames handed out
  std::int64_t dropped = 0;   // reference items pushed out by newer ones before anybody took their frame
  std::int64_t expired = 0;   // reference items that nobody asked for within max_delay + timeout
  std::int64_t restarts = 0;  // now went back
};

struct LiveFrame {  // a FrameSet and what keeps alive what it views
  FrameSet frames;
  std::vector<std::shared_ptr<const void>> cameras, sweeps;  // in the order of frames.cameras and frames.sweeps
  bool complete = false;  // every sensor of the rig, and the ego motion where there was any, was there
};

// A frame stands for the time t of one reference item and holds
//   of each camera the image nearest to t within tolerance (of two as near the older);
//   of each radar every sweep in [t - spec.radar.max_age, t + tolerance], with the ego pose of its own time: the
//   Detector accumulates them; the ego pose at t: interpolated between poses at most 0.5 s apart, else carried on for
//   at most 0.1 s at the nearest one's twist; where that pose came without one, at the twist nearest to t within 0.1 s,
//   else at the speed from it to the next pose within 0.5 s; the twist nearest to t within 0.1 s.
// It is ready when every sensor has something within tolerance of t, and the ego motion has reached t; or timeout after
// its reference item arrived. Frames come in the order of their times, which rise. Below half the sensors' period of
// tolerance, which items a complete frame holds does not depend on the order of their arrival. Silence: a sensor silent
// for lost_after is waited for no more until it is back. If it is the reference, the first sensor of the rig that is
// not silent stands in for it, from its newest item on. An ego motion that never came, or is silent for as long, is not
// waited for. Jumps: a sensor whose clock jumps gives items that are late or future until its clock is back, and so
// falls silent. Where now goes back by more than max_delay all is forgotten, as by reset(); by less, it stands still.
// Where now leaps ahead, what is old expires. A pose that would need more than 100 m/s forgets the poses before it. Any
// thread may call any method; none waits but for another's call.
class Synchronizer {
 public:
  Synchronizer(const SensorRig& rig, const ModelSpec& spec,
               const SynchronizerOptions& options = {});  // throws Error 21x, 10x, 203
  ~Synchronizer();
  Synchronizer(Synchronizer&&) noexcept;
  Synchronizer& operator=(Synchronizer&&) noexcept;

  // owner keeps the pixels or points alive and unchanged; without one they are copied, so must be in the host's memory.
  // Throws Error 202, 203 for the caller's mistakes.
  Pushed push_camera(int camera, const ImageView& image, std::int64_t timestamp_ns, std::int64_t now_ns,
                     std::shared_ptr<const void> owner = {});
  Pushed push_radar(const RadarSweep& sweep, std::int64_t now_ns,
                    std::shared_ptr<const void> owner = {});  // a pose of its own is kept
  Pushed push_ego(const Ego& ego, std::int64_t timestamp_ns, std::int64_t now_ns);
  // The oldest frame that is ready. To catch up, call it until there is none and use the last.
  std::optional<LiveFrame> pop(std::int64_t now_ns);
  void reset();
  SynchronizerCounts counts() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace imkd
