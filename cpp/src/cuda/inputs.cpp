#include "inputs.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

namespace imkd::cuda {
namespace {

constexpr std::size_t kAlign = 256;
constexpr std::size_t kBytesPerPixel = 4;  // the widest that is staged as it stands

std::size_t aligned(std::size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// The bytes of one row, from the lowest to the highest address.
struct Span {
  std::ptrdiff_t low, bytes;
  explicit Span(const ImageView& v) {
    const std::ptrdiff_t along = (v.width - 1) * v.pixel_stride, across = 2 * v.channel_stride;
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

// The rows of an image that stand far apart, or whose channels do, closed up; the same pixels in the same order.
ImageView stage_rows(const ImageView& v, std::uint8_t* to, ThreadPool& pool) {
  if (v.chroma) {
    std::uint8_t* chroma = to + static_cast<std::ptrdiff_t>(v.width) * v.height;
    copy_rows(v.data, v.row_stride, v.height, v.width, to, pool);
    copy_rows(v.chroma, v.chroma_stride, v.height / 2, v.width, chroma, pool);
    return {to, v.width, v.height, v.width, 1, 0, chroma, v.width, v.yuv};
  }
  const Span span(v);
  if (span.bytes >
      static_cast<std::ptrdiff_t>(kBytesPerPixel) * v.width) {  // planar, every other column, ...: pixel by pixel
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

Notes::Notes(const ModelSpec& spec, int sweeps) : sweeps_(sweeps) {
  images_at_ = 0;
  past_at_ = aligned(static_cast<std::size_t>(spec.cameras) * sizeof(ImageView));
  radar_at_ = past_at_ + aligned(static_cast<std::size_t>(spec.history.frames) * sizeof(PastMap));
  bytes_ = radar_at_ + aligned(static_cast<std::size_t>(sweeps) * sizeof(RadarInput));
  host_ = pinned_memory<unsigned char>(bytes_), device_ = device_memory<unsigned char>(bytes_);
  std::memset(host_.get(), 0, bytes_);
  for (int i = 0; i < spec.history.frames; ++i) new (past() + i) PastMap{Warp(spec.grid), false, 0};
  for (int i = 0; i < sweeps; ++i) new (radar() + i) RadarInput{};
}

void Notes::send(cudaStream_t stream) const {
  check(cudaMemcpyAsync(device_.get(), host_.get(), bytes_, cudaMemcpyHostToDevice, stream), "cudaMemcpyAsync",
        "notes");
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
  std::vector<Stage> stages;
  for (const CameraCalibration& camera : rig.cameras) {
    Stage stage;
    const std::size_t bytes =
        kBytesPerPixel * static_cast<std::size_t>(camera.width) * static_cast<std::size_t>(camera.height);
    stage.pinned = pinned_memory<std::uint8_t>(bytes);
    if (!integrated_) stage.device = device_memory<std::uint8_t>(bytes);
    stages.push_back(std::move(stage));
  }
  const int sweeps = 16 * static_cast<int>(rig.radars.size());
  if (!notes_ || notes_->sweeps() < sweeps) notes_ = std::make_unique<Notes>(spec_, sweeps);
  stages_ = std::move(stages);
}

// Where the device finds this memory of the caller's; null where it cannot.
const std::uint8_t* Inputs::on_device(const std::uint8_t* data) const {
  cudaPointerAttributes attributes{};
  check(cudaPointerGetAttributes(&attributes, data), "cudaPointerGetAttributes", "the caller's image");
  if (attributes.type == cudaMemoryTypeDevice && attributes.device != device_)
    throw Error(Code::frame_bad_dtype, "an image lies on GPU " + std::to_string(attributes.device), "FrameSet::cameras",
                "this detector works on GPU " + std::to_string(device_) + ": copy it there, or to the host");
  return attributes.type == cudaMemoryTypeUnregistered ? nullptr
                                                       : static_cast<const std::uint8_t*>(attributes.devicePointer);
}

ImageView Inputs::reachable(const ImageView& image, Stage& stage, cudaStream_t stream) {
  if (!image.data) return image;
  const std::uint8_t *data = on_device(image.data), *chroma = image.chroma ? on_device(image.chroma) : nullptr;
  if (image.chroma && !data != !chroma)
    throw Error(Code::frame_bad_shape, "the device reaches one plane of an NV12 image and not the other",
                "FrameSet::cameras", "keep both in one kind of memory");
  if (data) {
    ImageView view = image;
    view.data = data, view.chroma = chroma;
    return view;
  }
  ImageView view = stage_rows(image, stage.pinned.get(), pool_);
  if (!stage.device) return view;
  const std::size_t rows = static_cast<std::size_t>(view.chroma ? view.height / 2 * 3 : view.height);
  const std::size_t bytes = static_cast<std::size_t>(view.row_stride) * rows;
  check(cudaMemcpyAsync(stage.device.get(), stage.pinned.get(), bytes, cudaMemcpyHostToDevice, stream),
        "cudaMemcpyAsync", "image");
  view.data = stage.device.get() + (view.data - stage.pinned.get());
  if (view.chroma) view.chroma = stage.device.get() + (view.chroma - stage.pinned.get());
  return view;
}

bool Inputs::put_radar(const Frame& frame) {
  std::int64_t points = 0;
  for (int i = 0; i < frame.sweep_count; ++i) points += frame.sweeps[static_cast<std::size_t>(i)].count;
  const bool more_points = points > points_, more_sweeps = frame.sweep_count > notes_->sweeps();
  if (more_points) {
    constexpr std::int64_t kMost = 1 << 28;
    if (points > kMost)
      throw Error(Code::frame_bad_shape, std::to_string(points) + " radar points in one frame", "FrameSet::sweeps",
                  "give fewer than 2^28");
    radar_ = pinned_memory<float>(static_cast<std::size_t>(points) * 5);
    points_ = static_cast<int>(points);
  }
  if (more_sweeps) notes_ = std::make_unique<Notes>(spec_, frame.sweep_count);
  float* to = radar_.get();
  for (int i = 0; i < notes_->sweeps(); ++i) {
    RadarInput& sweep = notes_->radar()[i] =
        i < frame.sweep_count ? frame.sweeps[static_cast<std::size_t>(i)] : RadarInput{};
    const std::size_t values = static_cast<std::size_t>(sweep.count) * 5;
    if (values > 0) std::memcpy(to, sweep.points, values * sizeof(float));
    sweep.points = to;
    to += values;
  }
  return more_points || more_sweeps;
}

bool Inputs::put(const Frame& frame, cudaStream_t stream) {
  const bool moved = put_radar(frame);  // first: it may make new notes
  for (std::size_t i = 0; i < stages_.size(); ++i) notes_->images()[i] = reachable(frame.images[i], stages_[i], stream);
  for (std::size_t i = 0; i < frame.past.size(); ++i) {
    PastMap& slot = notes_->past()[i];
    slot.near = frame.past[i].place >= 0 && slot.warp.set(spec_.grid, frame.past[i].T_then_now);
    slot.place = slot.near ? frame.past[i].place : 0;
  }
  return moved;
}

}  // namespace imkd::cuda
