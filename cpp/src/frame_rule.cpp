#include "frame_rule.hpp"

#include <string>
#include <utility>

#include "live_options.hpp"
#include "time_ns.hpp"

namespace imkd {

static void check(const SynchronizerOptions& options, double max_age_s) {
  const std::string prefix = "SynchronizerOptions::";
  if (!(options.tolerance > 0 && options.tolerance <= max_age_s))
    refuse_option(prefix + "tolerance", options.tolerance,
                  "more than 0 s, at most spec.radar.max_age, " + number_text(max_age_s, 6) + " s");
  for (const auto& [name, value] : {std::pair<const char*, double>{"timeout", options.timeout},
                                    {"max_delay", options.max_delay},
                                    {"max_future", options.max_future},
                                    {"lost_after", options.lost_after}})
    if (!(value >= 0 && value <= 3600)) refuse_option(prefix + name, value, "0 to 3600 s");
  for (const auto& [name, value] :
       {std::pair<const char*, int>{"max_images", options.max_images}, {"max_sweeps", options.max_sweeps}})
    if (value < 1 || value > 4096) refuse_option(prefix + name, value, "1 to 4096");
}

FrameRule::FrameRule(const SynchronizerOptions& options, double max_age_s) {
  check(options, max_age_s);
  tolerance = to_ns(options.tolerance);
  timeout = to_ns(options.timeout);
  max_delay = to_ns(options.max_delay);
  max_future = to_ns(options.max_future);
  lost_after = to_ns(options.lost_after);
  max_age = to_ns(max_age_s);
}

bool FrameRule::silent(std::optional<std::int64_t> last_arrival_ns, std::int64_t started_ns,
                       std::int64_t now_ns) const {
  return minus_ns(now_ns, last_arrival_ns.value_or(started_ns)) > lost_after;
}

Pushed FrameRule::admit(std::int64_t timestamp_ns, std::int64_t floor_ns, std::int64_t now_ns) const {
  if (minus_ns(timestamp_ns, now_ns) > max_future) return Pushed::future;
  if (minus_ns(now_ns, timestamp_ns) > max_delay || timestamp_ns <= floor_ns) return Pushed::late;
  return Pushed::kept;
}

std::int64_t FrameRule::image_floor(std::int64_t frame_ns, bool is_reference) const {
  if (frame_ns == kNever) return kNever;
  return is_reference ? frame_ns : minus_ns(frame_ns, tolerance);
}

std::int64_t FrameRule::sweep_floor(std::int64_t frame_ns) const {
  return frame_ns == kNever ? kNever : minus_ns(frame_ns, max_age);
}

bool FrameRule::in_sweep_window(std::int64_t sweep_ns, std::int64_t frame_ns) const {
  return minus_ns(frame_ns, sweep_ns) <= max_age && minus_ns(sweep_ns, frame_ns) <= tolerance;
}

FrameDecision FrameRule::decide(std::int64_t frame_ns, std::int64_t arrival_ns, const std::vector<QueueSummary>& queues,
                                std::int64_t now_ns) const {
  if (minus_ns(now_ns, frame_ns) > max_delay + timeout) return FrameDecision::expired;

  bool complete = true, worth_waiting = false;
  for (const QueueSummary& queue : queues) {
    if (queue.covers_frame) continue;
    complete = false;
    worth_waiting = worth_waiting || !queue.silent;
  }

  if (complete) return FrameDecision::complete;
  const bool timed_out = minus_ns(now_ns, arrival_ns) >= timeout;
  return worth_waiting && !timed_out ? FrameDecision::wait : FrameDecision::incomplete;
}

void ClockStepRule::reset() {
  streams_.assign(streams_.size(), {});
  newest_ns_ = kNever;
}

// Of an item that is newer than its stream's newest.
void ClockStepRule::accept(Stream& stream, std::int64_t timestamp_ns) {
  stream = Stream{timestamp_ns, timestamp_ns};
  if (timestamp_ns <= newest_ns_) return;
  newest_ns_ = timestamp_ns;
  for (Stream& each : streams_) each.suspected_ns = kNever;
}

// A sensor that never delivered has no say, nor has the ego motion.
bool ClockStepRule::all_behind(const std::function<bool(std::size_t)>& silent) const {
  for (std::size_t sensor = 0; sensor + 1 < streams_.size(); ++sensor) {
    const Stream& stream = streams_[sensor];
    if (stream.advances < kAdvances && stream.previous_ns != kNever && !silent(sensor)) return false;
  }
  return true;
}

ClockStep ClockStepRule::observe(const FrameRule& rule, std::size_t stream, std::int64_t timestamp_ns,
                                 std::int64_t call_ns, std::int64_t now_ns,
                                 const std::function<bool(std::size_t)>& silent) {
  if (rule.admit(timestamp_ns, kNever, call_ns) != Pushed::kept) return ClockStep::none;
  Stream& times = streams_[stream];
  const std::int64_t newest_ns = times.newest_ns == kNever ? newest_ns_ : times.newest_ns;
  const bool suspected = timestamp_ns < newest_ns && minus_ns(now_ns, call_ns) > rule.max_future;
  if (!suspected && timestamp_ns > times.newest_ns) {
    accept(times, timestamp_ns);
    return ClockStep::none;
  }

  if (times.previous_ns != kNever && timestamp_ns > times.previous_ns) ++times.advances;
  times.previous_ns = timestamp_ns;
  const bool sensor = stream + 1 < streams_.size();
  if (sensor && times.advances >= kAdvances && all_behind(silent)) return ClockStep::certain;

  if (!suspected) return ClockStep::none;
  const bool second = times.suspected_ns != kNever && timestamp_ns > times.suspected_ns;
  times.suspected_ns = timestamp_ns;
  return second ? ClockStep::certain : ClockStep::suspected;
}

}  // namespace imkd
