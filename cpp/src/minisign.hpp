// The text files of minisign (jedisct1.github.io/minisign): public keys, and detached signatures.
#pragma once
#include <array>
#include <cstdint>
#include <string>

#include "crypto.hpp"

namespace imkd {

using KeyId = std::array<std::uint8_t, 8>;
std::string key_id_text(const KeyId& id);  // as minisign prints it: 16 hex digits, the last byte first

struct PublicKey {
  KeyId id{};
  Ed25519Key key{};
};

struct DetachedSignature {
  bool prehashed = true;  // of the file's BLAKE2b-512 ("ED"); otherwise of the file itself ("Ed")
  KeyId key_id{};
  Ed25519Signature of_file{};
  Ed25519Signature of_comment{};  // of of_file and the comment
  std::string comment;            // the trusted one
};

// Two lines: a comment, and base64 of "Ed", key id and key. Throws Error trust_bad_value.
PublicKey parse_public_key(const std::string& text, const std::string& where);
// Four lines, each ended by "\n": kUntrustedComment, base64 of algorithm, key id and signature, the trusted comment,
// base64 of the second signature. Exactly one text is one signature. Throws Error signature_malformed.
DetachedSignature parse_signature(const std::string& text, const std::string& where);
constexpr const char* kUntrustedComment = "untrusted comment: signature from minisign secret key";

// Whether the key signed this file and the comment.
bool verify(const PublicKey& key, const DetachedSignature& signature, const std::string& file);

}  // namespace imkd
