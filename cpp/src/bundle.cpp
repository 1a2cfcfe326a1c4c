#include "imkd/bundle.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <system_error>
#include <vector>

#include "imkd/error.hpp"
#include "json.hpp"
#include "onnx_external.hpp"
#include "sha256.hpp"
#include "trust.hpp"

namespace fs = std::filesystem;

namespace imkd {
namespace {

using json::Json;

constexpr std::uintmax_t kMaxManifest = 1 << 20;  // bytes
constexpr std::size_t kBlock = 1 << 16;           // bytes hashed at a time
constexpr const char* kAgain = "export or copy the bundle again";
const char* const kRequired[] = {"camera.onnx", "bev.onnx", "golden.npz"};

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

// Calls use(bytes, size) for each block of the file; stops after at most `limit` bytes.
template <class Use>
void read_blocks(const fs::path& path, std::uintmax_t limit, Use&& use) {
  File file(std::fopen(path.c_str(), "rb"), &std::fclose);
  if (!file)
    throw Error(Code::bundle_missing_file, "cannot be opened: " + std::generic_category().message(errno), path.string(),
                "make the file readable for this process");
  std::vector<char> block(kBlock);
  while (limit > 0) {
    const std::size_t got =
        std::fread(block.data(), 1, static_cast<std::size_t>(std::min<std::uintmax_t>(limit, kBlock)), file.get());
    use(block.data(), got);
    limit -= got;
    if (got == 0) break;
  }
  if (std::ferror(file.get()))
    throw Error(Code::bundle_missing_file, "cannot be read to its end", path.string(), kAgain);
}

// The size of a file in bytes; throws unless it is a regular file of the folder, after links are resolved.
std::uintmax_t checked_size(const fs::path& folder, const std::string& name) {
  const fs::path path = folder / name;
  std::error_code failed;
  const fs::path real = fs::canonical(path, failed);
  if (failed) throw Error(Code::bundle_missing_file, name + " is missing: " + failed.message(), path.string(), kAgain);
  if (real.parent_path() != folder)
    throw Error(Code::bundle_bad_path, "is a link to " + real.string() + ", outside the bundle", path.string(),
                "replace the link by the file");
  const std::uintmax_t size =
      fs::is_regular_file(real, failed) ? fs::file_size(real, failed) : static_cast<std::uintmax_t>(-1);
  if (failed || size == static_cast<std::uintmax_t>(-1))
    throw Error(Code::bundle_missing_file, name + " is not a regular file", path.string(), kAgain);
  return size;
}

// A plain file name: a bundle is one flat folder, no name may lead out of it.
bool plain_name(const std::string& name) {
  constexpr const char* kAllowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  return !name.empty() && name.size() <= 255 && name.find_first_not_of(kAllowed) == std::string::npos &&
         name[0] != '.' && name != "manifest.json" && name != kSignatureFile;
}

void check_object(const Json& value, const std::string& where) {
  if (!value.is_object()) throw Error(Code::bundle_manifest, "must be an object", where, kAgain);
}

// The version first: a manifest of another version may have other keys.
void check_shape(const Json& manifest) {
  if (!manifest.contains("schema"))
    throw Error(Code::bundle_missing_key, "the key \"schema\" is missing", "schema", kAgain);
  const Json& schema = manifest["schema"];
  if (!schema.is_number_integer() || schema != Bundle::kVersion)
    throw Error(Code::bundle_version, "is " + schema.dump() + ", this build reads " + std::to_string(Bundle::kVersion),
                "schema", "update imkd_edge, or export the bundle again with this version");
  json::check_keys(manifest, {"schema", "spec", "files", "metrics", "provenance", "contract", "revision"},
                   {json::kBundleCodes, ""}, {"contract", "revision"});
  for (const char* key : {"spec", "files", "metrics", "provenance"}) check_object(manifest[key], key);
  for (const char* name : kRequired)
    if (!manifest["files"].contains(name))
      throw Error(Code::bundle_missing_key, std::string("names no ") + name, "files", kAgain);
}

// The bundle's code for an error of its spec.
Code bundle_code(Code code) {
  switch (code) {
    case Code::spec_syntax:
      return Code::bundle_manifest;
    case Code::spec_unknown_key:
      return Code::bundle_unknown_key;
    case Code::spec_missing_key:
      return Code::bundle_missing_key;
    case Code::spec_version:
      return Code::bundle_version;
    default:
      return Code::bundle_bad_value;
  }
}

ModelSpec read_spec(const Json& spec, const std::string& path) {
  try {
    return ModelSpec::from_json(spec.dump());
  } catch (const Error& error) {
    throw Error(bundle_code(error.code()), error.problem(),
                path + ": spec" + (error.where().empty() ? "" : "." + error.where()),
                error.fix().empty() ? kAgain : error.fix());
  }
}

// Null or absent: a bundle that was made before contracts.
std::optional<Contract> read_contract(const Json& manifest, const ModelSpec& spec, const std::string& path) {
  if (!manifest.contains("contract") || manifest["contract"].is_null()) return {};
  try {
    check_object(manifest["contract"], "");
    Contract contract = Contract::from_json(manifest["contract"].dump());
    contract.check(spec);
    return contract;
  } catch (const Error& error) {
    throw Error(error.code(), error.problem(), path + ": contract" + (error.where().empty() ? "" : "." + error.where()),
                "measure it again with imkd-edge contract");
  }
}

Json read_manifest(const std::string& text, const std::string& path) {
  try {
    const Json manifest = json::parse(text, json::kBundleCodes);
    check_shape(manifest);
    return manifest;
  } catch (const Error& error) {
    throw Error(error.code(), error.problem(), path + (error.where().empty() ? "" : ": " + error.where()), error.fix());
  }
}

// The size and SHA-256 of a file, as its entry in the manifest lists them.
struct Listed {
  std::uintmax_t bytes = 0;
  std::string sha256;
};

Listed read_entry(const std::string& name, const Json& entry, const std::string& where) {
  if (!plain_name(name))
    throw Error(Code::bundle_bad_path, "\"" + name.substr(0, 80) + "\" is not a plain file name", where,
                "use letters, digits, '.', '_' and '-' only, no folder, no leading dot");
  const std::string at = where + "." + name;
  check_object(entry, at);
  json::check_keys(entry, {"sha256", "bytes"}, {json::kBundleCodes, at});
  const Json &sha = entry["sha256"], &bytes = entry["bytes"];
  if (!sha.is_string() || sha.get<std::string>().size() != 64 ||
      sha.get<std::string>().find_first_not_of("0123456789abcdef") != std::string::npos)
    throw Error(Code::bundle_bad_value, "sha256 must be 64 hex digits in lower case", at, kAgain);
  if (!bytes.is_number_unsigned()) throw Error(Code::bundle_bad_value, "bytes must be a whole number >= 0", at, kAgain);
  return {bytes.get<std::uintmax_t>(), sha.get<std::string>()};
}

// Reads a file once, and throws where it is not the listed one; returns its content if it is to be kept.
std::string read_checked(const fs::path& folder, const std::string& name, const Listed& listed, bool keep) {
  const std::uintmax_t size = checked_size(folder, name);
  if (size != listed.bytes)
    throw Error(Code::bundle_checksum,
                "has " + std::to_string(size) + " bytes, the manifest lists " + std::to_string(listed.bytes),
                (folder / name).string(), kAgain);
  Sha256 hash;
  std::string content;
  read_blocks(folder / name, size, [&](const char* data, std::size_t count) {
    hash.update(data, count);
    if (keep) content.append(data, count);
  });
  const std::string digest = hash.hex();
  if (digest != listed.sha256)
    throw Error(Code::bundle_checksum,
                "has SHA-256 " + digest.substr(0, 12) + "…, the manifest lists " + listed.sha256.substr(0, 12) + "…",
                (folder / name).string(), kAgain);
  return content;
}

void check_file(const fs::path& folder, const std::string& name, const Json& entry, const std::string& where) {
  const bool onnx = fs::path(name).extension() == ".onnx";
  const std::string part = read_checked(folder, name, read_entry(name, entry, where), onnx);
  if (const char* fault = external_tensors(part.data(), part.size()))
    throw Error(Code::bundle_bad_path, fault, (folder / name).string(),
                "export the model with its tensors inside the file");
}

std::int64_t read_revision(const Json& manifest, const std::string& where) {
  if (!manifest.contains("revision")) return 0;
  const Json& revision = manifest["revision"];
  if (!revision.is_number_unsigned() || revision.get<std::uint64_t>() > std::uint64_t{kMaxRevision})
    throw Error(Code::bundle_bad_value, "must be a whole number from 0 to " + std::to_string(kMaxRevision),
                where + ": revision", "sign the bundle with another --revision");
  return revision.get<std::int64_t>();
}

std::string read_small(const fs::path& folder, const char* name, std::uintmax_t limit, Code too_large) {
  const std::uintmax_t size = checked_size(folder, name);
  if (size > limit)
    throw Error(too_large, "has " + std::to_string(size) + " bytes, more than " + std::to_string(limit),
                (folder / name).string(), kAgain);
  std::string text;
  read_blocks(folder / name, limit, [&](const char* data, std::size_t count) { text.append(data, count); });
  return text;
}

std::optional<std::string> read_signature(const fs::path& folder) {
  std::error_code failed;
  if (!fs::exists(fs::symlink_status(folder / kSignatureFile, failed))) return {};
  return read_small(folder, kSignatureFile, kMaxSignature, Code::signature_malformed);
}

// Every file of the folder must be in the manifest, so that a checksum covers it.
void check_nothing_else(const fs::path& folder, const Json& files) {
  std::error_code failed;
  for (fs::directory_iterator entry(folder, failed), end; !failed && entry != end; entry.increment(failed)) {
    const std::string name = entry->path().filename().string();
    if (name != "manifest.json" && name != kSignatureFile && !files.contains(name))
      throw Error(Code::bundle_unknown_key, "the manifest does not list the file " + name, folder.string(),
                  "remove it, or list it under \"files\"");
  }
  if (failed)
    throw Error(Code::bundle_missing, "cannot be listed: " + failed.message(), folder.string(),
                "make the folder readable for this process");
}

}  // namespace

Bundle Bundle::load(const std::string& path, const std::string& trust) {
  const Trust trusted(trust);
  std::error_code failed;
  const fs::path folder = fs::canonical(path, failed);
  if (failed || !fs::is_directory(folder, failed))
    throw Error(Code::bundle_missing, "there is no bundle folder" + (failed ? ": " + failed.message() : ""), path,
                "give the path of a folder NAME.imkd that holds manifest.json");
  const std::string where = (folder / "manifest.json").string();

  Bundle bundle;
  bundle.path = folder.string();
  bundle.manifest = read_small(folder, "manifest.json", kMaxManifest, Code::bundle_manifest);
  // Before anything is parsed; every other file is held against these bytes.
  bundle.signature = trusted.check(bundle.manifest, read_signature(folder), (folder / kSignatureFile).string());
  const Json manifest = read_manifest(bundle.manifest, where);
  bundle.revision = read_revision(manifest, where);
  trusted.check_revision(bundle.revision, where);
  bundle.spec = read_spec(manifest["spec"], where);
  bundle.contract = read_contract(manifest, bundle.spec, where);
  const Json& files = manifest["files"];
  for (const auto& [name, entry] : files.items()) check_file(folder, name, entry, where + ": files");
  check_nothing_else(folder, files);
  return bundle;
}

std::string Bundle::file(const std::string& name) const {
  const Json files = Json::parse(manifest)["files"];
  if (!files.contains(name))
    throw Error(Code::bundle_missing_file, "the bundle has no file " + name, path,
                "see \"files\" in its manifest.json");
  return (fs::path(path) / name).string();
}

std::string Bundle::read(const std::string& name) const {
  const fs::path folder = fs::path(file(name)).parent_path();
  return read_checked(folder, name, read_entry(name, Json::parse(manifest)["files"][name], path), true);
}

}  // namespace imkd
