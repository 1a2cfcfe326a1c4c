// What the fuzz targets share. A target is one file of targets/: it defines LLVMFuzzerTestOneInput, which passes any
// bytes to one reader. Only imkd::Error may leave a reader; another exception, a broken promise or a sanitizer's report
// is a finding.
#pragma once
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "imkd/error.hpp"
#include "imkd/frames.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace imkd::fuzz {

// Runs a reader; false where it refuses its input with a coded error.
template <class Reader>
bool accepted(Reader&& reader) {
  try {
    reader();
    return true;
  } catch (const Error&) {
    return false;
  }
}

inline void require(bool holds, const char* promise) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", promise);
  std::abort();
}

inline std::string text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Values from the front of the input; zeros once it is used up.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : at_(data), end_(data + size) {}
  std::size_t left() const { return static_cast<std::size_t>(end_ - at_); }

  template <class T>
  T value() {
    T result{};
    std::memcpy(&result, at_, std::min(sizeof(T), left()));
    at_ += std::min(sizeof(T), left());
    return result;
  }
  bool flag() { return value<std::uint8_t>() & 1; }
  int below(int count) { return value<std::uint8_t>() % count; }
  template <class T>
  std::vector<T> values(std::size_t count) {
    std::vector<T> result(count);
    for (T& one : result) one = value<T>();
    return result;
  }
  // Numbers of every size, most of them small.
  double number() {
    static constexpr double kSpecial[] = {0,
                                          -0.,
                                          1e-9,
                                          1e9,
                                          1e300,
                                          5e-324,
                                          std::numeric_limits<double>::infinity(),
                                          std::numeric_limits<double>::quiet_NaN()};
    switch (below(5)) {
      case 0:
        return value<double>();
      case 1:
        return kSpecial[below(8)];
      case 2:
        return value<std::int8_t>();
      default:
        return value<std::int16_t>() / 256.;
    }
  }
  // Times in ns: most within seconds after `near`, some anywhere.
  std::int64_t time(std::int64_t near) {
    if (below(8) == 0) return value<std::int64_t>();
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(near) +
                                     static_cast<std::uint64_t>(value<std::int16_t>() * 1'000'000ll));
  }
  // Most are poses: a turn about z and a translation.
  Mat4 pose() {
    Mat4 T = identity4();
    if (below(8) == 0) {
      for (double& one : T) one = number();
      return T;
    }
    const double yaw = number();
    T[0] = T[5] = std::cos(yaw);
    T[4] = std::sin(yaw);
    T[1] = -T[4];
    for (int i : {3, 7, 11}) T[static_cast<std::size_t>(i)] = number();
    return T;
  }
  Ego ego() {
    Ego result;
    if (flag()) result.T_world_ego = pose();
    if (flag()) result.twist = Vec3{number(), number(), number()};
    return result;
  }
  std::string name() {
    const std::vector<char> letters = values<char>(static_cast<std::size_t>(below(24)));
    return {letters.begin(), letters.end()};
  }

 private:
  const std::uint8_t* at_;
  const std::uint8_t* end_;
};

// A folder of this process below TMPDIR, removed at a normal exit.
class Folder {
 public:
  explicit Folder(const std::string& name)
      : path(std::filesystem::temp_directory_path() / ("imkd_fuzz_" + std::to_string(::getpid())) / name) {
    std::filesystem::create_directories(path);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path.parent_path(), ignored);
  }
  void write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path / name, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  const std::filesystem::path path;
};

}  // namespace imkd::fuzz
