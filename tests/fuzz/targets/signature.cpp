// The text files of minisign, a public key and a signature, and the file that it signs, with "\n----\n" between them.
#include "minisign.hpp"

#include "target.hpp"

using namespace imkd;

namespace {

// Takes the text up to the next separator from the front.
std::string next_part(std::string& rest) {
  static const std::string kSeparator = "\n----\n";
  const std::size_t end = rest.find(kSeparator);
  const std::string part = rest.substr(0, end);
  rest = end == std::string::npos ? "" : rest.substr(end + kSeparator.size());
  return part;
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string rest = fuzz::text(data, size);
  const std::string key_text = next_part(rest) + "\n", signature_text = next_part(rest) + "\n", file = rest;
  PublicKey key;
  DetachedSignature signature;
  const bool is_key = fuzz::accepted([&] { key = parse_public_key(key_text, "key"); });
  const bool is_signature = fuzz::accepted([&] { signature = parse_signature(signature_text, "signature"); });
  if (is_key) fuzz::require(key_id_text(key.id).size() == 16, "a key has an id");
  if (!is_key || !is_signature || !verify(key, signature, file)) return 0;
  // What is signed holds: a changed file, comment or signature does not.
  fuzz::require(!verify(key, signature, file + "x"), "another file is not signed");
  signature.comment += "x";
  fuzz::require(!verify(key, signature, file), "another comment is not signed");
  signature.comment.pop_back();
  signature.of_file[size % signature.of_file.size()] ^= 1;
  fuzz::require(!verify(key, signature, file), "another signature is not the key's");
  return 0;
}
