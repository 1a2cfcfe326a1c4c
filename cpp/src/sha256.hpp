// SHA-256 (FIPS 180-4), incremental for files that are read block by block.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace imkd {

class Sha256 {
 public:
  void update(const void* data, std::size_t size);
  std::string hex();  // of all updates; call it once, last

 private:
  void block(const std::uint8_t* bytes);  // 64 of them
  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, 64> rest_{};  // of an incomplete block
  std::uint64_t size_ = 0;               // bytes so far
};

std::string sha256_hex(const void* data, std::size_t size);  // 64 digits in lower case

}  // namespace imkd
