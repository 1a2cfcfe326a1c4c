// The items of one sensor between push and pop.
#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "imkd/frames.hpp"

namespace imkd {

using Owner = std::shared_ptr<const void>;

// An image of a camera, or a sweep of a radar.
struct SensorItem {
  std::int64_t timestamp_ns = 0;
  std::int64_t arrival_ns = 0;
  ImageView image;
  RadarSweep sweep;
  Owner owner;  // keeps the pixels or points alive
};

// Sorted by time, at most one item per time. What leaves the queue hands its owner to `released`: the caller destroys
// it outside of its lock.
class SensorQueue {
 public:
  SensorQueue(bool is_camera, std::size_t capacity) : is_camera_(is_camera), capacity_(capacity) {}

  // False where an item of that time is present; the argument is then left as it was. The queue may exceed its capacity
  // by one afterwards: the caller decides what the loss of the oldest item means.
  bool insert(SensorItem& item);
  void drop_oldest(std::vector<Owner>& released);
  void discard_until(std::int64_t floor_ns, std::vector<Owner>& released);  // items at or before that time
  void clear(std::vector<Owner>& released);                                 // and the last arrival

  // Within tolerance of that time, or null; of two at the same distance the older one.
  const SensorItem* nearest(std::int64_t timestamp_ns, std::int64_t tolerance_ns) const;
  const SensorItem* first_after(std::int64_t timestamp_ns) const;  // or null
  bool exceeds_capacity() const { return items_.size() > capacity_; }
  bool is_camera() const { return is_camera_; }
  const std::deque<SensorItem>& items() const { return items_; }
  std::optional<std::int64_t> last_arrival_ns() const { return last_arrival_ns_; }

 private:
  bool is_camera_;
  std::size_t capacity_;
  std::deque<SensorItem> items_;
  std::optional<std::int64_t> last_arrival_ns_;
};

}  // namespace imkd
