// Ed25519 (RFC 8032) and BLAKE2b (RFC 7693) of OpenSSL's libcrypto, opened when a signature is first verified.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace imkd {

using Ed25519Key = std::array<std::uint8_t, 32>;
using Ed25519Signature = std::array<std::uint8_t, 64>;

// The library that is used, such as "OpenSSL 3.0.17 1 Jul 2025". All three throw Error missing_library without one.
std::string crypto_library();
bool ed25519_verify(const Ed25519Key& key, const Ed25519Signature& signature, const std::string& message);
std::string blake2b_512(const std::string& message);  // 64 bytes

}  // namespace imkd
