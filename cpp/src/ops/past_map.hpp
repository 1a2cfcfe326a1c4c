// The past maps of a history, warped on the GPU.
#pragma once
#include "imkd/cuda.hpp"
#include "warp_sampling.hpp"

namespace imkd::cuda {

struct PastMap {  // one slot of the history, as a kernel reads it
  Warp warp;
  bool empty = true;  // every cell is 0
  int map = 0;        // index of the stored map
};

// Every slot of a history: out[slot] is the stored map past[slot].map, warped.
void warp_past(const GridSpec& grid, const PastMap* past /* (slots) */, int slots,
               const void* maps /* (stored,channels,H,W) */, int channels, void* out /* (slots,channels,H,W) */,
               Type type, Stream stream);

// Copies a frame's fused map to maps[*index] and sets *invalid to 0, or to a number above 0 where the map has a
// non-finite value. *index is -1 where the map is not to be stored: nothing is copied, and *invalid is 0.
void store_map(const void* map /* (size) */, std::size_t size, Type type, const std::int32_t* index,
               void* maps /* (stored,size) */, std::int32_t* invalid, Stream stream);

}  // namespace imkd::cuda
