// Finds peaks and decodes their boxes in parallel; then one block selects the best and suppresses. Only boxes leave the
// device.
#include "kernel.hpp"
// After kernel.hpp, whose to_float takes a __half.
#include "box.hpp"

namespace imkd::cuda {
namespace {

constexpr int kThreads = 1024;  // of the block that selects

struct Scratch {
  // (peaks) unsorted; a smaller key is a better peak: logit, then index.
  unsigned long long* keys;
  // (peaks) decoded by the thread of the peak, as each channel of a box is in another memory sector.
  Detection* boxes;
  unsigned long long* best;  // (max_candidates) keys
  std::int32_t* peak;        // (max_candidates) index of each best key in keys
  std::int32_t* order;       // (max_candidates) the same, sorted from the best
  std::uint8_t* suppressed;  // (max_candidates)
  std::int32_t* counts;      // peaks, dropped boxes
  std::size_t bytes;

  Scratch(const ModelSpec& spec, void* memory) {
    const std::size_t most = spec.head.max_candidates;
    Arena arena(memory);
    // Of 2x2 cells at most one is a peak.
    const std::size_t all = spec.head.classes.size() * ((spec.grid.width() + 1) / 2) * ((spec.grid.height() + 1) / 2);
    keys = arena.take<unsigned long long>(all);
    boxes = arena.take<Detection>(all);
    best = arena.take<unsigned long long>(most);
    peak = arena.take<std::int32_t>(most);
    order = arena.take<std::int32_t>(most);
    suppressed = arena.take<std::uint8_t>(most);
    counts = arena.take<std::int32_t>(2);
    bytes = arena.bytes();
  }
};

struct Head {
  int classes, max_candidates, max_detections;
  float threshold;  // logit
  int group[kMaxClasses];
  float radius[kMaxClasses];
  bool exclusive[kMaxClasses];
  SizeLimits limits[kMaxClasses];
  explicit Head(const ModelSpec& spec)
      : classes(static_cast<int>(spec.head.classes.size())),
        max_candidates(spec.head.max_candidates),
        max_detections(spec.head.max_detections),
        threshold(logit_of(spec.head.score_threshold)) {
    for (int i = 0; i < classes; ++i) {
      group[i] = spec.head.classes[i].group;
      radius[i] = float(spec.head.classes[i].nms_radius);
      exclusive[i] = spec.head.classes[i].exclusive;
      limits[i] = size_limits(spec.head.classes[i]);
    }
  }
};

// Maps logits to unsigned integers in descending order; -0 is 0.
__device__ unsigned descending(float logit) {
  const unsigned bits = __float_as_uint(logit + 0.f);
  return bits & 0x80000000u ? bits : 0x7fffffffu - bits;
}

template <class T>
__global__ void __launch_bounds__(128)
    find_peaks(Plane grid, Head head, const T* __restrict__ heatmap, const T* __restrict__ box, Scratch s) {
  const int cells = grid.cells();
  const int cell = blockIdx.x * blockDim.x + threadIdx.x;
  const int label = blockIdx.y;
  if (cell >= cells) return;
  const T* map = heatmap + std::size_t(label) * cells;
  const float value = to_float(map[cell]);
  if (value < head.threshold) return;  // false for NaN, which is counted as dropped
  const bool finite = std::isfinite(value);
  if (finite && !is_peak(map, cell / grid.width, cell % grid.width, grid.height, grid.width)) return;
  Detection d;
  if (finite && read_box(grid, box + std::size_t(head.group[label]) * kBoxChannels * cells, cell, d)) {
    if (!is_within(d, head.limits[label])) return;
    const int to = atomicAdd(s.counts, 1);
    d.label = label;
    d.score = score_of(value);
    s.boxes[to] = d;
    s.keys[to] = static_cast<unsigned long long>(descending(value)) << 32 | unsigned(label * cells + cell);
  } else {
    atomicAdd(s.counts + 1, 1);
  }
}

// The rank-th smallest key, 1 <= rank <= count: radix selection, eight bits at a time from the top.
__device__ unsigned long long nth_key(const unsigned long long* keys, int count, int rank) {
  __shared__ int histogram[256];
  __shared__ int digit, below;
  unsigned long long prefix = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < 256; i += kThreads) histogram[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += kThreads)
      if (shift == 56 || keys[i] >> (shift + 8) == prefix) atomicAdd(histogram + (keys[i] >> shift & 255), 1);
    __syncthreads();
    if (threadIdx.x == 0) {
      digit = 0;
      below = 0;
      while (below + histogram[digit] < rank) below += histogram[digit++];
    }
    __syncthreads();
    prefix = prefix << 8 | unsigned(digit);
    rank -= below;
    __syncthreads();
  }
  return prefix;
}

__global__ void __launch_bounds__(kThreads) select_boxes(Head head, Scratch s, Detection* out, DecodeCounts* counts) {
  const int peaks = s.counts[0];
  const int candidates = min(peaks, head.max_candidates);
  if (candidates > 0) {
    // Gather the best candidates.
    const unsigned long long last = peaks > candidates ? nth_key(s.keys, peaks, candidates) : ~0ull;
    __shared__ int taken;
    if (threadIdx.x == 0) taken = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < peaks; i += kThreads) {
      if (s.keys[i] > last) continue;
      const int to = atomicAdd(&taken, 1);
      s.best[to] = s.keys[i];
      s.peak[to] = i;
    }
    __syncthreads();
  }

  // Sort them: a key's rank is the number of smaller ones.
  for (int i = threadIdx.x; i < candidates; i += kThreads) {
    const unsigned long long key = s.best[i];
    int rank = 0;
    for (int k = 0; k < candidates; ++k) rank += s.best[k] < key;
    s.order[rank] = s.peak[i];
    s.suppressed[rank] = 0;
  }
  __syncthreads();

  // Suppression, best first; the threads compare the rest with one box at a time.
  int detections = 0;  // the same in all threads
  for (int i = 0; i < candidates && detections < head.max_detections; ++i) {
    if (!s.suppressed[i]) {
      const Detection d = s.boxes[s.order[i]];
      if (threadIdx.x == 0) out[detections] = d;
      for (int k = i + 1 + threadIdx.x; k < candidates; k += kThreads) {
        const Detection& other = s.boxes[s.order[k]];
        const bool exclusive = head.exclusive[d.label] && head.exclusive[other.label];
        if (suppresses(d, other, head.radius[d.label], exclusive)) s.suppressed[k] = 1;
      }
      ++detections;
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) *counts = {detections, s.counts[1]};
}

}  // namespace

std::size_t decode_workspace(const ModelSpec& spec) { return Scratch(spec, nullptr).bytes; }

void decode(const ModelSpec& spec, const Vec3& ground, const void* heatmap, const void* box, Type type, Detection* out,
            DecodeCounts* counts, void* workspace, Stream stream) {
  const Plane grid = Plane::of_bev(spec, ground);
  const Head head(spec);
  const Scratch s(spec, workspace);
  check(cudaMemsetAsync(s.counts, 0, 2 * sizeof(std::int32_t), stream), "decode");
  with_type(type, [&](auto* kind) {
    using T = std::remove_pointer_t<decltype(kind)>;
    run("decode: peaks", find_peaks<T>, dim3(blocks(grid.cells(), 128), head.classes), dim3(128), stream, grid, head,
        static_cast<const T*>(heatmap), static_cast<const T*>(box), s);
  });
  run("decode: select", select_boxes, dim3(1), dim3(kThreads), stream, head, s, out, counts);
}

}  // namespace imkd::cuda
