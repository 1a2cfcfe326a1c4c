#include <algorithm>
#include <cmath>

#include "imkd/ops.hpp"

namespace imkd {
namespace {

constexpr float kPi = 3.14159274f;  // the float nearest to pi; it lies above it

struct Candidate {
  float score;
  std::int32_t index;                                                                                        // class * cells + cell
  bool operator<(const Candidate& o) const { return score != o.score ? score > o.score : index < o.index; }  // better first
};

// Greatest of its 3x3 neighbourhood; among equals the lowest index wins. A NaN neighbour does not count.
bool is_peak(const float* map, int row, int column, int height, int width) {
  const float value = map[row * width + column];
  for (int r = std::max(row - 1, 0); r <= std::min(row + 1, height - 1); ++r)
    for (int c = std::max(column - 1, 0); c <= std::min(column + 1, width - 1); ++c) {
      const float other = map[r * width + c];
      const bool before = r < row || (r == row && c < column);
      if (before ? other >= value : other > value) return false;
    }
  return true;
}

// Box of one cell; false where a value is not finite.
bool read_box(const ModelSpec& spec, const float* box, std::size_t cells, int cell, Detection& d) {
  float value[kBoxChannels];
  for (int c = 0; c < kBoxChannels; ++c) {
    value[c] = box[c * cells + cell];
    if (!std::isfinite(value[c])) return false;
  }
  const int width = spec.grid.width(), row = cell / width, column = cell % width;
  const double x = spec.grid.x_min + (column + 0.5 + double(value[0])) * spec.grid.cell;
  const double y = spec.grid.y_min + (row + 0.5 + double(value[1])) * spec.grid.cell;
  d.x = float(x), d.y = float(y), d.z = float(spec.ground(x, y) + value[2]);
  d.length = float(std::exp(double(value[3]))), d.width = float(std::exp(double(value[4]))), d.height = float(std::exp(double(value[5])));
  d.yaw = float(std::atan2(double(value[6]), double(value[7])));
  if (d.yaw >= kPi) d.yaw = -kPi;
  d.vx = value[8], d.vy = value[9];
  return std::isfinite(d.x) && std::isfinite(d.y) && std::isfinite(d.z) && std::isfinite(d.length) && std::isfinite(d.width) &&
         std::isfinite(d.height);
}

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

int decode(const ModelSpec& spec, const float* heatmap, const float* box, std::vector<Detection>& out, void* workspace, ThreadPool&) {
  const HeadSpec& head = spec.head;
  const int width = spec.grid.width(), height = spec.grid.height(), cells = width * height;
  const float threshold = float(std::log(head.score_threshold / (1 - head.score_threshold)));  // compare logits: few need a sigmoid
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
          if (!finite || !read_box(spec, regression, cells, cell, d)) {
            ++dropped;
            continue;
          }
          count = push(candidates, count, head.max_candidates, {float(1 / (1 + std::exp(-double(map[cell])))), label * cells + cell});
        }
      }
  }
  std::sort(candidates, candidates + count);

  out.clear();
  for (int i = 0; i < count && static_cast<int>(out.size()) < head.max_detections; ++i) {
    d.score = candidates[i].score;
    d.label = candidates[i].index / cells;
    const ClassSpec& kind = head.classes[d.label];
    read_box(spec, box + std::size_t(kind.group) * kBoxChannels * cells, cells, candidates[i].index % cells, d);
    const float radius = float(kind.nms_radius);
    const bool suppressed = std::any_of(out.begin(), out.end(), [&](const Detection& o) {
      const float dx = o.x - d.x, dy = o.y - d.y;
      return o.label == d.label && dx * dx + dy * dy <= radius * radius;
    });
    if (!suppressed) out.push_back(d);
  }
  return dropped;
}

}  // namespace imkd
