// NV12 to RGB: each 2x2 block of pixels shares two chroma bytes; grey levels are rounded, as in a stored RGB image.
// Matrices: ITU-R BT.601 (Kr 0.299, Kb 0.114) and BT.709 (Kr 0.2126, Kb 0.0722), narrow range 16..235 and full range.
#pragma once
#include "device.hpp"
#include "imkd/frames.hpp"

namespace imkd {

struct Yuv {
  float black, luma, red_v, green_u, green_v, blue_u;
};

IMKD_HD constexpr Yuv yuv_of(double kr, double kb, bool full) {
  const double kg = 1 - kr - kb, luma = full ? 1 : 255. / 219, chroma = full ? 1 : 255. / 224;
  return {full ? 0.f : 16.f,
          float(luma),
          float(2 * (1 - kr) * chroma),
          float(-2 * kb * (1 - kb) / kg * chroma),
          float(-2 * kr * (1 - kr) / kg * chroma),
          float(2 * (1 - kb) * chroma)};
}

IMKD_HD inline Yuv yuv_of(YuvMatrix matrix) {
  constexpr Yuv bt601 = yuv_of(0.299, 0.114, false), bt601_full = yuv_of(0.299, 0.114, true);
  constexpr Yuv bt709 = yuv_of(0.2126, 0.0722, false), bt709_full = yuv_of(0.2126, 0.0722, true);
  switch (matrix) {
    case YuvMatrix::bt601:
      return bt601;
    case YuvMatrix::bt601_full:
      return bt601_full;
    case YuvMatrix::bt709:
      return bt709;
    case YuvMatrix::bt709_full:
      return bt709_full;
  }
  return bt601;
}

IMKD_HD inline std::uint8_t grey_level(float value) {
  return static_cast<std::uint8_t>((value < 0 ? 0.f : value > 255 ? 255.f : value) + 0.5f);
}

IMKD_HD inline void to_rgb(const Yuv& m, std::uint8_t y, std::uint8_t u, std::uint8_t v, std::uint8_t* rgb) {
  const float luma = (float(y) - m.black) * m.luma, du = float(u) - 128, dv = float(v) - 128;
  rgb[0] = grey_level(luma + m.red_v * dv);
  rgb[1] = grey_level(luma + m.green_u * du + m.green_v * dv);
  rgb[2] = grey_level(luma + m.blue_u * du);
}

// The pixel at (row, column) of an image that has chroma.
IMKD_HD inline void nv12_pixel(const ImageView& image, const Yuv& m, int row, int column, std::uint8_t* rgb) {
  const std::uint8_t* uv = image.chroma + (row / 2) * image.chroma_stride + column / 2 * 2;
  to_rgb(m, image.data[row * image.row_stride + column], uv[0], uv[1], rgb);
}

}  // namespace imkd
