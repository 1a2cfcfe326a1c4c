// The CUDA twins of the ops: same results as the CPU ops, which define them. Integers are equal, float32 too but for
// the last bit of exp, log, sin, cos and atan2; nothing depends on the order in which blocks and threads run. Every
// pointer but lift_table's crops is memory that the device can reach, and the host reads none of it: a CUDA graph of
// these calls may be replayed with other images, sweeps and slots in the same places. But for lift_table no function
// allocates, waits for the device or uses the default stream; a launch that CUDA refuses throws Error device_failed.
#pragma once
#include <cstdint>

#include "imkd/engine.hpp"
#include "imkd/ops.hpp"

struct CUstream_st;

namespace imkd::cuda {

using Stream = CUstream_st*;  // cudaStream_t
using imkd::Type;             // of the tensors that pass between our kernels and the networks: float32 or float16

// ---- images ----
// Where each output column and row is read, by image: made once per calibration and image size, 8 bytes each.
std::size_t resize_table_bytes(const ImageSpec& spec, int count);
void resize_table(const ImageView* images /* (count) */, const ImageCrop* crops /* (count) */, int count,
                  const ImageSpec& spec, void* table, Stream stream);
// table: of images of these sizes.
void preprocess_images(const ImageView* images /* (count) */, int count, const ImageSpec& spec, const void* table,
                       void* out /* (count,3,H,W) */, Type type, Stream stream);
// The same as steps of scale, as imkd::quantize_images.
void quantize_images(const ImageView* images /* (count) */, int count, const ImageSpec& spec, const void* table,
                     float scale, std::int8_t* out /* (count,3,H,W) */, Stream stream);

// ---- lift ----
struct LiftTable {                 // as imkd::LiftTable, with an interval for every cell
  std::int32_t* rows = nullptr;    // (cells + 1)
  std::int32_t* points = nullptr;  // (lift_points(spec)), the first rows[cells] are used
  std::int32_t* pixels = nullptr;  // (lift_points(spec))
};
std::size_t lift_points(const ModelSpec& spec);           // frustum points of all cameras
std::size_t lift_table_workspace(const ModelSpec& spec);  // bytes
// The only op that allocates (on the host) and reads pageable memory, so may wait for the stream: it belongs to loading
// and to a new calibration.
void lift_table(const ModelSpec& spec, const SensorRig& rig, const ImageCrop* crops, const LiftTable& table,
                void* workspace, Stream stream);
enum class Layout { channels_first, channels_last };  // of the context: (N,C,h,w), which is turned first, or (N,h,w,C)
std::size_t lift_workspace(const ModelSpec& spec, Layout layout, Type type);  // bytes
// type: of depth and context.
void lift(const ModelSpec& spec, const LiftTable& table, const void* depth /* (N,D,h,w) */, const void* context,
          Layout layout, Type type, void* out /* (C+1,H,W) */, Type out_type, void* workspace, Stream stream);
// Zeros in a tensor of the cameras wherever the image has no data, so that lift adds nothing of it.
void clear_absent(const ImageView* images /* (count) */, int count, void* tensor /* (count,each) */, std::size_t each,
                  Type type, Stream stream);

// ---- radar ----
std::size_t radar_workspace(const ModelSpec& spec);  // bytes
// points: at least as many as the sweeps have together; it sets how many threads are launched.
void voxelize_radar(const ModelSpec& spec, const RadarInput* sweeps /* (count), of any number of points */, int count,
                    int points, void* out /* (F,Hr,Wr) */, Type type, RadarStats* stats, void* workspace,
                    Stream stream);

// ---- warp ----
void warp_bev(const GridSpec& grid, const void* features /* (channels,H,W) */, int channels, const Mat4& T_then_now,
              void* out /* (channels,H,W) */, Type type, Stream stream);
// The slots of a history at once: out[slot] is the kept map that past[slot] names, warped.
struct PastMap;  // warp_place.hpp
void warp_past(const GridSpec& grid, const PastMap* past /* (slots) */, int slots,
               const void* maps /* (places,channels,H,W) */, int channels, void* out /* (slots,channels,H,W) */,
               Type type, Stream stream);

// ---- decode ----
struct Found {
  std::int32_t count = 0, dropped = 0;
};
std::size_t decode_workspace(const ModelSpec& spec);  // bytes
void decode(const ModelSpec& spec, const void* heatmap /* (K,H,W) logits */, const void* box /* (groups*10,H,W) */,
            Type type, Detection* out /* (head.max_detections) */, Found* found, void* workspace, Stream stream);

}  // namespace imkd::cuda
