#include "minisign.hpp"

#include <algorithm>
#include <optional>
#include <vector>

#include "imkd/error.hpp"

namespace imkd {
namespace {

constexpr std::size_t kAlgorithm = 2;  // bytes
constexpr const char* kTrustedComment = "trusted comment: ";

// Only the one canonical text of a value is read: no other alphabet, no space, no bit set behind the last byte.
std::optional<std::string> from_base64(const std::string& text) {
  static const std::string kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.size() % 4 != 0) return {};
  const std::size_t padding = text.size() - std::min(text.size(), text.find('='));
  if (padding > 2 || text.find_first_not_of('=', text.size() - padding) != std::string::npos) return {};
  std::string bytes;
  std::uint32_t bits = 0;
  int held = 0;
  for (std::size_t i = 0; i + padding < text.size(); ++i) {
    const std::size_t digit = kDigits.find(text[i]);
    if (digit == std::string::npos) return {};
    bits = (bits << 6 | static_cast<std::uint32_t>(digit)) & 0xffff;
    held += 6;
    if (held < 8) continue;
    held -= 8;
    bytes += static_cast<char>(bits >> held & 0xff);
  }
  if ((bits & ((1u << held) - 1)) != 0) return {};
  return bytes;
}

// The lines of a text whose every line ends in "\n"; empty for any other.
std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::size_t start = 0;
  for (std::size_t end; (end = text.find('\n', start)) != std::string::npos; start = end + 1)
    lines.push_back(text.substr(start, end - start));
  if (start != text.size()) lines.clear();
  return lines;
}

bool has_control_characters(const std::string& line) {
  return std::any_of(line.begin(), line.end(), [](unsigned char c) { return (c < 0x20 && c != '\t') || c == 0x7f; });
}

template <std::size_t size>
void copy(const std::string& bytes, std::size_t at, std::array<std::uint8_t, size>& target) {
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), size, target.begin());
}

}  // namespace

std::string key_id_text(const KeyId& id) {
  std::string text;
  for (std::size_t i = id.size(); i-- > 0;)
    for (int shift : {4, 0}) text += "0123456789ABCDEF"[id[i] >> shift & 15];
  return text;
}

PublicKey parse_public_key(const std::string& text, const std::string& where) {
  const std::vector<std::string> lines = lines_of(text);
  const std::optional<std::string> bytes = lines.size() == 2 ? from_base64(lines[1]) : std::nullopt;
  PublicKey key;
  if (!bytes || bytes->size() != kAlgorithm + key.id.size() + key.key.size() ||
      bytes->compare(0, kAlgorithm, "Ed") != 0)
    throw Error(Code::trust_bad_value, "is no public key of minisign", where,
                "copy the file that imkd-edge keygen or minisign -G wrote; it has two lines");
  copy(*bytes, kAlgorithm, key.id);
  copy(*bytes, kAlgorithm + key.id.size(), key.key);
  return key;
}

DetachedSignature parse_signature(const std::string& text, const std::string& where) {
  const auto malformed = [&](const std::string& what) {
    return Error(Code::signature_malformed, what, where, "sign the bundle again: imkd-edge export BUNDLE --sign KEY");
  };
  const std::vector<std::string> lines = lines_of(text);
  if (lines.size() != 4) throw malformed("has not exactly the four lines of a signature, each ended by a line feed");
  if (lines[0] != kUntrustedComment) throw malformed(std::string("does not begin with \"") + kUntrustedComment + "\"");
  if (lines[2].rfind(kTrustedComment, 0) != 0 || has_control_characters(lines[2]))
    throw malformed("the third line is no trusted comment");
  DetachedSignature signature;
  const std::optional<std::string> first = from_base64(lines[1]), second = from_base64(lines[3]);
  if (!first || first->size() != kAlgorithm + signature.key_id.size() + signature.of_file.size())
    throw malformed("the second line is not base64 of 74 bytes");
  if (!second || second->size() != signature.of_comment.size())
    throw malformed("the fourth line is not base64 of 64 bytes");
  const std::string algorithm = first->substr(0, kAlgorithm);
  if (algorithm != "ED" && algorithm != "Ed") throw malformed("the algorithm is neither \"ED\" nor \"Ed\"");
  signature.prehashed = algorithm == "ED";
  copy(*first, kAlgorithm, signature.key_id);
  copy(*first, kAlgorithm + signature.key_id.size(), signature.of_file);
  copy(*second, 0, signature.of_comment);
  signature.comment = lines[2].substr(std::string(kTrustedComment).size());
  return signature;
}

bool verify(const PublicKey& key, const DetachedSignature& signature, const std::string& file) {
  const std::string covered = std::string(signature.of_file.begin(), signature.of_file.end()) + signature.comment;
  return key.id == signature.key_id &&
         ed25519_verify(key.key, signature.of_file, signature.prehashed ? blake2b_512(file) : file) &&
         ed25519_verify(key.key, signature.of_comment, covered);
}

}  // namespace imkd
