// The CUDA twins of the ops. Results equal those of the CPU ops: integers exactly, float32 but for the last bit of exp,
// log, sin, cos and atan2; they do not depend on the order in which blocks and threads run. Every pointer but
// lift_table's crops is memory that the device can access, and the host reads none of it: a CUDA graph of these calls
// may be replayed with other images, sweeps and slots at the same addresses. Except for lift_table no function
// allocates, synchronises or uses the default stream. A launch that CUDA refuses throws Error device_failed.
#pragma once
#include <cstdint>

#include "imkd/engine.hpp"
#include "imkd/ops.hpp"

struct CUstream_st;

namespace imkd::cuda {

using Stream = CUstream_st*;  // cudaStream_t
using imkd::Type;             // of the tensors between the kernels and the networks: float32 or float16

// ---- images ----
// The source of each output column and row, by image, 8 bytes each: made once per calibration and image size.
std::size_t resize_table_bytes(const ImageSpec& spec, int count);
void resize_table(const ImageView* images /* (count) */, const ImageCrop* crops /* (count) */, int count,
                  const ImageSpec& spec, void* table, Stream stream);
// table: of resize_table for images of these sizes.
void preprocess_images(const ImageView* images /* (count) */, int count, const ImageSpec& spec, const void* table,
                       void* out /* (count,3,H,W) */, Type type, Stream stream);
// As imkd::quantize_images.
void quantize_images(const ImageView* images /* (count) */, int count, const ImageSpec& spec, const void* table,
                     float scale, std::int8_t* out /* (count,3,H,W) */, Stream stream);

// ---- lift ----
struct LiftTable {                 // as imkd::LiftTable, in compressed rows: an interval for every cell
  std::int32_t* rows = nullptr;    // (cells + 1)
  std::int32_t* points = nullptr;  // (lift_points(spec)), the first rows[cells] are used
  std::int32_t* pixels = nullptr;  // (lift_points(spec))
};
std::size_t lift_points(const ModelSpec& spec);           // frustum points of all cameras
std::size_t lift_table_workspace(const ModelSpec& spec);  // bytes
// Once per calibration: it allocates on the host and reads pageable memory, so that it may wait for the stream.
void lift_table(const ModelSpec& spec, const SensorRig& rig, const ImageCrop* crops, const LiftTable& table,
                void* workspace, Stream stream);
// Rebuilds the table of lift_table at the same addresses, for the cameras that moved. workspace: that of lift_table, as
// it and earlier updates left it. T_ref_ego: by camera, of rounded_exposure, for the cameras that moved. It allocates
// and waits for nothing, but its arguments are fixed in a captured graph: enqueue it before the graph.
void update_lift_table(const ModelSpec& spec, const SensorRig& rig, const ImageCrop* crops, const Mat4* T_ref_ego,
                       const bool* moved, const LiftTable& table, void* workspace, Stream stream);
enum class Layout { channels_first, channels_last };  // of the context: (N,C,h,w), which is transposed, or (N,h,w,C)
std::size_t lift_workspace(const ModelSpec& spec, Layout layout, Type type);  // bytes
// type: of depth and context.
void lift(const ModelSpec& spec, const LiftTable& table, const void* depth /* (N,D,h,w) */, const void* context,
          Layout layout, Type type, void* out /* (C+1,H,W) */, Type out_type, void* workspace, Stream stream);
// Clears the part of each absent camera in a tensor of the camera network, so that it adds nothing to lift.
void clear_absent(const ImageView* images /* (count) */, int count, void* tensor /* (count,each) */, std::size_t each,
                  Type type, Stream stream);

// ---- radar ----
std::size_t radar_workspace(const ModelSpec& spec);  // bytes
// points: at least the number of points of all sweeps; it sets the number of threads launched.
void voxelize_radar(const ModelSpec& spec, const Vec3& ground, const RadarInput* sweeps /* (count) */, int count,
                    int points, void* out /* (F,Hr,Wr) */, Type type, RadarStats* stats, void* workspace,
                    Stream stream);

// ---- warp ----
void warp_bev(const GridSpec& grid, const Vec3& ground, const void* features /* (channels,H,W) */, int channels,
              const Mat4& T_then_now, void* out /* (channels,H,W) */, Type type, Stream stream);

// ---- decode ----
struct DecodeCounts {
  std::int32_t boxes = 0;
  std::int32_t dropped = 0;  // candidates with a box that is not finite
};
std::size_t decode_workspace(const ModelSpec& spec);  // bytes
void decode(const ModelSpec& spec, const Vec3& ground, const void* heatmap /* (K,H,W) logits */,
            const void* box /* (groups*10,H,W) */, Type type, Detection* out /* (head.max_detections) */,
            DecodeCounts* counts, void* workspace, Stream stream);

}  // namespace imkd::cuda
