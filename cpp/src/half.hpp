// float16 to float32 on the host.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

namespace imkd {

inline float float_of_half(std::uint16_t half) {
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  float value = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                              : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
  if (exponent == 31)
    value = fraction ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
  return half & 0x8000 ? -value : value;
}

}  // namespace imkd
