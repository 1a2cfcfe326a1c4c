// Resize, crop and normalisation in one pass: rows are blended first (contiguous bytes), then columns of the blended
// row.
#include <algorithm>
#include <type_traits>

#include "clones.hpp"
#include "image_tap.hpp"
#include "yuv.hpp"

namespace imkd {
namespace {

constexpr int kTile = 256;   // output columns of a tile; its tables and its blended row live on the stack
constexpr int kSpan = 2048;  // raw columns that a tile may need

IMKD_CLONES void blend_rows(const std::uint8_t* a, const std::uint8_t* b, float weight, int count, float* out) {
  for (int i = 0; i < count; ++i) out[i] = float(a[i]) + (float(b[i]) - float(a[i])) * weight;
}

// The same for any layout; c counts channels within a pixel.
void blend_strided(const ImageView& image, const std::uint8_t* a, const std::uint8_t* b, float weight, int pixels,
                   float* out) {
  for (int x = 0; x < pixels; ++x)
    for (int c = 0; c < 3; ++c) {
      const std::ptrdiff_t at = x * image.pixel_stride + c * image.channel_stride;
      *out++ = float(a[at]) + (float(b[at]) - float(a[at])) * weight;
    }
}

// Pixels of one row of NV12, from a column on, as RGB.
const std::uint8_t* rgb_row(const ImageView& image, const Yuv& matrix, int row, int first, int pixels,
                            std::uint8_t* rgb) {
  for (int x = 0; x < pixels; ++x) nv12_pixel(image, matrix, row, first + x, rgb + 3 * x);
  return rgb;
}

typedef float Lanes __attribute__((vector_size(16), aligned(4), may_alias));  // three channels and whatever comes next

struct Scale {  // (value - mean) / std as value * gain + bias, in the row's order of channels
  Lanes gain{}, bias{};
};

// row: interleaved blended pixels and one float more; index: 3 * raw column; mixed: 4 * count. A pixel at a time, so
// nothing is gathered.
IMKD_CLONES void blend_columns(const float* row, const int* index, const float* weight, int count, const Scale& scale,
                               float* mixed) {
  for (int x = 0; x < count; ++x) {
    const Lanes a = *reinterpret_cast<const Lanes*>(row + index[x]),
                b = *reinterpret_cast<const Lanes*>(row + index[x] + 3);
    *reinterpret_cast<Lanes*>(mixed + 4 * x) = (a + (b - a) * weight[x]) * scale.gain + scale.bias;
  }
}

IMKD_CLONES void to_planes(const float* mixed, int count, float* __restrict a, float* __restrict b,
                           float* __restrict c) {
  for (int x = 0; x < count; ++x) a[x] = mixed[4 * x], b[x] = mixed[4 * x + 1], c[x] = mixed[4 * x + 2];
}

struct Tile {
  int begin = 0, count = 0;   // output columns
  int first = 0, pixels = 0;  // raw columns
  int index[kTile];           // 3 * (raw column - first)
  float weight[kTile];
};

void fill(Tile& tile, int begin, const ImageView& image, const ImageCrop& crop, int width) {
  tile.begin = begin;
  tile.first = tap(begin, crop.left, crop.scale, image.width).index;
  int x = begin;
  for (; x < width && x - begin < kTile; ++x) {
    const Tap t = tap(x, crop.left, crop.scale, image.width);
    if (t.index - tile.first + 2 > kSpan) break;
    tile.index[x - begin] = 3 * (t.index - tile.first);
    tile.weight[x - begin] = t.weight;
    tile.pixels = t.index - tile.first + 2;
  }
  tile.count = x - begin;
}

// Rows [begin, end) of one image, as they are or, where T is int8, in steps of scale.
template <class T>
void preprocess_rows(const ImageView& image, const ImageCrop& crop, const ImageSpec& spec, float step, int begin,
                     int end, T* out /* (3,H,W) */) {
  const int plane = spec.width * spec.height;
  const bool packed =
      !image.chroma && image.pixel_stride == 3 && (image.channel_stride == 1 || image.channel_stride == -1);
  const bool reversed = packed && image.channel_stride < 0;  // BGR seen as RGB: the bytes start two lower
  const bool nv12 = image.chroma != nullptr;
  const Yuv matrix = yuv_of(image.yuv);
  Scale scale;
  for (int c = 0; c < 3; ++c) {
    const int lane = reversed ? 2 - c : c;
    scale.gain[lane] = 1.f / spec.std[c], scale.bias[lane] = -spec.mean[c] / spec.std[c];
  }
  Tile tile;
  float* planes[3];
  float row[3 * kSpan + 1], mixed[4 * kTile];
  [[maybe_unused]] float values[3][kTile];
  std::uint8_t rgb[2][3 * kSpan];
  for (int x = 0; x < spec.width; x += tile.count) {
    fill(tile, x, image, crop, spec.width);
    const int pixels = std::min(tile.pixels, image.width - tile.first);  // a single column has no right neighbour
    for (int y = begin; y < end; ++y) {
      const Tap t = tap(y, crop.top, crop.scale, image.height);
      const std::uint8_t* a = image.data + t.index * image.row_stride + tile.first * image.pixel_stride;
      const std::uint8_t* b = image.height > 1 ? a + image.row_stride : a;
      if (nv12)
        blend_rows(rgb_row(image, matrix, t.index, tile.first, pixels, rgb[0]),
                   rgb_row(image, matrix, t.index + (image.height > 1), tile.first, pixels, rgb[1]), t.weight,
                   3 * pixels, row);
      else if (packed)
        blend_rows(a - 2 * reversed, b - 2 * reversed, t.weight, 3 * pixels, row);
      else
        blend_strided(image, a, b, t.weight, pixels, row);
      if (pixels < tile.pixels) std::copy(row, row + 3, row + 3);
      row[3 * tile.pixels] = 0.f;
      T* to = out + y * spec.width + x;
      for (int c = 0; c < 3; ++c) {
        float*& lane = planes[reversed ? 2 - c : c];
        if constexpr (std::is_same_v<T, float>)
          lane = to + c * plane;
        else
          lane = values[c];
      }
      blend_columns(row, tile.index, tile.weight, tile.count, scale, mixed);
      to_planes(mixed, tile.count, planes[0], planes[1], planes[2]);
      if constexpr (!std::is_same_v<T, float>)
        for (int c = 0; c < 3; ++c)
          for (int i = 0; i < tile.count; ++i) to[c * plane + i] = step_of(values[c][i], step);
    }
  }
}

template <class T>
void preprocess(const ImageView* images, const ImageCrop* crops, int count, const ImageSpec& spec, float scale, T* out,
                ThreadPool& pool) {
  const std::size_t size = std::size_t(3) * spec.width * spec.height;
  pool.parallel_for(count * spec.height, [&](int begin, int end) {
    while (begin < end) {
      const int image = begin / spec.height, y = begin % spec.height;
      const int rows = std::min(spec.height - y, end - begin);
      T* tensor = out + image * size;
      if (images[image].data)
        preprocess_rows(images[image], crops[image], spec, scale, y, y + rows, tensor);
      else
        for (int c = 0; c < 3; ++c) {
          T* from = tensor + (std::size_t(c) * spec.height + y) * spec.width;
          std::fill(from, from + std::size_t(rows) * spec.width, T(0));
        }
      begin += rows;
    }
  });
}

}  // namespace

ImageCrop image_crop(const ImageSpec& spec, int width, int height) {
  const double scale = std::max(double(spec.width) / width, double(spec.height) / height);
  return {scale, (width * scale - spec.width) / 2, (height * scale - spec.height) * spec.anchor};
}

void preprocess_images(const ImageView* images, const ImageCrop* crops, int count, const ImageSpec& spec, float* out,
                       ThreadPool& pool) {
  preprocess(images, crops, count, spec, 1.f, out, pool);
}

void quantize_images(const ImageView* images, const ImageCrop* crops, int count, const ImageSpec& spec, float scale,
                     std::int8_t* out, ThreadPool& pool) {
  preprocess(images, crops, count, spec, scale, out, pool);
}

}  // namespace imkd
