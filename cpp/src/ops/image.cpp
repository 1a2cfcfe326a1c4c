// Resize, crop and normalisation in one pass: rows are blended first (contiguous bytes), then columns of the blended row.
#include <algorithm>
#include <cmath>

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
void blend_strided(const ImageView& image, const std::uint8_t* a, const std::uint8_t* b, float weight, int pixels, float* out) {
  for (int x = 0; x < pixels; ++x)
    for (int c = 0; c < 3; ++c) {
      const std::ptrdiff_t at = x * image.pixel_stride + c * image.channel_stride;
      *out++ = float(a[at]) + (float(b[at]) - float(a[at])) * weight;
    }
}

// Pixels of one row of NV12, from a column on, as RGB.
const std::uint8_t* rgb_row(const ImageView& image, const Yuv& matrix, int row, int first, int pixels, std::uint8_t* rgb) {
  for (int x = 0; x < pixels; ++x) nv12_pixel(image, matrix, row, first + x, rgb + 3 * x);
  return rgb;
}

// row: interleaved blended pixels; index: 3 * raw column.
IMKD_CLONES void blend_columns(const float* row, const int* index, const float* weight, int count, float gain, float bias, float* out) {
  for (int x = 0; x < count; ++x) {
    const float a = row[index[x]], b = row[index[x] + 3];
    out[x] = (a + (b - a) * weight[x]) * gain + bias;
  }
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

// Rows [begin, end) of one image.
void preprocess_rows(const ImageView& image, const ImageCrop& crop, const ImageSpec& spec, int begin, int end, float* out /* (3,H,W) */) {
  const int plane = spec.width * spec.height;
  const bool packed = !image.chroma && image.pixel_stride == 3 && (image.channel_stride == 1 || image.channel_stride == -1);
  const std::ptrdiff_t lowest = packed && image.channel_stride < 0 ? -2 : 0;  // BGR seen as RGB: the bytes start two lower
  const bool nv12 = image.chroma != nullptr;
  const Yuv matrix = yuv_of(image.yuv);
  Tile tile;
  float row[3 * kSpan];
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
                   rgb_row(image, matrix, t.index + (image.height > 1), tile.first, pixels, rgb[1]), t.weight, 3 * pixels, row);
      else if (packed)
        blend_rows(a + lowest, b + lowest, t.weight, 3 * pixels, row);
      else
        blend_strided(image, a, b, t.weight, pixels, row);
      if (pixels < tile.pixels) std::copy(row, row + 3, row + 3);
      for (int c = 0; c < 3; ++c) {
        const float gain = 1.f / spec.std[c], bias = -spec.mean[c] / spec.std[c];  // (value - mean) / std
        const float* channel = row + (packed && image.channel_stride < 0 ? 2 - c : c);
        blend_columns(channel, tile.index, tile.weight, tile.count, gain, bias, out + c * plane + y * spec.width + x);
      }
    }
  }
}

}  // namespace

ImageCrop image_crop(const ImageSpec& spec, int width, int height) {
  const double scale = std::max(double(spec.width) / width, double(spec.height) / height);
  return {scale, (width * scale - spec.width) / 2, (height * scale - spec.height) * spec.anchor};
}

void preprocess_images(const ImageView* images, const ImageCrop* crops, int count, const ImageSpec& spec, float* out, ThreadPool& pool) {
  const std::size_t size = std::size_t(3) * spec.width * spec.height;
  pool.parallel_for(count * spec.height, [&](int begin, int end) {
    while (begin < end) {
      const int image = begin / spec.height, y = begin % spec.height;
      const int rows = std::min(spec.height - y, end - begin);
      float* tensor = out + image * size;
      if (images[image].data)
        preprocess_rows(images[image], crops[image], spec, y, y + rows, tensor);
      else
        for (int c = 0; c < 3; ++c) {
          float* from = tensor + (std::size_t(c) * spec.height + y) * spec.width;
          std::fill(from, from + std::size_t(rows) * spec.width, 0.f);
        }
      begin += rows;
    }
  });
}

}  // namespace imkd
