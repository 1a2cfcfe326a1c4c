// Synchronizer: images, radar sweeps and ego motion with their times, in any order -> one FrameSet per item of the
// reference sensor. Every time is an argument, and now_ns is on the clock of the timestamps: a recording can be
// replayed at any speed.
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
  std::string reference;    // the sensor whose items define the frames; "": the rig's first camera, else first radar
  double tolerance = 0.04;  // s between the frame's time and an item that counts as part of the frame
  double timeout = 0.1;     // s that a frame waits for missing items, from the arrival of its reference item
  double max_delay = 1.0;   // s from an item's time to its arrival
  double max_future = 0.1;  // s that an item's time may exceed now
  double lost_after = 1.0;  // s of silence after which no frame waits for a sensor
  int max_images = 8;       // stored per camera; a newer image replaces the oldest
  int max_sweeps = 32;      // stored per radar, hence the maximum of one radar in a frame
};

// The result of a push. Only a kept item enters a frame.
//   late:      no frame to come can use the item, or it is more than max_delay older than now, or its clock may have
//              stepped back (see Synchronizer)
//   duplicate: its sensor has an item of that time already; the first one stays. Pose and twist of one time may come in
//              two pushes: of ego motion only what is present in each given part is a duplicate.
//   future:    its time exceeds now by more than max_future
//   invalid:   ego motion with neither pose nor twist, whose numbers are not finite, whose twist is faster than
//              kMaxEgoSpeed or kMaxYawRate, whose pose is not rigid, or whose pose is older than the newest pose and
//              contradicts it; an image of another size than its calibration's, from a camera that has delivered one
//              that fits (before that it is the caller's mistake)
enum class Pushed : std::uint8_t { kept, late, duplicate, future, invalid };

struct SynchronizerCounts {
  std::int64_t kept = 0, late = 0, duplicate = 0, future = 0, invalid = 0;  // items, by the result of their push
  std::int64_t complete = 0, incomplete = 0;                                // frames handed out
  std::int64_t dropped = 0;   // reference items that newer ones replaced before their frame was popped
  std::int64_t expired = 0;   // reference items whose frame was not popped within max_delay + timeout
  std::int64_t restarts = 0;  // by a clock that jumped or stepped back
};

// A FrameSet, and the owners of the memory that it views.
struct LiveFrame {
  FrameSet frames;
  std::vector<std::shared_ptr<const void>> cameras, sweeps;  // in the order of frames.cameras and frames.sweeps
  // Every sensor of the rig has an item within tolerance of the frame's time; where ego motion was ever pushed it has
  // reached that time, and the frame has a pose or a twist there. A sweep further away is in the frame and does not
  // count.
  bool complete = false;
};

// A frame has the time t of one reference item. It holds
//   per camera:  the image nearest to t within tolerance; of two at the same distance the older one; with the ego pose
//                at its own time;
//   per radar:   every sweep in [t - spec.radar.max_age, t + tolerance], each with the ego pose at its own time, so
//                that the Detector can accumulate them;
//   the ego pose at t: interpolated between poses at most 0.5 s apart, otherwise extrapolated from the nearest pose by
//                at most 0.1 s, at that pose's twist, else at the twist nearest to t within 0.1 s,
//                else at the speed between that pose and the nearest other pose 0.01 to 0.5 s from it;
//   the twist nearest to t within 0.1 s.
//
// Readiness: a frame is ready when every sensor has an item within tolerance of t and the ego motion has reached t, or
// timeout after its reference item arrived. Frames are handed out in the order of their times, which increase strictly.
// With a tolerance below half of the sensors' period the items of a complete frame do not depend on the order of
// arrival.
//
// Silence: no frame waits for a sensor that has been silent for lost_after, until it delivers again. If the reference
// is silent, the first sensor of the rig that is not silent replaces it, from its newest item on. No frame waits for
// ego motion that was never pushed or that has been silent for lost_after.
//
// Clock jumps: items of a sensor whose clock jumps are late or future until its clock is right again, so the sensor
// becomes silent. If now jumps ahead, old items expire. If now jumps back by more than max_delay, the synchronizer
// restarts: it discards everything as by reset(). If now jumps back by less, the current time stays as it is. A pose
// that would need a speed of more than 100 m/s discards the poses before it.
//
// Clock steps, as at the end of a short recording that plays in a loop: the synchronizer restarts too
//   if now and the items step back together. An item older than its sensor's newest, pushed with a now that is more
//   than max_future before the current time, is late; a second one of that sensor, newer than the first, restarts,
//   unless an item newer than all others came between them. Ego motion counts as a sensor here.
//   if now stays or goes on, and every sensor that is not silent has advanced four times behind its newest item.
// Every pass of a loop shorter than max_delay thus loses its first frame, or five where now stays, and no frame mixes
// two passes where now steps back with the items. A step of now by at most max_future looks like calls that overtake
// each other: a loop of less than max_future and two periods loses more frames, and they may mix two passes. A loop of
// one frame yields it once. Reordering, repetition, single late items and one sensor whose clock steps back alone
// restart nothing.
//
// Any thread may call any method. A method waits for the calls of other threads and for nothing else.
class Synchronizer {
 public:
  // Throws Error 21x (rig), 10x (spec, options), 203 (reference).
  Synchronizer(const SensorRig& rig, const ModelSpec& spec, const SynchronizerOptions& options = {});
  ~Synchronizer();
  Synchronizer(Synchronizer&&) noexcept;  // one that was moved from may only be assigned to and destroyed
  Synchronizer& operator=(Synchronizer&&) noexcept;

  // owner keeps the pixels or points alive and unchanged. Without one they are copied, and must be in host memory.
  // Throws Error 202, 203.
  Pushed push_camera(int camera, const ImageView& image, std::int64_t timestamp_ns, std::int64_t now_ns,
                     std::shared_ptr<const void> owner = {});
  // The sweep's own pose, where it has one, replaces the pose from push_ego.
  Pushed push_radar(const RadarSweep& sweep, std::int64_t now_ns, std::shared_ptr<const void> owner = {});
  Pushed push_ego(const Ego& ego, std::int64_t timestamp_ns, std::int64_t now_ns);

  // The oldest frame that is ready. To catch up, call it until it returns none, and use the last frame.
  std::optional<LiveFrame> pop(std::int64_t now_ns);
  void reset();  // discards everything but the counts
  SynchronizerCounts counts() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace imkd
