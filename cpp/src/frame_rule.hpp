// The rules of the Synchronizer: functions of times alone, without queue, lock or clock.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
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

// none: use the item; suspected: its clock may have stepped back, refuse it; certain: restart, then use it.
enum class ClockStep { none, suspected, certain };

// Detects clocks that step back by too little for max_delay to reveal it, as at the end of a short recording that is
// played in a loop. Its input is the time of every item of every stream, in the order of arrival.
class ClockStepRule {
 public:
  // Behind its newest item a sensor must advance so often before its clock counts as stepped back. Reordering and
  // repetition seldom advance a sensor twice.
  static constexpr int kAdvances = 4;

  // The streams: the sensors of the rig, then the ego motion.
  explicit ClockStepRule(std::size_t sensors) : streams_(sensors + 1) {}

  // call_ns: now as the push says it; now_ns: the current time, which never decreases; silent: of a sensor.
  // suspected: the item is older than its stream's newest, or than the newest of all where the stream has none, and
  //   call_ns is more than max_future before now_ns.
  // certain: the second suspected item of a stream, newer than the first, and nothing newer than every item before them
  //   has arrived since; or every sensor that delivers has advanced kAdvances times without reaching its newest item.
  // An item that is late or in the future at call_ns is ignored.
  ClockStep observe(const FrameRule& rule, std::size_t stream, std::int64_t timestamp_ns, std::int64_t call_ns,
                    std::int64_t now_ns, const std::function<bool(std::size_t)>& silent);
  void reset();

 private:
  struct Stream {
    std::int64_t newest_ns = kNever, previous_ns = kNever, suspected_ns = kNever;
    int advances = 0;  // items behind the newest that are newer than the item before them
  };
  void accept(Stream& stream, std::int64_t timestamp_ns);
  bool all_behind(const std::function<bool(std::size_t)>& silent) const;

  std::vector<Stream> streams_;
  std::int64_t newest_ns_ = kNever;  // of all streams
};

}  // namespace imkd
