#include "sensor_queue.hpp"

#include <iterator>
#include <utility>

#include "time_ns.hpp"

namespace imkd {

bool SensorQueue::insert(SensorItem& item) {
  auto position = items_.end();
  while (position != items_.begin() && std::prev(position)->timestamp_ns >= item.timestamp_ns) --position;
  if (position != items_.end() && position->timestamp_ns == item.timestamp_ns) return false;
  last_arrival_ns_ = item.arrival_ns;
  items_.insert(position, std::move(item));
  return true;
}

void SensorQueue::drop_oldest(std::vector<Owner>& released) {
  released.push_back(std::move(items_.front().owner));
  items_.pop_front();
}

void SensorQueue::discard_until(std::int64_t floor_ns, std::vector<Owner>& released) {
  while (!items_.empty() && items_.front().timestamp_ns <= floor_ns) drop_oldest(released);
}

void SensorQueue::clear(std::vector<Owner>& released) {
  while (!items_.empty()) drop_oldest(released);
  last_arrival_ns_.reset();
}

const SensorItem* SensorQueue::nearest(std::int64_t timestamp_ns, std::int64_t tolerance_ns) const {
  const SensorItem* best = nullptr;
  std::int64_t best_distance = 0;
  for (const SensorItem& item : items_) {
    const std::int64_t distance = distance_ns(item.timestamp_ns, timestamp_ns);
    if (distance > tolerance_ns || (best && distance >= best_distance)) continue;
    best = &item;
    best_distance = distance;
  }
  return best;
}

const SensorItem* SensorQueue::first_after(std::int64_t timestamp_ns) const {
  for (const SensorItem& item : items_)
    if (item.timestamp_ns > timestamp_ns) return &item;
  return nullptr;
}

}  // namespace imkd
