// Resize, crop and normalisation of all cameras in one kernel: each thread interpolates four raw pixels.
#include "image_tap.hpp"
#include "kernel.hpp"
#include "yuv.hpp"

namespace imkd::cuda {
namespace {

struct Output {
  int width;
  int height;
  float gain[3];
  float bias[3];
  float scale;  // of int8
  explicit Output(const ImageSpec& spec, float scale = 1) : width(spec.width), height(spec.height), scale(scale) {
    for (int c = 0; c < 3; ++c) {
      gain[c] = 1.f / spec.std[c];
      bias[c] = -spec.mean[c] / spec.std[c];
    }
  }
};

__global__ void __launch_bounds__(256)
    resize_taps(const ImageView* images, const ImageCrop* crops, int width, int height, Tap* table) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= width + height) return;
  const ImageView& image = images[blockIdx.y];
  const ImageCrop& crop = crops[blockIdx.y];
  table[blockIdx.y * (width + height) + i] =
      i < width ? tap(i, crop.left, crop.scale, image.width) : tap(i - width, crop.top, crop.scale, image.height);
}

template <class T>
__device__ __forceinline__ T as(float value, float) {
  return from_float<T>(value);
}
template <>
__device__ __forceinline__ std::int8_t as<std::int8_t>(float value, float scale) {
  return step_of(value, scale);
}

template <class T>
__global__ void __launch_bounds__(256)
    resize(const ImageView* __restrict__ images, Output output, const Tap* __restrict__ table, T* __restrict__ out) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x;
  const int y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= output.width || y >= output.height) return;
  const ImageView image = images[blockIdx.z];
  const std::size_t plane = std::size_t(output.width) * output.height;
  T* to = out + blockIdx.z * 3 * plane + std::size_t(y) * output.width + x;
  if (!image.data) {
    for (int c = 0; c < 3; ++c) to[c * plane] = as<T>(0.f, output.scale);
    return;
  }
  const Tap* taps = table + blockIdx.z * (output.width + output.height);
  const Tap h = taps[x];
  const Tap v = taps[output.width + y];
  const int down = image.height > 1;
  const int right = image.width > 1;
  std::uint8_t nv12[4][3];
  if (image.chroma) {
    const Yuv matrix = yuv_of(image.yuv);
#pragma unroll
    for (int k = 0; k < 4; ++k) nv12_pixel(image, matrix, v.index + (k / 2) * down, h.index + (k % 2) * right, nv12[k]);
  }
  const std::uint8_t* a = image.data + v.index * image.row_stride + h.index * image.pixel_stride;
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    const std::uint8_t* p = a + c * image.channel_stride;
    const std::ptrdiff_t below = down * image.row_stride;
    const std::ptrdiff_t beside = right * image.pixel_stride;
    const bool rgb = !image.chroma;
    const float top_left = rgb ? p[0] : nv12[0][c];
    const float top_right = rgb ? p[beside] : nv12[1][c];
    const float bottom_left = rgb ? p[below] : nv12[2][c];
    const float bottom_right = rgb ? p[below + beside] : nv12[3][c];
    const float left_value = top_left + (bottom_left - top_left) * v.weight;
    const float right_value = top_right + (bottom_right - top_right) * v.weight;
    to[c * plane] =
        as<T>((left_value + (right_value - left_value) * h.weight) * output.gain[c] + output.bias[c], output.scale);
  }
}

}  // namespace

std::size_t resize_table_bytes(const ImageSpec& spec, int count) {
  return sizeof(Tap) * (spec.width + spec.height) * count;
}

void resize_table(const ImageView* images, const ImageCrop* crops, int count, const ImageSpec& spec, void* table,
                  Stream stream) {
  run("resize_table", resize_taps, dim3(blocks(spec.width + spec.height, 256), count), dim3(256), stream, images, crops,
      spec.width, spec.height, static_cast<Tap*>(table));
}

void preprocess_images(const ImageView* images, int count, const ImageSpec& spec, const void* table, void* out,
                       Type type, Stream stream) {
  const dim3 grid(blocks(spec.width, 32), blocks(spec.height, 8), count);
  with_type(type, [&](auto* kind) {
    using T = std::remove_pointer_t<decltype(kind)>;
    run("preprocess_images", resize<T>, grid, dim3(32, 8), stream, images, Output(spec), static_cast<const Tap*>(table),
        static_cast<T*>(out));
  });
}

void quantize_images(const ImageView* images, int count, const ImageSpec& spec, const void* table, float scale,
                     std::int8_t* out, Stream stream) {
  const dim3 grid(blocks(spec.width, 32), blocks(spec.height, 8), count);
  run("quantize_images", resize<std::int8_t>, grid, dim3(32, 8), stream, images, Output(spec, scale),
      static_cast<const Tap*>(table), out);
}

}  // namespace imkd::cuda
