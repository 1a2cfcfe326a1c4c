// Resize, crop and normalisation in one pass: two rows are interpolated first (contiguous bytes), then the columns of
// the interpolated row.
#include <algorithm>
#include <type_traits>

#include "clones.hpp"
#include "image_tap.hpp"
#include "yuv.hpp"

namespace imkd {
namespace {

constexpr int kTile = 256;   // output columns of a tile; its tables and its interpolated row are on the stack
constexpr int kSpan = 2048;  // largest number of raw columns of a tile

IMKD_CLONES void blend_rows(const std::uint8_t* a, const std::uint8_t* b, float weight, int count, float* out) {
  for (int i = 0; i < count; ++i) out[i] = float(a[i]) + (float(b[i]) - float(a[i])) * weight;
}

// The same for any strides.
void blend_strided(const ImageView& image, const std::uint8_t* a, const std::uint8_t* b, float weight, int pixels,
                   float* out) {
  for (int x = 0; x < pixels; ++x)
    for (int c = 0; c < 3; ++c) {
      const std::ptrdiff_t at = x * image.pixel_stride + c * image.channel_stride;
      *out++ = float(a[at]) + (float(b[at]) - float(a[at])) * weight;
    }
}

// Converts pixels of one row of NV12 to RGB, starting at column first.
const std::uint8_t* rgb_row(const ImageView& image, const Yuv& matrix, int row, int first, int pixels,
                            std::uint8_t* rgb) {
  for (int x = 0; x < pixels; ++x) nv12_pixel(image, matrix, row, first + x, rgb + 3 * x);
  return rgb;
}

// Three channels and one float more.
typedef float Lanes __attribute__((vector_size(16), aligned(4), may_alias));

struct Scale {  // (value - mean) / std as value * gain + bias, in the row's order of channels
  Lanes gain{};
  Lanes bias{};
};

// row: interleaved pixels and one float more; index: 3 * raw column; mixed: (count, 4). One pixel at a time, without
// gather instructions.
IMKD_CLONES void blend_columns(const float* row, const int* index, const float* weight, int count, const Scale& scale,
                               float* mixed) {
  for (int x = 0; x < count; ++x) {
    const Lanes a = *reinterpret_cast<const Lanes*>(row + index[x]);
    const Lanes b = *reinterpret_cast<const Lanes*>(row + index[x] + 3);
    *reinterpret_cast<Lanes*>(mixed + 4 * x) = (a + (b - a) * weight[x]) * scale.gain + scale.bias;
  }
}

IMKD_CLONES void to_planes(const float* mixed, int count, float* __restrict a, float* __restrict b,
                           float* __restrict c) {
  for (int x = 0; x < count; ++x) {
    a[x] = mixed[4 * x];
    b[x] = mixed[4 * x + 1];
    c[x] = mixed[4 * x + 2];
  }
}

struct Tile {
  int begin = 0;  // output columns
  int count = 0;
  int first = 0;  // raw columns
  int pixels = 0;
  int index[kTile];  // 3 * (raw column - first)
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

struct Source {  // how the rows of an image are read
  const ImageView& image;
  bool nv12;
  bool packed;    // interleaved bytes without gaps
  bool reversed;  // BGR viewed as RGB: the bytes start two lower
  Yuv matrix;

  explicit Source(const ImageView& image)
      : image(image),
        nv12(image.chroma != nullptr),
        packed(!nv12 && image.pixel_stride == 3 && (image.channel_stride == 1 || image.channel_stride == -1)),
        reversed(packed && image.channel_stride < 0),
        matrix(yuv_of(image.yuv)) {}

  // The plane of the RGB output to which a lane of the row belongs.
  int channel(int lane) const { return reversed ? 2 - lane : lane; }

  // Interpolates between two raw rows: pixels from column first, of 3 floats each; rgb: (2, 3 * kSpan) scratch.
  void blend(const Tap& tap, int first, int pixels, std::uint8_t (&rgb)[2][3 * kSpan], float* row) const {
    const std::uint8_t* a = image.data + tap.index * image.row_stride + first * image.pixel_stride;
    const std::uint8_t* b = image.height > 1 ? a + image.row_stride : a;
    if (nv12)
      blend_rows(rgb_row(image, matrix, tap.index, first, pixels, rgb[0]),
                 rgb_row(image, matrix, tap.index + (image.height > 1), first, pixels, rgb[1]), tap.weight, 3 * pixels,
                 row);
    else if (packed)
      blend_rows(a - 2 * reversed, b - 2 * reversed, tap.weight, 3 * pixels, row);
    else
      blend_strided(image, a, b, tap.weight, pixels, row);
  }
};

// Rows [begin, end) of one image: normalised float, or int8 in units of step.
template <class T>
void preprocess_rows(const ImageView& image, const ImageCrop& crop, const ImageSpec& spec, float step, int begin,
                     int end, T* out /* (3,H,W) */) {
  const int plane = spec.width * spec.height;
  const Source source(image);
  Scale scale;
  for (int lane = 0; lane < 3; ++lane) {
    const int c = source.channel(lane);
    scale.gain[lane] = 1.f / spec.std[c];
    scale.bias[lane] = -spec.mean[c] / spec.std[c];
  }

  Tile tile;
  float row[3 * kSpan + 1];
  float mixed[4 * kTile];
  [[maybe_unused]] float values[3][kTile];  // of int8
  std::uint8_t rgb[2][3 * kSpan];
  for (int x = 0; x < spec.width; x += tile.count) {
    fill(tile, x, image, crop, spec.width);
    // One fewer where the image has a single column, which has no right neighbour.
    const int pixels = std::min(tile.pixels, image.width - tile.first);
    for (int y = begin; y < end; ++y) {
      source.blend(tap(y, crop.top, crop.scale, image.height), tile.first, pixels, rgb, row);
      if (pixels < tile.pixels) std::copy(row, row + 3, row + 3);
      row[3 * tile.pixels] = 0.f;
      blend_columns(row, tile.index, tile.weight, tile.count, scale, mixed);

      // Write the planes of the output; int8 by way of float.
      T* to = out + y * spec.width + x;
      if constexpr (std::is_same_v<T, float>) {
        to_planes(mixed, tile.count, to + source.channel(0) * plane, to + source.channel(1) * plane,
                  to + source.channel(2) * plane);
      } else {
        to_planes(mixed, tile.count, values[source.channel(0)], values[source.channel(1)], values[source.channel(2)]);
        for (int c = 0; c < 3; ++c)
          for (int i = 0; i < tile.count; ++i) to[c * plane + i] = step_of(values[c][i], step);
      }
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
