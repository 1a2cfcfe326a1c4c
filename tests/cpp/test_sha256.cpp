#include "sha256.hpp"

#include <gtest/gtest.h>

namespace {

std::string hex(const std::string& text) { return imkd::sha256_hex(text.data(), text.size()); }

// Vectors of FIPS 180-4's examples (NIST, "Cryptographic Standards and Guidelines: Example Values").
TEST(Sha256, empty_message) { EXPECT_EQ(hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"); }
TEST(Sha256, one_block) { EXPECT_EQ(hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"); }
TEST(Sha256, two_blocks) {
  EXPECT_EQ(hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}
TEST(Sha256, a_million_times_a) {
  EXPECT_EQ(hex(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, pieces_give_the_digest_of_the_whole) {
  std::string text;
  for (int size = 0; size < 300; ++size, text += static_cast<char>(size * 31)) {
    imkd::Sha256 hash;
    for (std::size_t at = 0; at < text.size(); at += 1 + at * 7 % 71) {
      const std::size_t next = std::min(text.size(), at + 1 + at * 7 % 71);
      hash.update(text.data() + at, next - at);
    }
    EXPECT_EQ(hash.hex(), hex(text)) << size;
  }
}

}  // namespace
