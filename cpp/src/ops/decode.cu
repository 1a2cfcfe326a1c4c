// Peaks in parallel; then one block picks the best, makes their boxes and suppresses. Only boxes leave the device.
#include "kernel.hpp"

#include "box.hpp"

namespace imkd::cuda {
namespace {

constexpr int kThreads = 1024;  // of the block that selects

struct Scratch {
  unsigned long long* keys;  // (peaks) rising from the best: logit, then index; no order among them
  Detection*
      found;  // (peaks) their boxes: read where they are found, for each of their channels lies in a sector of its own
  unsigned long long* best;  // (max_candidates)
  std::int32_t* place;       // (max_candidates) of those among the peaks
  std::int32_t* order;       // (max_candidates) the same, from the best
  std::uint8_t* suppressed;  // (max_candidates)
  std::int32_t* peaks;       // how many keys, how many were dropped
  std::size_t bytes;

  Scratch(const ModelSpec& spec, void* memory) {
    const std::size_t most = spec.head.max_candidates;
    Parts parts(memory);
    // Of four cells that touch one another at most one is a peak.
    const std::size_t all = spec.head.classes.size() * ((spec.grid.width() + 1) / 2) * ((spec.grid.height() + 1) / 2);
    keys = parts.take<unsigned long long>(all);
    found = parts.take<Detection>(all);
    best = parts.take<unsigned long long>(most);
    place = parts.take<std::int32_t>(most);
    order = parts.take<std::int32_t>(most);
    suppressed = parts.take<std::uint8_t>(most);
    peaks = parts.take<std::int32_t>(2);
    bytes = parts.bytes();
  }
};

struct Head {
  int classes, max_candidates, max_detections;
  float threshold;  // logit
  int group[kMaxClasses];
  float radius[kMaxClasses];
  explicit Head(const ModelSpec& spec)
      : classes(static_cast<int>(spec.head.classes.size())),
        max_candidates(spec.head.max_candidates),
        max_detections(spec.head.max_detections),
        threshold(logit_of(spec.head.score_threshold)) {
    for (int i = 0; i < classes; ++i)
      group[i] = spec.head.classes[i].group, radius[i] = float(spec.head.classes[i].nms_radius);
  }
};

// Logits in falling order as unsigned integers in rising order; -0 is 0.
__device__ unsigned falling(float logit) {
  const unsigned bits = __float_as_uint(logit + 0.f);
  return bits & 0x80000000u ? bits : 0x7fffffffu - bits;
}

template <class T>
__global__ void __launch_bounds__(128)
    find_peaks(Plane grid, Head head, const T* __restrict__ heatmap, const T* __restrict__ box, Scratch s) {
  const int cells = grid.cells(), cell = blockIdx.x * blockDim.x + threadIdx.x, label = blockIdx.y;
  if (cell >= cells) return;
  const T* map = heatmap + std::size_t(label) * cells;
  const float value = to_float(map[cell]);
  if (value < head.threshold) return;  // not where it is NaN
  const bool finite = std::isfinite(value);
  if (finite && !is_peak(map, cell / grid.width, cell % grid.width, grid.height, grid.width)) return;
  Detection d;
  if (finite && read_box(grid, box + std::size_t(head.group[label]) * kBoxChannels * cells, cell, d)) {
    const int to = atomicAdd(s.peaks, 1);
    d.label = label, d.score = score_of(value);
    s.found[to] = d;
    s.keys[to] = static_cast<unsigned long long>(falling(value)) << 32 | unsigned(label * cells + cell);
  } else {
    atomicAdd(s.peaks + 1, 1);
  }
}

// The key that exactly `wanted` keys do not exceed, 1 <= wanted <= count: radix selection, eight bits at a time from
// the top.
__device__ unsigned long long nth_key(const unsigned long long* keys, int count, int wanted) {
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
      digit = 0, below = 0;
      while (below + histogram[digit] < wanted) below += histogram[digit++];
    }
    __syncthreads();
    prefix = prefix << 8 | unsigned(digit), wanted -= below;
    __syncthreads();
  }
  return prefix;
}

__global__ void __launch_bounds__(kThreads) select_boxes(Head head, Scratch s, Detection* out, Found* found) {
  const int peaks = s.peaks[0], candidates = min(peaks, head.max_candidates);
  if (candidates > 0) {
    // The best candidates, sorted: each key's place is the number of smaller ones.
    const unsigned long long last = peaks > candidates ? nth_key(s.keys, peaks, candidates) : ~0ull;
    __shared__ int taken;
    if (threadIdx.x == 0) taken = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < peaks; i += kThreads) {
      if (s.keys[i] > last) continue;
      const int to = atomicAdd(&taken, 1);
      s.best[to] = s.keys[i], s.place[to] = i;
    }
    __syncthreads();
  }
  for (int i = threadIdx.x; i < candidates; i += kThreads) {
    const unsigned long long key = s.best[i];
    int rank = 0;
    for (int k = 0; k < candidates; ++k) rank += s.best[k] < key;
    s.order[rank] = s.place[i], s.suppressed[rank] = 0;
  }
  __syncthreads();
  int kept = 0;  // the same in all threads
  for (int i = 0; i < candidates && kept < head.max_detections; ++i) {
    if (!s.suppressed[i]) {
      const Detection d = s.found[s.order[i]];
      if (threadIdx.x == 0) out[kept] = d;
      for (int k = i + 1 + threadIdx.x; k < candidates; k += kThreads)
        if (suppresses(d, s.found[s.order[k]], head.radius[d.label])) s.suppressed[k] = 1;
      ++kept;
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) *found = {kept, s.peaks[1]};
}

}  // namespace

std::size_t decode_workspace(const ModelSpec& spec) { return Scratch(spec, nullptr).bytes; }

void decode(const ModelSpec& spec, const void* heatmap, const void* box, Type type, Detection* out, Found* found,
            void* workspace, Stream stream) {
  const Plane grid = Plane::of_bev(spec);
  const Head head(spec);
  const Scratch s(spec, workspace);
  check(cudaMemsetAsync(s.peaks, 0, 2 * sizeof(std::int32_t), stream), "decode");
  with_type(type, [&](auto* kind) {
    using T = std::remove_pointer_t<decltype(kind)>;
    run("decode: peaks", find_peaks<T>, dim3(blocks(grid.cells(), 128), head.classes), dim3(128), stream, grid, head,
        static_cast<const T*>(heatmap), static_cast<const T*>(box), s);
  });
  run("decode: select", select_boxes, dim3(1), dim3(kThreads), stream, head, s, out, found);
}

}  // namespace imkd::cuda
