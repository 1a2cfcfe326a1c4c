// Signatures: vectors of other programs, files of minisign, and whose bundles are loaded.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "fakes.hpp"
#include "trust.hpp"

using namespace imkd;
using imkd::fakes::code_of;
namespace fs = std::filesystem;

namespace {

#define REQUIRE_LIBCRYPTO()                                                            \
  try {                                                                                \
    crypto_library();                                                                  \
  } catch (const Error& error) {                                                       \
    GTEST_SKIP() << "OPENSSL ABSENT: no signature is verified here: " << error.what(); \
  }

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

template <class Array>
Array array_of(const std::string& hex) {
  const std::string bytes = from_hex(hex);
  Array array{};
  std::copy(bytes.begin(), bytes.end(), array.begin());
  return array;
}

TEST(Crypto, ed25519_of_rfc_8032_test_2) {
  REQUIRE_LIBCRYPTO();
  const auto key = array_of<Ed25519Key>("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
  auto signature = array_of<Ed25519Signature>(
      "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
      "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00");
  EXPECT_TRUE(ed25519_verify(key, signature, "\x72"));
  EXPECT_FALSE(ed25519_verify(key, signature, "\x73"));
  EXPECT_FALSE(ed25519_verify(key, signature, ""));
  signature[63] ^= 1;
  EXPECT_FALSE(ed25519_verify(key, signature, "\x72"));
}

TEST(Crypto, blake2b_as_b2sum_of_coreutils_prints_it) {
  REQUIRE_LIBCRYPTO();
  EXPECT_EQ(blake2b_512("abc"), from_hex("ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
                                         "7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923"));
}

// Made with Python's cryptography from the private key of 32 bytes of 1, key id 1, 0 ... 6, for the file "manifest".
constexpr const char* kPublic = "untrusted comment: x\nRWQBAAECAwQFBoqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c\n";
constexpr const char* kPrehashed =
    "untrusted comment: signature from minisign secret key\n"
    "RUQBAAECAwQFBote6O+tBirkfJYH1jTU9SCqzZCByHfyJRBGKbZxUgXYYvHPhntzHoh4paxaPkbSSvmdhuu5Y+mYm4jWABwu8Qg=\n"
    "trusted comment: for tests\n"
    "fSnv342U55sas4tZI3g3baPfi6eboeSLgf+ZFGvT6gi6F3EW5cRh0sC/S+zax+mm0yGK/xh468HSV6uJD7QBBw==\n";
constexpr const char* kLegacy =
    "untrusted comment: signature from minisign secret key\n"
    "RWQBAAECAwQFBgitpYv4RXp/Yt+LhupVFUw30eu3IHFqv0Lbl40F7bbHd6YzdCE7TkpkP/oFT7/CXIgNptAYuqp7eUaJWY5SMw8=\n"
    "trusted comment: for tests\n"
    "A2p2jTCvSB5HElmKBcYDC2MoqvpppyNHA12fZpCOpH3L+1TaneDkKgoKWQgHa6JNLkrOzxwYJySXbSMgufDAAw==\n";

TEST(Minisign, both_algorithms_are_read_and_verified) {
  REQUIRE_LIBCRYPTO();
  const PublicKey key = parse_public_key(kPublic, "x.pub");
  EXPECT_EQ(key_id_text(key.id), "0605040302010001");
  for (const char* text : {kPrehashed, kLegacy}) {
    const DetachedSignature signature = parse_signature(text, "x");
    EXPECT_EQ(signature.prehashed, text == kPrehashed);
    EXPECT_EQ(signature.comment, "for tests");
    EXPECT_TRUE(verify(key, signature, "manifest"));
    EXPECT_FALSE(verify(key, signature, "manifesT"));
    DetachedSignature other = signature;
    other.comment += " ";
    EXPECT_FALSE(verify(key, other, "manifest"));
    other = signature;
    other.prehashed = !other.prehashed;
    EXPECT_FALSE(verify(key, other, "manifest"));
  }
}

// Whatever the bytes, parsing ends in a value or in the one code; the sanitizers watch the memory.
TEST(Minisign, any_text_is_a_signature_or_malformed) {
  const std::string good = kPrehashed;
  unsigned seed = 7;
  const auto next = [&seed] { return (seed = seed * 1664525u + 1013904223u) >> 8; };
  for (int i = 0; i < 20000; ++i) {
    std::string text = good;
    for (unsigned edits = 1 + next() % 3; edits > 0; --edits) text[next() % text.size()] = static_cast<char>(next());
    text.resize(next() % 4 == 0 ? next() % (text.size() + 1) : text.size());
    const Code code = code_of([&] { parse_signature(text, "x"); });
    ASSERT_TRUE(code == Code{} || code == Code::signature_malformed) << text;
    const Code key = code_of([&] { parse_public_key(text, "x"); });
    ASSERT_EQ(key, Code::trust_bad_value);
  }
}

class TrustTest : public testing::Test {
 protected:
  void SetUp() override {
    keys = fs::path(testing::TempDir()) /
           ("imkd_trust_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
    fs::remove_all(keys);
    fs::create_directories(keys);
    write("fleet.pub", kPublic);
    ::unsetenv(kTrustVariable);
  }
  void TearDown() override {
    fs::remove_all(keys);
    ::unsetenv(kTrustVariable);
  }
  void write(const char* name, const std::string& text) const { std::ofstream(keys / name, std::ios::binary) << text; }
  std::string require() const { return "require:" + keys.string(); }
  fs::path keys;
};

TEST_F(TrustTest, a_caller_cannot_loosen_the_environment) {
  REQUIRE_LIBCRYPTO();
  for (const char* option : {"", "off"}) {
    EXPECT_EQ(code_of([&] { Trust(option).check("manifest", std::nullopt, "x"); }), Code{});
    EXPECT_FALSE(Trust(option).check("manifest", std::string(kPrehashed), "x").checked);
  }
  ::setenv(kTrustVariable, require().c_str(), 1);
  for (const std::string& option : {std::string(), std::string("off"), keys.string(), "warn:" + keys.string()}) {
    EXPECT_EQ(code_of([&] { Trust(option).check("manifest", std::nullopt, "x"); }), Code::bundle_unsigned) << option;
    const Signature signature = Trust(option).check("manifest", std::string(kPrehashed), "x");
    EXPECT_TRUE(signature.checked && signature.present);
    EXPECT_EQ(signature.signer, "fleet");
  }
  EXPECT_EQ(code_of([&] { Trust("").check("other", std::string(kPrehashed), "x"); }), Code::signature_wrong);
}

TEST_F(TrustTest, a_revision_below_the_least_is_refused) {
  EXPECT_EQ(code_of([&] { Trust(require()).check_revision(0, "x"); }), Code{});
  write("least_revision", "3\n");
  EXPECT_EQ(code_of([&] { Trust(require()).check_revision(2, "x"); }), Code::bundle_rolled_back);
  EXPECT_EQ(code_of([&] { Trust(require()).check_revision(3, "x"); }), Code{});
  write("least_revision", "3.5");
  EXPECT_EQ(code_of([&] { Trust{require()}; }), Code::trust_bad_value);
}

TEST_F(TrustTest, a_folder_that_all_users_can_change_is_no_trust) {
  fs::permissions(keys, fs::perms::others_write, fs::perm_options::add);
  EXPECT_EQ(code_of([&] { Trust{keys.string()}; }), Code::trust_bad_value);
}

}  // namespace
