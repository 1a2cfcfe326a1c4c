// Times in nanoseconds, at the ends of int64 too.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

namespace imkd {

inline std::int64_t minus_ns(std::int64_t a, std::int64_t b) {  // a - b, at most what fits
  std::int64_t difference = 0;
  if (!__builtin_sub_overflow(a, b, &difference)) return difference;
  return a < b ? std::numeric_limits<std::int64_t>::min() : std::numeric_limits<std::int64_t>::max();
}

inline std::int64_t distance_ns(std::int64_t a, std::int64_t b) { return a < b ? minus_ns(b, a) : minus_ns(a, b); }

inline std::int64_t to_ns(double seconds) { return std::llround(seconds * 1e9); }

}  // namespace imkd
