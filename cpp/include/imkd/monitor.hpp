// Monitor: how each sensor does between the frames, and a watchdog over the frames themselves.
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
  double lost_after = 2.0;  // s of silence; above spec.radar.max_age
  int frozen_after = 3;     // items in a row with the same contents under new times
};

// State of a sensor, the first that holds; ages count as the Detector counts them:
//   missing  nothing came yet, for less than lost_after since the first call
//   lost     nothing new came for lost_after
//   stale    its newest item is older than spec.radar.max_age (or as far in the future)
//   invalid  its newest item is unusable: no image or one of another size; a sweep whose every point is invalid, see
//   ops.hpp frozen   the contents repeat. Real sensors have noise; a simulated camera in a still world freezes too.
//   late     its newest item is older than half of max_age
//   ok
// An item whose time its sensor had already is no news. One that is older than the newest by more than max_age restarts
// that sensor's time. Every time is an argument, now_ns on the clock of the timestamps. Any thread may call any method.
class Monitor {
 public:
  Monitor(const SensorRig& rig, const ModelSpec& spec, const MonitorOptions& options = {});  // throws Error 21x, 10x
  ~Monitor();
  Monitor(Monitor&&) noexcept;
  Monitor& operator=(Monitor&&) noexcept;

  // The image, RGB or NV12, must be in the host's memory. Throws Error frame_unknown_sensor.
  void observe_camera(int camera, const ImageView& image, std::int64_t timestamp_ns, std::int64_t now_ns);
  void observe_radar(const RadarSweep& sweep, std::int64_t now_ns);  // throws Error 202, 203
  Health check(std::int64_t now_ns);                                 // mode, cameras and radars are set
  void reset();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Tells when a result did not come in time: its timer runs on a thread of its own, whatever the frame loop does.
// The deadline starts with beat(); a miss is told once, until the next beat.
class Watchdog {
 public:
  using Clock = std::function<std::int64_t()>;  // ns, never back; where it throws, the timer and poll count a miss
  using Missed =
      std::function<void(double)>;  // s since the last beat; called on the timer's thread; what it throws is dropped
  // timer false: no thread, poll() does its work. An own clock is asked by the timer too, which sleeps in real time.
  Watchdog(double deadline /* s */, Missed missed = {}, Clock clock = {},
           bool timer = true);  // throws Error spec_bad_value
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  void beat();
  bool overdue() const;  // a miss since the last beat
  std::int64_t misses() const;
  void poll();  // what the timer does when it wakes

 private:
  struct State;
  std::shared_ptr<State> state_;  // the timer's too, for a callback may destroy the watchdog
};

}  // namespace imkd
