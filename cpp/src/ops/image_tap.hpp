// The raw pixels that an output pixel is blended from.
#pragma once
#include "device.hpp"
#include "imkd/ops.hpp"

namespace imkd {

struct Tap {  // value = at(index) + (at(index + 1) - at(index)) * weight
  int index = 0;
  float weight = 0;
};

// The two raw pixels around an output pixel; outside the image the edge pixel is repeated.
IMKD_HD inline Tap tap(int output, double offset, double scale, int size) {
  const double u = (output + 0.5 + offset) / scale - 0.5;
  if (!(u > 0) || size < 2) return {0, 0.f};
  if (u >= size - 1) return {size - 2, 1.f};
  const int index = static_cast<int>(u);
  return {index, static_cast<float>(u - index)};
}

}  // namespace imkd
