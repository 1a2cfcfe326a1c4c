// The rules of the Synchronizer: functions of times alone, without queue, lock or clock.
#pragma once
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "imkd/synchronizer.hpp"

namespace imkd {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::min();

// A queue as the decision about one frame sees it: one per sensor of the rig, and one of the ego motion once it has
// delivered anything.
struct QueueSummary {
  // Sensor: an item lies within tolerance of the frame's time. Ego motion: its newest entry is not before that time.
  bool covers_frame;
  bool silent;  // see FrameRule::silent
};

// wait: not yet; expired: discard the reference item; complete, incomplete: hand the frame out.
enum class FrameDecision { wait, complete, incomplete, expired };

// SynchronizerOptions and spec.radar.max_age, in ns.
struct FrameRule {
  std::int64_t tolerance = 0, timeout = 0, max_delay = 0, max_future = 0, lost_after = 0, max_age = 0;

  FrameRule() = default;
  FrameRule(const SynchronizerOptions& options, double max_age_s);  // throws Error spec_bad_value

  // Whether a queue has delivered nothing for lost_after. A queue that never delivered counts from started_ns.
  bool silent(std::optional<std::int64_t> last_arrival_ns, std::int64_t started_ns, std::int64_t now_ns) const;

  // kept, late or future. Items at or before floor_ns are of no use to a frame to come.
  Pushed admit(std::int64_t timestamp_ns, std::int64_t floor_ns, std::int64_t now_ns) const;

  // The floors after a frame of that time was handed out or expired; kNever where there was none.
  std::int64_t image_floor(std::int64_t frame_ns, bool is_reference) const;
  std::int64_t sweep_floor(std::int64_t frame_ns) const;  // of the ego motion too

  bool in_sweep_window(std::int64_t sweep_ns, std::int64_t frame_ns) const;

  // frame_ns and arrival_ns: time and arrival of the frame's reference item.
  FrameDecision decide(std::int64_t frame_ns, std::int64_t arrival_ns, const std::vector<QueueSummary>& queues,
                       std::int64_t now_ns) const;
};

}  // namespace imkd
