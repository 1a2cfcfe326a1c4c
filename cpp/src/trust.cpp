#include "trust.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

#include "imkd/error.hpp"
#include "shared_library.hpp"

namespace fs = std::filesystem;

namespace imkd {
namespace {

constexpr std::uintmax_t kMaxKeyFile = 1 << 12;  // bytes
constexpr const char* kLeastRevision = "least_revision";
constexpr const char* kGrammar =
    "give a folder of public keys, as warn:FOLDER (the same as FOLDER) or require:FOLDER, or off";
constexpr const char* kSign = "sign it: imkd-edge export BUNDLE --sign KEY";

[[noreturn]] void refuse(const std::string& what, const fs::path& where, const std::string& fix) {
  throw Error(Code::trust_bad_value, what, where.string(), fix);
}

// A folder that every user can write would trust every user's key.
void check_protected(const fs::path& path) {
  std::error_code failed;
  const fs::file_status status = fs::status(path, failed);
  if (failed || !fs::exists(status)) refuse("cannot be read", path, kGrammar);
  if ((status.permissions() & fs::perms::others_write) != fs::perms::none)
    refuse("can be changed by every user", path, "chmod o-w " + path.string());
}

std::string read_small(const fs::path& path) {
  check_protected(path);
  std::error_code failed;
  const std::uintmax_t size = fs::is_regular_file(path, failed) ? fs::file_size(path, failed) : kMaxKeyFile + 1;
  if (failed || size > kMaxKeyFile)
    refuse("is no file of at most " + std::to_string(kMaxKeyFile) + " bytes", path, "remove it, or copy it again");
  std::ifstream file(path, std::ios::binary);
  std::string text(static_cast<std::size_t>(size), '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(size)))
    refuse("cannot be read", path, "make it readable for this user");
  return text;
}

// One whole number; a folder without the file allows every revision.
std::int64_t read_least_revision(const fs::path& path) {
  std::error_code failed;
  if (!fs::exists(fs::symlink_status(path, failed))) return 0;
  std::string text = read_small(path);
  if (!text.empty() && text.back() == '\n') text.pop_back();
  const bool number = !text.empty() && text.size() <= 16 && text.find_first_not_of("0123456789") == std::string::npos;
  if (!number || std::stoll(text) > kMaxRevision)
    refuse("is not one whole number from 0 to " + std::to_string(kMaxRevision), path, "echo 3 > " + path.string());
  return std::stoll(text);
}

bool take_prefix(std::string& text, const std::string& prefix) {
  const bool found = text.rfind(prefix, 0) == 0;
  if (found) text.erase(0, prefix.size());
  return found;
}

}  // namespace

Trust::Ring Trust::read_ring(const std::string& text, const std::string& origin) {
  Ring ring;
  ring.folder = text;
  ring.require = take_prefix(ring.folder, "require:");
  if (!ring.require) take_prefix(ring.folder, "warn:");
  std::error_code failed;
  if (!fs::is_directory(ring.folder, failed))
    refuse("\"" + ring.folder + "\" is no folder of public keys", origin, kGrammar);
  check_protected(ring.folder);
  for (fs::directory_iterator entry(ring.folder, failed), end; !failed && entry != end; entry.increment(failed)) {
    if (entry->path().extension() != ".pub") continue;
    ring.signers.push_back(
        {entry->path().stem().string(), parse_public_key(read_small(entry->path()), entry->path().string())});
  }
  if (failed) refuse("cannot be listed: " + failed.message(), ring.folder, "make it readable for this user");
  if (ring.signers.empty())
    refuse("holds no public key, a file NAME.pub", ring.folder, "copy the one that imkd-edge keygen wrote into it");
  std::sort(ring.signers.begin(), ring.signers.end(), [](const Signer& a, const Signer& b) { return a.name < b.name; });
  ring.least_revision = read_least_revision(fs::path(ring.folder) / kLeastRevision);
  return ring;
}

Trust::Trust(const std::string& option) {
  const std::pair<std::string, const char*> sources[] = {{environment_variable(kTrustVariable), kTrustVariable},
                                                         {option, "trust"}};
  for (const auto& [text, origin] : sources)
    if (!text.empty() && text != "off") rings_.push_back(read_ring(text, origin));
}

// The key of the folder that made the signature. Two keys may have one id, which is no secret.
const Trust::Signer& Trust::signer_of(const Ring& ring, const DetachedSignature& signature, const std::string& manifest,
                                      const std::string& where) {
  const std::string id = key_id_text(signature.key_id);
  bool known = false;
  for (const Signer& signer : ring.signers) {
    if (verify(signer.key, signature, manifest)) return signer;
    known = known || signer.key.id == signature.key_id;
  }
  if (!known)
    throw Error(Code::signature_unknown_key, "is signed with the key " + id + ", which is not in " + ring.folder, where,
                "sign it with a trusted key, or copy that key's NAME.pub into the folder if you trust its owner");
  throw Error(Code::signature_wrong, "is not what the key " + id + " signed: the manifest or its signature was changed",
              where, "copy the bundle again from where it was signed, and find out who changed it");
}

Signature Trust::check(const std::string& manifest, const std::optional<std::string>& signature,
                       const std::string& where) const {
  Signature result;
  result.checked = !rings_.empty();
  if (!signature) {
    for (const Ring& ring : rings_)
      if (ring.require)
        throw Error(Code::bundle_unsigned, "has no signature, which require:" + ring.folder + " asks for", where,
                    kSign);
    return result;
  }
  const DetachedSignature detached = parse_signature(*signature, where);
  result.present = true;
  result.key_id = key_id_text(detached.key_id);
  for (const Ring& ring : rings_) result.signer = signer_of(ring, detached, manifest, where).name;
  if (result.checked) result.comment = detached.comment;
  return result;
}

void Trust::check_revision(std::int64_t revision, const std::string& where) const {
  for (const Ring& ring : rings_)
    if (revision < ring.least_revision)
      throw Error(Code::bundle_rolled_back,
                  "is of revision " + std::to_string(revision) + ", allowed are " +
                      std::to_string(ring.least_revision) + " and later",
                  where, "copy the newest bundle, or lower " + (fs::path(ring.folder) / kLeastRevision).string());
}

}  // namespace imkd
