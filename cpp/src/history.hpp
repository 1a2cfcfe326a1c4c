// History: which fused maps of past frames are kept, where the ego was then, and which of them the BEV network gets.
// The maps themselves lie with the device that fills them, in numbered places.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "imkd/frames.hpp"
#include "imkd/spec.hpp"

namespace imkd {

struct Past {
  int place = -1;  // of the map; -1: there is none
  Mat4 T_then_now = identity4();
};

class History {
 public:
  explicit History(
      const ModelSpec& spec);  // allocates all that it will ever hold; nothing where the spec has no history
  static int places(const HistorySpec& spec);
  void reset();  // as if no frame had been seen

  // Goes on to a frame: its time and what is known of the ego (an estimated speed counts as a twist). Forgets the past
  // where time does not advance, where the gap is longer than the history, and where the motion since the last frame is
  // unknown or faster than 100 m/s.
  void advance(std::int64_t timestamp_ns, const Ego& ego);
  // What slot k = 1..frames gets: the map whose age is nearest to k intervals and within a quarter of one.
  Past past(int slot) const;
  // The place for the present frame's map, -1 where the last one kept is less than a quarter of an interval old. So a
  // slot finds a map at any frame rate above 2 per interval, and 4 * frames + 1 places suffice. keep(place) once the
  // map is there.
  int place() const;
  void keep(int place);

 private:
  struct Entry {
    std::int64_t timestamp_ns = 0;
    bool valid = false;
    Mat4 T_then_now = identity4();  // present ego frame to that of the map
  };
  std::optional<Mat4> motion(const Ego& ego, double seconds) const;  // T_last_now
  const Entry* nearest(std::int64_t age_ns) const;  // within a quarter of an interval; the newer of two equally near

  const HistorySpec spec_;
  const std::int64_t interval_ns_;
  std::vector<Entry> entries_;  // entry i describes the map in place i
  std::size_t next_ = 0;        // the oldest entry, to be overwritten
  bool started_ = false;
  std::int64_t now_ns_ = 0;  // the last frame, kept or not
  Ego ego_;
};

}  // namespace imkd
