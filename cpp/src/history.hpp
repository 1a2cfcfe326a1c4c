// History: selects which fused BEV maps of past frames are stored and which the BEV network reads, and tracks the ego
// pose of each. The maps themselves lie on the device that fills them, under the indices 0 .. capacity - 1.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "imkd/frames.hpp"
#include "imkd/spec.hpp"

namespace imkd {

struct PastFrame {
  int map = -1;  // index of the stored map; -1: none
  Mat4 T_then_now = identity4();
};

class History {
 public:
  // Allocates all memory it will use; none where the spec has no history.
  explicit History(const ModelSpec& spec);
  static int capacity(const HistorySpec& spec);  // stored maps
  void reset();

  // Advances to a frame: its time, and EgoMotion::ego(). Discards all maps where time
  // does not increase, where the gap is longer than the history, and where motion_between gives
  // none since the last frame.
  void advance(std::int64_t timestamp_ns, const Ego& ego);
  // The map for slot k = 1..frames: its age is nearest to k intervals and within a quarter interval of it.
  PastFrame past(int slot) const;
  // The index under which to store the present frame's map; -1 where the last stored one is younger than a quarter
  // interval. Every slot then finds a map at any frame rate above 2 per interval, and capacity is 4 * frames + 1.
  int next_map() const;
  void store(int map);    // once the map has been written
  void discard(int map);  // where the map that has been written is of no use

 private:
  struct Entry {
    std::int64_t timestamp_ns = 0;
    bool valid = false;
    Mat4 T_then_now = identity4();  // present ego frame to that of the map
  };
  const Entry* nearest(std::int64_t age_ns) const;  // within a quarter interval; the newer of two equally near

  const HistorySpec spec_;
  const std::int64_t interval_ns_;
  std::vector<Entry> entries_;  // by index of the map
  std::size_t next_ = 0;        // the oldest entry, overwritten next
  bool started_ = false;
  std::int64_t now_ns_ = 0;  // the last frame, stored or not
  Ego ego_;
};

}  // namespace imkd
