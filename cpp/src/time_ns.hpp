// Times in nanoseconds, up to the ends of int64, and their conversion to and from seconds.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

namespace imkd {

// a - b, saturated where it does not fit.
inline std::int64_t minus_ns(std::int64_t a, std::int64_t b) {
  std::int64_t difference = 0;
  if (!__builtin_sub_overflow(a, b, &difference)) return difference;
  return a < b ? std::numeric_limits<std::int64_t>::min() : std::numeric_limits<std::int64_t>::max();
}

inline std::int64_t distance_ns(std::int64_t a, std::int64_t b) { return a < b ? minus_ns(b, a) : minus_ns(a, b); }

inline std::int64_t to_ns(double seconds) { return std::llround(seconds * 1e9); }
// The double nearest to the quotient: 600 ms are 0.6, not 0.6000000000000001 as times 1e-9.
inline double to_seconds(std::int64_t ns) { return static_cast<double>(ns) / 1e9; }
inline double seconds_between(std::int64_t from_ns, std::int64_t to_ns) { return to_seconds(minus_ns(to_ns, from_ns)); }

}  // namespace imkd
