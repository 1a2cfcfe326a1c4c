// A bundle of small_spec() on disk whose engines are the fakes. Linked in place of src/engine/engine.cpp, so that
// Detector::load and the C ABI run without ONNX Runtime: include it in one file of a program.
#pragma once
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "fakes.hpp"
#include "sha256.hpp"

namespace imkd {
namespace fakes {

class EngineOfFile : public Engine {  // camera.onnx or bev.onnx
 public:
  std::string name() const override { return "fake"; }
  void load(const std::string& path) override {
    engine_ = std::filesystem::path(path).filename() == "camera.onnx" ? camera_engine() : bev_engine();
  }
  std::vector<TensorInfo> inputs() const override { return engine_->inputs(); }
  std::vector<TensorInfo> outputs() const override { return engine_->outputs(); }
  void bind(const std::string& tensor, std::shared_ptr<void> data) override { engine_->bind(tensor, data); }
  void run(void* stream) override { engine_->run(stream); }

 private:
  std::shared_ptr<FakeEngine> engine_;
};

inline void write_bundle(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  std::string files;
  for (const std::string name : {"camera.onnx", "bev.onnx", "golden.npz"}) {
    std::ofstream(folder / name) << name;
    files += (files.empty() ? "\"" : ",\"") + name + "\":{\"bytes\":" + std::to_string(name.size()) + ",\"sha256\":\"" +
             sha256_hex(name.data(), name.size()) + "\"}";
  }
  std::ofstream(folder / "manifest.json") << "{\"schema\":1,\"spec\":" << small_spec().to_json() << ",\"files\":{"
                                          << files << "},\"metrics\":{},\"provenance\":{}}";
}

}  // namespace fakes

const char* name_of(Type type) {
  return type == Type::float32 ? "float32" : type == Type::float16 ? "float16" : "int8";
}
std::vector<std::string> native_engines() { return {"fake"}; }
std::unique_ptr<Engine> make_engine(const std::string&, int) { return std::make_unique<fakes::EngineOfFile>(); }

}  // namespace imkd
