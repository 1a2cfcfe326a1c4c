// The queue of one sensor by itself, on hand-made times in ns.
#include <gtest/gtest.h>

#include <vector>

#include "sensor_queue.hpp"

using namespace imkd;

namespace {

SensorItem item_at(std::int64_t timestamp_ns, std::int64_t arrival_ns = 0, Owner owner = {}) {
  SensorItem item;
  item.timestamp_ns = timestamp_ns;
  item.arrival_ns = arrival_ns;
  item.owner = std::move(owner);
  return item;
}

SensorQueue queue_of(const std::vector<std::int64_t>& times, std::size_t capacity = 8) {
  SensorQueue queue(true, capacity);
  for (std::int64_t time : times) {
    SensorItem item = item_at(time);
    EXPECT_TRUE(queue.insert(item));
  }
  return queue;
}

std::vector<std::int64_t> times_of(const SensorQueue& queue) {
  std::vector<std::int64_t> times;
  for (const SensorItem& item : queue.items()) times.push_back(item.timestamp_ns);
  return times;
}

TEST(SensorQueue, sorts_items_by_time) {
  EXPECT_EQ(times_of(queue_of({30, 10, 20, -5, 40})), (std::vector<std::int64_t>{-5, 10, 20, 30, 40}));
}

TEST(SensorQueue, a_duplicate_is_refused_and_keeps_its_owner) {
  SensorQueue queue(false, 8);
  const auto owner = std::make_shared<int>(0);
  SensorItem first = item_at(10, 100, owner), again = item_at(10, 200, owner);
  EXPECT_TRUE(queue.insert(first));
  EXPECT_EQ(first.owner, nullptr);
  EXPECT_FALSE(queue.insert(again));
  EXPECT_EQ(again.owner, owner);
  EXPECT_EQ(owner.use_count(), 3);  // owner itself, the queue, again
  EXPECT_EQ(queue.last_arrival_ns(), 100);
  EXPECT_EQ(queue.items().front().arrival_ns, 100);
}

TEST(SensorQueue, the_last_arrival_is_that_of_the_last_insertion_and_not_of_the_newest_item) {
  SensorQueue queue(true, 8);
  EXPECT_FALSE(queue.last_arrival_ns());
  SensorItem newer = item_at(20, 100), older = item_at(10, 150);
  queue.insert(newer);
  queue.insert(older);
  EXPECT_EQ(queue.last_arrival_ns(), 150);
}

TEST(SensorQueue, nearest_is_within_tolerance_and_prefers_the_older_of_two_at_one_distance) {
  const SensorQueue queue = queue_of({10, 30, 60});
  EXPECT_EQ(queue.nearest(20, 10), &queue.items()[0]);
  EXPECT_EQ(queue.nearest(21, 10), &queue.items()[1]);
  EXPECT_EQ(queue.nearest(70, 10), &queue.items()[2]);
  EXPECT_EQ(queue.nearest(71, 10), nullptr);
  EXPECT_EQ(queue.nearest(-1, 10), nullptr);
  EXPECT_EQ(SensorQueue(true, 8).nearest(0, 1000), nullptr);
}

TEST(SensorQueue, first_after_is_strictly_later) {
  const SensorQueue queue = queue_of({10, 30});
  EXPECT_EQ(queue.first_after(9), &queue.items()[0]);
  EXPECT_EQ(queue.first_after(10), &queue.items()[1]);
  EXPECT_EQ(queue.first_after(30), nullptr);
}

TEST(SensorQueue, one_item_more_than_its_capacity_is_reported) {
  SensorQueue queue = queue_of({10, 20}, 2);
  EXPECT_FALSE(queue.exceeds_capacity());
  SensorItem third = item_at(30);
  queue.insert(third);
  EXPECT_TRUE(queue.exceeds_capacity());
  std::vector<Owner> released;
  queue.drop_oldest(released);
  EXPECT_FALSE(queue.exceeds_capacity());
  EXPECT_EQ(times_of(queue), (std::vector<std::int64_t>{20, 30}));
}

TEST(SensorQueue, discards_up_to_the_floor_inclusive) {
  SensorQueue queue = queue_of({10, 20, 30});
  std::vector<Owner> released;
  queue.discard_until(9, released);
  EXPECT_EQ(released.size(), 0u);
  queue.discard_until(20, released);
  EXPECT_EQ(released.size(), 2u);
  EXPECT_EQ(times_of(queue), (std::vector<std::int64_t>{30}));
}

TEST(SensorQueue, clear_hands_over_every_owner_and_forgets_the_last_arrival) {
  SensorQueue queue(true, 8);
  const auto owner = std::make_shared<int>(0);
  for (std::int64_t time : {10, 20}) {
    SensorItem item = item_at(time, time, owner);
    queue.insert(item);
  }
  std::vector<Owner> released;
  queue.clear(released);
  EXPECT_TRUE(queue.items().empty());
  EXPECT_FALSE(queue.last_arrival_ns());
  EXPECT_EQ(owner.use_count(), 3);  // owner itself, and twice in released: nothing was destroyed
  EXPECT_EQ(released, (std::vector<Owner>{owner, owner}));
}

}  // namespace
