#include <algorithm>
#include <cmath>

#include "box.hpp"
#include "imkd/ops.hpp"

namespace imkd {
namespace {

struct Candidate {
  float logit;
  std::int32_t index;  // class * cells + cell
  bool operator<(const Candidate& o) const {
    return logit != o.logit ? logit > o.logit : index < o.index;
  }  // better first
};

// Keeps the best `capacity` candidates.
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

}  // namespace

std::size_t decode_workspace(const ModelSpec& spec) { return spec.head.max_candidates * sizeof(Candidate); }

int decode(const ModelSpec& spec, const float* heatmap, const float* box, std::vector<Detection>& out, void* workspace,
           ThreadPool&) {
  const HeadSpec& head = spec.head;
  const int width = spec.grid.width(), height = spec.grid.height(), cells = width * height;
  const float threshold = logit_of(head.score_threshold);  // compare logits: few need a sigmoid
  const Plane grid = Plane::of_bev(spec);
  Candidate* candidates = static_cast<Candidate*>(workspace);  // (max_candidates) a heap whose top is the worst
  int count = 0, dropped = 0;
  Detection d;
  for (int label = 0; label < static_cast<int>(head.classes.size()); ++label) {
    const float* map = heatmap + std::size_t(label) * cells;
    const float* regression = box + std::size_t(head.classes[label].group) * kBoxChannels * cells;
    for (int row = 0; row < height; ++row)
      for (int begin = 0; begin < width; begin += 64) {
        const int end = std::min(begin + 64, width);
        if (!any_above(map + row * width + begin, end - begin, threshold)) continue;
        for (int column = begin; column < end; ++column) {
          const int cell = row * width + column;
          if (map[cell] < threshold) continue;
          const bool finite = std::isfinite(map[cell]);
          if (finite && !is_peak(map, row, column, height, width)) continue;
          if (!finite || !read_box(grid, regression, cell, d)) {
            ++dropped;
            continue;
          }
          count = push(candidates, count, head.max_candidates, {map[cell], label * cells + cell});
        }
      }
  }
  std::sort(candidates, candidates + count);

  out.clear();
  for (int i = 0; i < count && static_cast<int>(out.size()) < head.max_detections; ++i) {
    d.score = score_of(candidates[i].logit);
    d.label = candidates[i].index / cells;
    const ClassSpec& kind = head.classes[d.label];
    read_box(grid, box + std::size_t(kind.group) * kBoxChannels * cells, candidates[i].index % cells, d);
    const float radius = float(kind.nms_radius);
    const bool suppressed =
        std::any_of(out.begin(), out.end(), [&](const Detection& o) { return suppresses(o, d, radius); });
    if (!suppressed) out.push_back(d);
  }
  return dropped;
}

}  // namespace imkd
