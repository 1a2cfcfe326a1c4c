#include "inputs.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

namespace imkd::cuda {
namespace {

constexpr std::size_t kAlign = 256;
constexpr std::size_t kBytesPerPixel = 4;  // the widest pixel that is staged unpacked

std::size_t aligned(std::size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// The bytes of one row, from the lowest to the highest address.
struct Span {
  std::ptrdiff_t low;
  std::ptrdiff_t bytes;
  explicit Span(const ImageView& v) {
    const std::ptrdiff_t along = (v.width - 1) * v.pixel_stride;
    const std::ptrdiff_t across = 2 * v.channel_stride;
    low = std::min<std::ptrdiff_t>(along, 0) + std::min<std::ptrdiff_t>(across, 0);
    bytes = std::abs(along) + std::abs(across) + 1;
  }
};

void copy_rows(const std::uint8_t* from, std::ptrdiff_t stride, int rows, std::ptrdiff_t bytes, std::uint8_t* to,
               ThreadPool& pool) {
  pool.parallel_for(rows, [&](int begin, int end) {
    for (int row = begin; row < end; ++row)
      std::memcpy(to + row * bytes, from + row * stride, static_cast<std::size_t>(bytes));
  });
}

// Copies an image without its padding between rows, pixels and channels.
ImageView stage_rows(const ImageView& v, std::uint8_t* to, ThreadPool& pool) {
  if (v.chroma) {
    std::uint8_t* chroma = to + static_cast<std::ptrdiff_t>(v.width) * v.height;
    copy_rows(v.data, v.row_stride, v.height, v.width, to, pool);
    copy_rows(v.chroma, v.chroma_stride, v.height / 2, v.width, chroma, pool);
    return {to, v.width, v.height, v.width, 1, 0, chroma, v.width, v.yuv};
  }
  const Span span(v);
  // Planar, every other column, ...: pixel by pixel.
  if (span.bytes > static_cast<std::ptrdiff_t>(kBytesPerPixel) * v.width) {
    pool.parallel_for(v.height, [&](int begin, int end) {
      for (int row = begin; row < end; ++row)
        for (int x = 0; x < v.width; ++x)
          for (int c = 0; c < 3; ++c)
            to[(static_cast<std::ptrdiff_t>(row) * v.width + x) * 3 + c] =
                v.data[row * v.row_stride + x * v.pixel_stride + c * v.channel_stride];
    });
    return {to, v.width, v.height, static_cast<std::ptrdiff_t>(v.width) * 3, 3, 1};
  }
  copy_rows(v.data + span.low, v.row_stride, v.height, span.bytes, to, pool);
  return {to - span.low, v.width, v.height, span.bytes, v.pixel_stride, v.channel_stride};
}

}  // namespace

FrameParams::FrameParams(const ModelSpec& spec, int sweeps) : sweeps_(sweeps) {
  images_at_ = 0;
  past_at_ = aligned(static_cast<std::size_t>(spec.cameras) * sizeof(ImageView));
  radar_at_ = past_at_ + aligned(static_cast<std::size_t>(spec.history.frames) * sizeof(PastMap));
  store_at_ = radar_at_ + aligned(static_cast<std::size_t>(sweeps) * sizeof(RadarInput));
  bytes_ = store_at_ + aligned(sizeof(std::int32_t));
  host_ = pinned_memory<unsigned char>(bytes_);
  device_ = device_memory<unsigned char>(bytes_);
  std::memset(host_.get(), 0, bytes_);
  for (int i = 0; i < spec.history.frames; ++i) new (past() + i) PastMap{Warp(spec.grid), true, 0};
  for (int i = 0; i < sweeps; ++i) new (radar() + i) RadarInput{};
}

void FrameParams::copy_to_device(cudaStream_t stream) const {
  check(cudaMemcpyAsync(device_.get(), host_.get(), bytes_, cudaMemcpyHostToDevice, stream), "cudaMemcpyAsync",
        "frame parameters");
}

Inputs::Inputs(const ModelSpec& spec, int threads) : spec_(spec), pool_(threads) {
  int integrated = 0;
  check(cudaGetDevice(&device_), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&integrated, cudaDevAttrIntegrated, device_), "cudaDeviceGetAttribute");
  integrated_ = integrated != 0;
  points_ = spec.radar.max_points;
  radar_ = pinned_memory<float>(static_cast<std::size_t>(points_) * 5);
}

void Inputs::set_rig(const SensorRig& rig) {
  std::vector<Staging> staging;
  for (const CameraCalibration& camera : rig.cameras) {
    Staging memory;
    const std::size_t bytes =
        kBytesPerPixel * static_cast<std::size_t>(camera.width) * static_cast<std::size_t>(camera.height);
    memory.pinned = pinned_memory<std::uint8_t>(bytes);
    if (!integrated_) memory.device = device_memory<std::uint8_t>(bytes);
    staging.push_back(std::move(memory));
  }
  const int sweeps = kSweepsPerRadar * static_cast<int>(rig.radars.size());
  if (!params_ || params_->sweeps() < sweeps) params_ = std::make_unique<FrameParams>(spec_, sweeps);
  staging_ = std::move(staging);
}

// The device's address of the caller's memory; null where the device cannot read it.
const std::uint8_t* Inputs::on_device(const std::uint8_t* data) const {
  cudaPointerAttributes attributes{};
  check(cudaPointerGetAttributes(&attributes, data), "cudaPointerGetAttributes", "the caller's image");
  if (attributes.type == cudaMemoryTypeDevice && attributes.device != device_)
    throw Error(Code::frame_bad_dtype, "an image is in memory of GPU " + std::to_string(attributes.device),
                "FrameSet::cameras",
                "this detector runs on GPU " + std::to_string(device_) + ": copy the image there, or to the host");
  return attributes.type == cudaMemoryTypeUnregistered ? nullptr
                                                       : static_cast<const std::uint8_t*>(attributes.devicePointer);
}

bool Inputs::host_reads(const ImageView& image, bool awaited) const {
  cudaPointerAttributes attributes{};
  check(cudaPointerGetAttributes(&attributes, image.data), "cudaPointerGetAttributes", "the caller's image");
  return attributes.type == cudaMemoryTypeUnregistered || (attributes.type == cudaMemoryTypeHost && !awaited);
}

ImageView Inputs::reachable(const ImageView& image, Staging& staging, cudaStream_t stream) {
  if (!image.data) return image;
  const std::uint8_t* data = on_device(image.data);
  const std::uint8_t* chroma = image.chroma ? on_device(image.chroma) : nullptr;
  if (image.chroma && !data != !chroma)
    throw Error(Code::frame_bad_shape, "the device can read one plane of an NV12 image and not the other",
                "FrameSet::cameras", "allocate both planes in the same kind of memory");
  if (data) {
    ImageView view = image;
    view.data = data;
    view.chroma = chroma;
    return view;
  }
  ImageView view = stage_rows(image, staging.pinned.get(), pool_);
  if (!staging.device) return view;
  const std::size_t rows = static_cast<std::size_t>(view.chroma ? view.height / 2 * 3 : view.height);
  const std::size_t bytes = static_cast<std::size_t>(view.row_stride) * rows;
  check(cudaMemcpyAsync(staging.device.get(), staging.pinned.get(), bytes, cudaMemcpyHostToDevice, stream),
        "cudaMemcpyAsync", "image");
  view.data = staging.device.get() + (view.data - staging.pinned.get());
  if (view.chroma) view.chroma = staging.device.get() + (view.chroma - staging.pinned.get());
  return view;
}

bool Inputs::put_radar(const Frame& frame) {
  std::int64_t points = 0;
  for (int i = 0; i < frame.sweep_count; ++i) points += frame.sweeps[static_cast<std::size_t>(i)].count;
  const bool more_points = points > points_;
  const bool more_sweeps = frame.sweep_count > params_->sweeps();
  if (more_points) {
    constexpr std::int64_t kMost = 1 << 28;
    if (points > kMost)
      throw Error(Code::frame_bad_shape, std::to_string(points) + " radar points in one frame", "FrameSet::sweeps",
                  "at most 2^28: leave out older sweeps");
    radar_ = pinned_memory<float>(static_cast<std::size_t>(points) * 5);
    points_ = static_cast<int>(points);
  }
  if (more_sweeps) params_ = std::make_unique<FrameParams>(spec_, frame.sweep_count);

  // The points of all sweeps, one after the other.
  float* to = radar_.get();
  for (int i = 0; i < params_->sweeps(); ++i) {
    RadarInput& sweep = params_->radar()[i] =
        i < frame.sweep_count ? frame.sweeps[static_cast<std::size_t>(i)] : RadarInput{};
    const std::size_t values = static_cast<std::size_t>(sweep.count) * 5;
    if (values > 0) std::memcpy(to, sweep.points, values * sizeof(float));
    sweep.points = to;
    to += values;
  }
  return more_points || more_sweeps;
}

bool Inputs::put(const Frame& frame, const Vec3& ground, cudaStream_t stream) {
  const bool moved = put_radar(frame);  // first, as it may replace params_
  for (std::size_t i = 0; i < frame.images.size(); ++i)
    params_->images()[i] = i < staging_.size() ? reachable(frame.images[i], staging_[i], stream) : ImageView{};
  *params_->store() = frame.store_map;
  for (std::size_t i = 0; i < frame.past.size(); ++i) {
    PastMap& slot = params_->past()[i];
    slot.empty = frame.past[i].map < 0 || !slot.warp.set(spec_.grid, ground, frame.past[i].T_then_now);
    slot.map = slot.empty ? 0 : frame.past[i].map;
  }
  return moved;
}

}  // namespace imkd::cuda
