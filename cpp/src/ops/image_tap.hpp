// The raw pixels that an output pixel interpolates.
#pragma once
#include <cmath>

#include "device.hpp"
#include "imkd/ops.hpp"

namespace imkd {

struct Tap {  // value = at(index) + (at(index + 1) - at(index)) * weight
  int index = 0;
  float weight = 0;
};

// The two raw pixels around an output pixel along one axis; outside the image the edge pixel is repeated.
IMKD_HD inline Tap tap(int output, double offset, double scale, int size) {
  const double u = (output + 0.5 + offset) / scale - 0.5;
  if (!(u > 0) || size < 2) return {0, 0.f};
  if (u >= size - 1) return {size - 2, 1.f};
  const int index = static_cast<int>(u);
  return {index, static_cast<float>(u - index)};
}

// ONNX's QuantizeLinear with a zero point of 0.
IMKD_HD inline std::int8_t step_of(float value, float scale) {
  const float step = rintf(value / scale);
  return static_cast<std::int8_t>(step < -128.f ? -128.f : step > 127.f ? 127.f : step);
}

}  // namespace imkd
