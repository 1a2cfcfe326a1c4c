// Resize, crop and normalisation of all cameras in one kernel: each thread blends four raw pixels into one output pixel.
#include "image_tap.hpp"
#include "kernel.hpp"

namespace imkd::cuda {
namespace {

constexpr int kImages = 16;  // per launch

struct Batch {
  struct Image {
    const std::uint8_t* data;
    int width, height;
    std::ptrdiff_t row, pixel, channel;  // bytes
    double scale, left, top;
  } image[kImages];
  int width, height;  // of the network's input
  float gain[3], bias[3];
};

Batch batch_of(const ImageView* images, const ImageCrop* crops, int count, const ImageSpec& spec) {
  Batch batch{};
  for (int i = 0; i < count; ++i) {
    const ImageView& v = images[i];
    const ImageCrop crop = crops ? crops[i] : ImageCrop{};
    batch.image[i] = {v.data, v.width, v.height, v.row_stride, v.pixel_stride, v.channel_stride, crop.scale, crop.left, crop.top};
  }
  batch.width = spec.width, batch.height = spec.height;
  for (int c = 0; c < 3; ++c) batch.gain[c] = 1.f / spec.std[c], batch.bias[c] = -spec.mean[c] / spec.std[c];
  return batch;
}

__global__ void __launch_bounds__(256) resize_taps(Batch batch, Tap* table) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, each = batch.width + batch.height;
  if (i >= each) return;
  const Batch::Image& image = batch.image[blockIdx.y];
  const bool column = i < batch.width;
  table[blockIdx.y * each + i] =
      column ? tap(i, image.left, image.scale, image.width) : tap(i - batch.width, image.top, image.scale, image.height);
}

template <class T>
__global__ void __launch_bounds__(256) resize(Batch batch, const Tap* __restrict__ table, T* __restrict__ out) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= batch.width || y >= batch.height) return;
  const Batch::Image& image = batch.image[blockIdx.z];
  const std::size_t plane = std::size_t(batch.width) * batch.height;
  T* to = out + blockIdx.z * 3 * plane + std::size_t(y) * batch.width + x;
  if (!image.data) {
    for (int c = 0; c < 3; ++c) to[c * plane] = from_float<T>(0.f);
    return;
  }
  const Tap* taps = table + blockIdx.z * (batch.width + batch.height);
  const Tap h = taps[x], v = taps[batch.width + y];
  const std::uint8_t* a = image.data + v.index * image.row + h.index * image.pixel;
  const std::ptrdiff_t down = image.height > 1 ? image.row : 0, right = image.width > 1 ? image.pixel : 0;
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    const std::uint8_t* p = a + c * image.channel;
    const float top_left = p[0], top_right = p[right];
    const float left = top_left + (float(p[down]) - top_left) * v.weight;
    const float far = top_right + (float(p[down + right]) - top_right) * v.weight;
    to[c * plane] = from_float<T>((left + (far - left) * h.weight) * batch.gain[c] + batch.bias[c]);
  }
}

}  // namespace

std::size_t resize_table_bytes(const ImageSpec& spec, int count) { return sizeof(Tap) * (spec.width + spec.height) * count; }

void resize_table(const ImageView* images, const ImageCrop* crops, int count, const ImageSpec& spec, void* table, Stream stream) {
  const int each = spec.width + spec.height;
  for (int first = 0; first < count; first += kImages) {
    const int some = count - first < kImages ? count - first : kImages;
    run("resize_table", resize_taps, dim3(blocks(each, 256), some), dim3(256), stream, batch_of(images + first, crops + first, some, spec),
        static_cast<Tap*>(table) + std::size_t(first) * each);
  }
}

void preprocess_images(const ImageView* images, int count, const ImageSpec& spec, const void* table, void* out, Type type, Stream stream) {
  const int each = spec.width + spec.height;
  for (int first = 0; first < count; first += kImages) {
    const int some = count - first < kImages ? count - first : kImages;
    const dim3 grid(blocks(spec.width, 32), blocks(spec.height, 8), some);
    with_type(type, [&](auto* kind) {
      using T = std::remove_pointer_t<decltype(kind)>;
      run("preprocess_images", resize<T>, grid, dim3(32, 8), stream, batch_of(images + first, nullptr, some, spec),
          static_cast<const Tap*>(table) + std::size_t(first) * each,
          static_cast<T*>(out) + std::size_t(first) * 3 * spec.width * spec.height);
    });
  }
}

}  // namespace imkd::cuda
