// Bundle: a folder with manifest.json, camera.onnx, bev.onnx and golden.npz; every byte is checked on load.
#pragma once
#include <optional>
#include <string>

#include "imkd/contract.hpp"
#include "imkd/spec.hpp"

namespace imkd {

struct Bundle {
  static constexpr int kVersion = 1;
  std::string path;  // the folder
  ModelSpec spec;
  std::optional<Contract> contract;  // empty: the bundle was made before contracts
  // JSON text: {"schema":1,"spec":{},"contract":{}|null,"files":{name:{"sha256","bytes"}},"metrics":{},"provenance":{}}
  std::string manifest;
  // Absolute path of a file; throws Error bundle_missing_file for a name that is not in the manifest.
  std::string file(const std::string& name) const;
  // Checks the name, size and SHA-256 of every file; throws Error 4xx.
  static Bundle load(const std::string& path);
};

}  // namespace imkd
