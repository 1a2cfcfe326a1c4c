// Finds peaks and decodes their boxes; one block selects the best; they are ranked and compared in parallel, 64 with
// 64; one warp goes through the comparisons, from the best. Only boxes leave the device.
#include <algorithm>

#include "kernel.hpp"
// After kernel.hpp, whose to_float takes a __half.
#include "box.hpp"
#include "scan.hpp"

namespace imkd::cuda {
namespace {

constexpr int kTile = 64;  // boxes whose comparisons with one box are a word
using Word = unsigned long long;

struct Scratch {
  // (peaks) unsorted; a smaller key is a better peak: logit, then index.
  unsigned long long* keys;
  // (peaks) decoded by the thread of the peak, as each channel of a box is in another memory sector.
  Detection* boxes;
  unsigned long long* best;  // (max_candidates) keys
  std::int32_t* peak;        // (max_candidates) index of each best key in keys
  std::int32_t* order;       // (max_candidates) the same, sorted from the best
  Word* better;              // (tiles, max_candidates) by tile: which of its boxes suppress a candidate, if kept
  Word* kept;                // (tiles)
  std::int32_t* counts;      // peaks, dropped boxes
  int most;                  // max_candidates, or as many as there can be
  std::size_t bytes;

  Scratch(const ModelSpec& spec, void* memory) {
    // Of 2x2 cells at most one is a peak.
    const std::size_t all = spec.head.classes.size() * ((spec.grid.width() + 1) / 2) * ((spec.grid.height() + 1) / 2);
    most = static_cast<int>(std::min<std::size_t>(spec.head.max_candidates, all));
    Arena arena(memory);
    keys = arena.take<unsigned long long>(all);
    boxes = arena.take<Detection>(all);
    best = arena.take<unsigned long long>(most);
    peak = arena.take<std::int32_t>(most);
    order = arena.take<std::int32_t>(most);
    better = arena.take<Word>(std::size_t(blocks(most, kTile)) * most);
    kept = arena.take<Word>(blocks(most, kTile));
    counts = arena.take<std::int32_t>(2);
    bytes = arena.bytes();
  }
  __device__ int candidates() const { return min(counts[0], most); }
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
    if (threadIdx.x < 256) histogram[threadIdx.x] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += kScanThreads)
      if (shift == 56 || keys[i] >> (shift + 8) == prefix) atomicAdd(histogram + (keys[i] >> shift & 255), 1);
    __syncthreads();
    const int here = threadIdx.x < 256 ? histogram[threadIdx.x] : 0;
    int total = 0;
    const int before = block_scan(here, total);
    if (before < rank && rank <= before + here) {  // of one thread
      digit = threadIdx.x;
      below = before;
    }
    __syncthreads();
    prefix = prefix << 8 | unsigned(digit);
    rank -= below;
  }
  return prefix;
}

// Gathers the best peaks. One block.
__global__ void __launch_bounds__(kScanThreads) select_candidates(Scratch s) {
  const int peaks = s.counts[0];
  const unsigned long long last = peaks > s.most ? nth_key(s.keys, peaks, s.most) : ~0ull;
  __shared__ int taken;
  if (threadIdx.x == 0) taken = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < peaks; i += kScanThreads) {
    if (s.keys[i] > last) continue;
    const int to = atomicAdd(&taken, 1);
    s.best[to] = s.keys[i];
    s.peak[to] = i;
  }
}

// A key's rank is the number of smaller ones.
__global__ void __launch_bounds__(128) rank_candidates(Scratch s) {
  const int candidates = s.candidates();
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= candidates) return;
  const unsigned long long key = s.best[i];
  int rank = 0;
  for (int k = 0; k < candidates; ++k) rank += s.best[k] < key;
  s.order[rank] = s.peak[i];
}

// Which boxes of tile blockIdx.y suppress the boxes of tile blockIdx.x, by box of the latter.
__global__ void __launch_bounds__(kTile) compare_boxes(Head head, Scratch s) {
  const int candidates = s.candidates();
  const int first = blockIdx.y * kTile;
  const int k = blockIdx.x * kTile + threadIdx.x;
  if (blockIdx.y > blockIdx.x || k >= candidates) return;
  const Detection other = s.boxes[s.order[k]];
  Word word = 0;
  for (int i = 0; i < kTile && first + i < k; ++i) {
    const Detection& d = s.boxes[s.order[first + i]];
    const bool exclusive = head.exclusive[d.label] && head.exclusive[other.label];
    if (suppresses(d, other, head.radius[d.label], exclusive)) word |= Word(1) << i;
  }
  s.better[std::size_t(blockIdx.y) * s.most + k] = word;
}

// Of a warp's 64 boxes, two in each lane, those for which a condition holds.
__device__ Word ballot(const bool (&condition)[2]) {
  const unsigned low = __ballot_sync(~0u, condition[0]);
  return Word(__ballot_sync(~0u, condition[1])) << 32 | low;
}

// The boxes of a tile that are kept. better: in the tile, of a lane's two boxes; dead: suppressed by earlier tiles. A
// box is kept as soon as every better one is dead, and dead as soon as one is kept: as many rounds as the longest
// chain.
__device__ Word keep(const Word (&better)[2], Word all, Word dead) {
  Word kept = 0;
  while ((kept | dead) != all) {
    bool now[2];
    for (int h = 0; h < 2; ++h) now[h] = (better[h] & ~dead) == 0;
    kept |= ballot(now) & all & ~dead;
    for (int h = 0; h < 2; ++h) now[h] = (better[h] & kept) != 0;
    dead |= ballot(now) & all;
  }
  return kept;
}

// One warp; the better tiles are decided first.
__global__ void __launch_bounds__(32) suppress(Head head, Scratch s, Detection* out, DecodeCounts* counts) {
  const int candidates = s.candidates();
  const int lane = threadIdx.x;
  int detections = 0;  // the same in all lanes
  for (int tile = 0; tile * kTile < candidates && detections < head.max_detections; ++tile) {
    const int left = candidates - tile * kTile;
    const Word all = left < kTile ? (Word(1) << left) - 1 : ~Word(0);
    Word better[2] = {0, 0};
    bool dead[2] = {false, false};
    for (int h = 0; h < 2; ++h) {
      const int k = tile * kTile + h * 32 + lane;
      if (k >= candidates) continue;
      for (int t = 0; t < tile; ++t) dead[h] |= (s.better[std::size_t(t) * s.most + k] & s.kept[t]) != 0;
      better[h] = s.better[std::size_t(tile) * s.most + k];
    }
    const Word here = keep(better, all, ballot(dead));
    for (int h = 0; h < 2; ++h) {
      const int bit = h * 32 + lane;
      const int to = detections + __popcll(here & ((Word(1) << bit) - 1));
      if ((here >> bit & 1) && to < head.max_detections) out[to] = s.boxes[s.order[tile * kTile + bit]];
    }
    if (lane == 0) s.kept[tile] = here;
    __syncwarp();
    detections = min(detections + __popcll(here), head.max_detections);
  }
  if (lane == 0) *counts = {detections, s.counts[1]};
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
  const int tiles = blocks(s.most, kTile);
  run("decode: select", select_candidates, dim3(1), dim3(kScanThreads), stream, s);
  run("decode: rank", rank_candidates, dim3(blocks(s.most, 128)), dim3(128), stream, s);
  run("decode: compare", compare_boxes, dim3(tiles, tiles), dim3(kTile), stream, head, s);
  run("decode: suppress", suppress, dim3(1), dim3(32), stream, head, s, out, counts);
}

}  // namespace imkd::cuda
