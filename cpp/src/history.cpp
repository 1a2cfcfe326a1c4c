#include "history.hpp"

#include <algorithm>

#include "imkd/ego_motion.hpp"
#include "time_ns.hpp"

namespace imkd {

int History::capacity(const HistorySpec& spec) { return spec.frames > 0 ? 4 * spec.frames + 1 : 0; }

History::History(const ModelSpec& spec)
    : spec_(spec.history),
      interval_ns_(to_ns(spec.history.interval)),
      entries_(static_cast<std::size_t>(capacity(spec.history))) {}

void History::reset() {
  for (Entry& entry : entries_) entry.valid = false;
  started_ = false;
}

void History::advance(std::int64_t timestamp_ns, const Ego& ego) {
  const std::int64_t gap_ns = minus_ns(timestamp_ns, now_ns_);
  std::optional<Mat4> T_last_now;
  if (started_ && gap_ns > 0 && gap_ns <= (spec_.frames + 1) * interval_ns_)
    T_last_now = motion_between(ego_, ego, to_seconds(gap_ns));
  if (!T_last_now) reset();
  for (Entry& entry : entries_)
    if (entry.valid) entry.T_then_now = compose(entry.T_then_now, *T_last_now);
  started_ = true;
  now_ns_ = timestamp_ns;
  ego_ = ego;
}

const History::Entry* History::nearest(std::int64_t age_ns) const {
  const Entry* best = nullptr;
  std::int64_t least = interval_ns_ / 4;
  for (const Entry& entry : entries_) {
    if (!entry.valid) continue;
    const std::int64_t off = std::abs(now_ns_ - entry.timestamp_ns - age_ns);
    if (off > least || (best && off == least && entry.timestamp_ns < best->timestamp_ns)) continue;
    least = off;
    best = &entry;
  }
  return best;
}

PastFrame History::past(int slot) const {
  const Entry* entry = nearest(slot * interval_ns_);
  return entry ? PastFrame{static_cast<int>(entry - entries_.data()), entry->T_then_now} : PastFrame{};
}

int History::next_map() const {
  if (entries_.empty()) return -1;
  const Entry& newest = entries_[(next_ + entries_.size() - 1) % entries_.size()];
  return newest.valid && 4 * (now_ns_ - newest.timestamp_ns) < interval_ns_ ? -1 : static_cast<int>(next_);
}

void History::store(int map) {
  entries_[static_cast<std::size_t>(map)] = {now_ns_, true, identity4()};
  next_ = (next_ + 1) % entries_.size();
}

void History::discard(int map) { entries_[static_cast<std::size_t>(map)].valid = false; }

}  // namespace imkd
