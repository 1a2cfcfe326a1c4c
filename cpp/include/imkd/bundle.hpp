// Bundle: a folder with manifest.json, camera.onnx, bev.onnx and golden.npz; every byte is checked on load.
#pragma once
#include <string>

#include "imkd/spec.hpp"

namespace imkd {

struct Bundle {
  static constexpr int kVersion = 1;
  std::string path;  // the folder
  ModelSpec spec;
  std::string
      manifest;  // JSON text: {"schema":1,"spec":{},"files":{name:{"sha256","bytes"}},"metrics":{},"provenance":{}}
  std::string file(
      const std::string& name) const;  // absolute path; throws bundle_missing_file for a name not in the manifest
  static Bundle load(const std::string& path);  // throws Error 4xx; checks names, sizes and SHA-256 of every file
};

std::string sha256_hex(const void* data, std::size_t size);

}  // namespace imkd
