// Monitor: the state of each sensor between the frames. Watchdog: a deadline for the frames themselves.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>

#include "imkd/frames.hpp"
#include "imkd/result.hpp"
#include "imkd/rig.hpp"
#include "imkd/spec.hpp"

namespace imkd {

struct MonitorOptions {
  double lost_after = 2.0;          // s of silence; more than spec.radar.max_age
  int frozen_after = kFrozenAfter;  // consecutive items with the same contents and new times
};

// The state of a sensor is the first that applies; ages are those of the Detector:
//   missing  nothing has arrived yet, and the first call was at most lost_after ago
//   lost     nothing new arrived for lost_after
//   stale    its newest item is older than spec.radar.max_age, or as far in the future
//   invalid  its newest item is unusable: no image, an image of another size or a flat one (saturated, dark, covered:
//            95 % of the pixels within 4 grey levels, and no light above them), or a sweep of which more than half of
//            the points are invalid (ops.hpp) or that has none
//   frozen   the contents repeat. Real sensors have noise; a simulated camera in a still scene is frozen too.
//   late     its newest item is older than half of max_age
//   ok
// An item whose time is not newer than its sensor's newest item is ignored. One that is older by more than max_age
// restarts the time of that sensor. Every time is an argument, and now_ns is on the clock of the timestamps. Any thread
// may call any method.
class Monitor {
 public:
  // Throws Error 21x (rig), 10x (spec, options).
  Monitor(const SensorRig& rig, const ModelSpec& spec, const MonitorOptions& options = {});
  ~Monitor();
  Monitor(Monitor&&) noexcept;  // one that was moved from may only be assigned to and destroyed
  Monitor& operator=(Monitor&&) noexcept;

  // The image, RGB or NV12, must be in host memory. Throws Error 201, 202 (its layout), 203.
  void observe_camera(int camera, const ImageView& image, std::int64_t timestamp_ns, std::int64_t now_ns);
  // Throws Error 202, 203.
  void observe_radar(const RadarSweep& sweep, std::int64_t now_ns);
  Health check(std::int64_t now_ns);  // sets mode, cameras and radars
  void reset();                       // discards everything

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Reports when a result misses its deadline. Its timer runs on its own thread, independent of the frame loop. beat()
// starts the deadline; a miss is reported once until the next beat.
class Watchdog {
 public:
  using Clock = std::function<std::int64_t()>;  // ns, never decreasing; if it throws, timer and poll count a miss
  // Receives the s since the last beat, on the timer's thread. Exceptions that it throws are discarded.
  using Missed = std::function<void(double)>;

  // deadline: s from one beat to the next. timer false: no thread, and poll() does its work. A custom clock is read by
  // the timer too, which sleeps in real time. Throws Error spec_bad_value, device_unavailable (no thread to be had).
  Watchdog(double deadline, Missed missed = {}, Clock clock = {}, bool timer = true);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  void beat();
  bool overdue() const;         // whether a deadline was missed since the last beat
  std::int64_t misses() const;  // since construction
  void poll();                  // what the timer does when it wakes

 private:
  struct State;
  std::shared_ptr<State> state_;  // shared with the timer: a callback may destroy the watchdog
};

}  // namespace imkd
