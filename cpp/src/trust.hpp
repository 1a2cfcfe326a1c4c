// Whose bundles are loaded: folders of public keys, and how a bundle without a signature is treated.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "imkd/bundle.hpp"
#include "minisign.hpp"

namespace imkd {

constexpr const char* kTrustVariable = "IMKD_EDGE_TRUST";
constexpr const char* kSignatureFile = "manifest.json.minisig";
constexpr std::uintmax_t kMaxSignature = 1 << 14;                   // bytes; minisign allows 8 KiB of comment
constexpr std::int64_t kMaxRevision = (std::int64_t{1} << 53) - 1;  // every reader of JSON holds it exactly

// What the caller and the environment variable ask for. Both are obeyed: neither can loosen the other.
class Trust {
 public:
  // Reads the folders of keys. option: as DetectorOptions::trust. Throws Error trust_bad_value.
  explicit Trust(const std::string& option);
  // Compares a manifest with its signature, before anything of it is parsed; signature empty: there is no file.
  // Throws Error bundle_unsigned, signature_*.
  Signature check(const std::string& manifest, const std::optional<std::string>& signature,
                  const std::string& where) const;
  // Throws Error bundle_rolled_back.
  void check_revision(std::int64_t revision, const std::string& where) const;

 private:
  struct Signer {
    std::string name;  // of its file, without .pub
    PublicKey key;
  };
  struct Ring {  // one folder
    std::string folder;
    bool require = false;
    std::vector<Signer> signers;
    std::int64_t least_revision = 0;
  };
  static Ring read_ring(const std::string& text, const std::string& origin);
  static const Signer& signer_of(const Ring& ring, const DetachedSignature& signature, const std::string& manifest,
                                 const std::string& where);
  std::vector<Ring> rings_;
};

}  // namespace imkd
