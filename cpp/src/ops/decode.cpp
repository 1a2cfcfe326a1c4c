#include <algorithm>
#include <cmath>

#include "box.hpp"
#include "imkd/ops.hpp"

namespace imkd {
namespace {

struct Candidate {
  float logit;
  std::int32_t index;  // class * cells + cell
  // Best first.
  bool operator<(const Candidate& o) const { return logit != o.logit ? logit > o.logit : index < o.index; }
};

// Adds a candidate to a heap that holds the best `capacity`; returns the new count.
int push(Candidate* heap, int count, int capacity, const Candidate& c) {
  if (count == capacity) {
    if (!(c < heap[0])) return count;
    std::pop_heap(heap, heap + count);
    heap[--count] = c;
  } else {
    heap[count] = c;
  }
  std::push_heap(heap, heap + count + 1);
  return count + 1;
}

bool any_above(const float* values, int count, float threshold) {  // NaN counts as above
  int any = 0;
  for (int i = 0; i < count; ++i) any |= !(values[i] < threshold);
  return any;
}

struct Candidates {
  Candidate* heap;  // (max_candidates) the worst on top
  int count = 0;
  int dropped = 0;  // for a non-finite logit or box
};

struct Class {
  int label;
  SizeLimits limits;
};

// Adds the peaks of one class above the threshold logit whose boxes are within its limits. Only detections need a
// sigmoid; 64 cells at a time are skipped.
void find_peaks(const Plane& grid, const float* map, const float* box, const Class& of, float threshold, int capacity,
                Candidates& candidates) {
  Detection d;
  for (int row = 0; row < grid.height; ++row)
    for (int begin = 0; begin < grid.width; begin += 64) {
      const int end = std::min(begin + 64, grid.width);
      if (!any_above(map + row * grid.width + begin, end - begin, threshold)) continue;
      for (int column = begin; column < end; ++column) {
        const int cell = row * grid.width + column;
        if (map[cell] < threshold) continue;
        const bool finite = std::isfinite(map[cell]);
        if (finite && !is_peak(map, row, column, grid.height, grid.width)) continue;
        if (!finite || !read_box(grid, box, cell, d)) {
          ++candidates.dropped;
          continue;
        }
        if (!is_within(d, of.limits)) continue;
        const int index = of.label * grid.cells() + cell;
        candidates.count = push(candidates.heap, candidates.count, capacity, {map[cell], index});
      }
    }
}

}  // namespace

std::size_t decode_workspace(const ModelSpec& spec) { return spec.head.max_candidates * sizeof(Candidate); }

int decode(const ModelSpec& spec, const Vec3& ground, const float* heatmap, const float* box,
           std::vector<Detection>& out, void* workspace, ThreadPool&) {
  const HeadSpec& head = spec.head;
  const Plane grid = Plane::of_bev(spec, ground);
  const int cells = grid.cells();
  const auto box_of = [&](int label) { return box + std::size_t(head.classes[label].group) * kBoxChannels * cells; };

  Candidates candidates{static_cast<Candidate*>(workspace)};
  for (int label = 0; label < static_cast<int>(head.classes.size()); ++label)
    find_peaks(grid, heatmap + std::size_t(label) * cells, box_of(label), {label, size_limits(head.classes[label])},
               logit_of(head.score_threshold), head.max_candidates, candidates);
  std::sort(candidates.heap, candidates.heap + candidates.count);

  // Suppression, best first.
  out.clear();
  Detection d;
  for (int i = 0; i < candidates.count && static_cast<int>(out.size()) < head.max_detections; ++i) {
    d.score = score_of(candidates.heap[i].logit);
    d.label = candidates.heap[i].index / cells;
    read_box(grid, box_of(d.label), candidates.heap[i].index % cells, d);
    const ClassSpec& its = head.classes[d.label];
    const bool suppressed = std::any_of(out.begin(), out.end(), [&](const Detection& better) {
      return suppresses(better, d, float(its.nms_radius), its.exclusive && head.classes[better.label].exclusive);
    });
    if (!suppressed) out.push_back(d);
  }
  return candidates.dropped;
}

}  // namespace imkd
