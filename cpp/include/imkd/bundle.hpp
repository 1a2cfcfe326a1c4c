// Bundle: a folder with manifest.json, camera.onnx, bev.onnx and golden.npz; every byte is checked on load.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "imkd/contract.hpp"
#include "imkd/spec.hpp"

namespace imkd {

// What Bundle::load found out from manifest.json.minisig, a signature of the manifest in minisign's format.
struct Signature {
  bool present = false;
  bool checked = false;  // a folder of trusted keys was named; a signature that is present is then valid
  std::string key_id;    // as minisign prints it; without `checked` only claimed; empty without a signature
  std::string signer;    // name of that key's file in the folder, without .pub; empty unless checked
  std::string comment;   // signed, too; empty unless checked
};

struct Bundle {
  static constexpr int kVersion = 1;
  std::string path;  // the folder
  ModelSpec spec;
  std::optional<Contract> contract;  // empty: the bundle was made before contracts
  std::int64_t revision = 0;         // rises with every bundle that is given to vehicles; 0: none in the manifest
  Signature signature;
  // JSON text: {"schema":1,"spec":{},"contract":{}|null,"revision":n (may be absent),"files":{name:{"sha256","bytes"}},
  // "metrics":{},"provenance":{}}
  std::string manifest;
  // Absolute path of a file; throws Error bundle_missing_file for a name that is not in the manifest.
  std::string file(const std::string& name) const;
  // The content of a file, checked again: what was put in its place since load throws Error bundle_checksum.
  std::string read(const std::string& name) const;
  // Checks the signature, then the name, size and SHA-256 of every file; throws Error 4xx.
  //   trust: as DetectorOptions::trust
  static Bundle load(const std::string& path, const std::string& trust = {});
};

}  // namespace imkd
