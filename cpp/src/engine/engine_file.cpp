#include "engine_file.hpp"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>

#include "json.hpp"
#include "sha256.hpp"

namespace imkd {
namespace {

namespace fs = std::filesystem;
constexpr json::Codes kCodes{Code::engine_stale, Code::engine_stale, Code::engine_stale, Code::engine_stale};
constexpr const char* kBuild = "run imkd-edge build-engine BUNDLE on this machine, as the user that runs the engine";

std::optional<std::string> content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  try {
    return std::string(std::istreambuf_iterator<char>(file), {});
  } catch (const std::ios_base::failure&) {  // a folder, or a failing disk
    return std::nullopt;
  }
}

std::string must_read(const fs::path& path) {
  if (std::optional<std::string> bytes = content(path)) return *std::move(bytes);
  throw Error(Code::engine_load, path.filename().string() + " is missing or cannot be read", path.string(), kBuild);
}

std::string sha256_of(const std::string& bytes) { return sha256_hex(bytes.data(), bytes.size()); }

bool others_can_write(const fs::path& path) {
  constexpr fs::perms kOthers = fs::perms::group_write | fs::perms::others_write;
  std::error_code failed;
  const fs::file_status status = fs::status(path, failed);
  return failed || (status.permissions() & kOthers) != fs::perms::none;
}

// "tensorrt 10.3.0.26" matches library 10.3.0: the package's version has a build number, the library's has none.
bool same_tensorrt(const std::string& built, const std::string& library) {
  const std::string version = "tensorrt " + library;
  return built == version || built.rfind(version + ".", 0) == 0;
}

class Differences {  // between the engine's build and this machine
 public:
  void add(const std::string& reason) { text_ += (text_.empty() ? "" : "; ") + reason; }
  void expect(const char* name, const std::string& here, const std::string& built) {
    if (here != built) differs(name, here, built);
  }
  void differs(const char* name, const std::string& here, const std::string& built) {
    add(std::string(name) + " is \"" + here + "\", the engine's \"" + built + "\"");
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// The contents of NAME.engine.json; no key missing or unknown.
struct Record {
  json::Json key;
  json::Json flags;
  std::string sha256;
  int dla = -1;
};

std::string text_of(const json::Json& object, const char* name) {
  std::string value;
  json::read(object.at(name), value, json::At{kCodes, name});
  return value;
}

Record read_record(const fs::path& path) {
  const json::Json json = json::parse(must_read(path), kCodes);
  const json::At at{kCodes, ""};
  json::check_keys(json, {"key", "engine"}, at);
  json::check_keys(json["key"], {"onnx_sha256", "tensorrt", "cuda", "driver", "gpu", "sm", "flags"}, at.key("key"));
  json::check_keys(json["engine"], {"sha256", "bytes"}, at.key("engine"));
  json::check_keys(json["key"]["flags"], {"dla", "io", "precision", "workspace_mb"}, at.key("key.flags"));
  Record record{json["key"], json["key"]["flags"], text_of(json["engine"], "sha256"), -1};
  if (!record.flags["dla"].is_null()) json::read(record.flags["dla"], record.dla, at.key("key.flags.dla"));
  return record;
}

fs::path engine_of(const fs::path& onnx) {
  const fs::path bundle = fs::absolute(onnx).parent_path();
  return bundle.parent_path() / (bundle.stem().string() + ".engines") / (onnx.stem().string() + ".engine");
}

// "NVRM version: NVIDIA UNIX ... Kernel Module ... 580.82.07  ..."
std::string kernel_module(const std::string& text) {
  const std::size_t start = text.find("Kernel Module");
  if (start == std::string::npos) return {};
  std::istringstream words(text.substr(start));
  for (std::string word; words >> word;)
    if (word.find('.') != std::string::npos && word.find_first_not_of("0123456789.") == std::string::npos) return word;
  return {};
}

// "# R36 (release), REVISION: 4.3, ..."
std::string tegra_release(const std::string& text) {
  int release = 0;
  char revision[16] = {};
  if (std::sscanf(text.c_str(), "# R%d (release), REVISION: %15[0-9.]", &release, revision) != 2) return {};
  return "R" + std::to_string(release) + "." + revision;
}

}  // namespace

EngineFile read_engine_file(const std::string& path, const Machine& machine, const std::optional<std::string>& onnx) {
  const bool is_onnx = fs::path(path).extension() == ".onnx";
  const fs::path engine = is_onnx ? engine_of(path) : fs::path(path);
  EngineFile file{engine.string(), must_read(engine), -1};
  const fs::path record_path = engine.string() + ".json";
  Differences differences;
  if (others_can_write(engine)) differences.add("other users can change it");
  try {
    const Record record = read_record(record_path);
    if (is_onnx)
      differences.expect("onnx_sha256", sha256_of(onnx ? *onnx : must_read(path)), text_of(record.key, "onnx_sha256"));
    const std::string tensorrt = text_of(record.key, "tensorrt");
    if (!same_tensorrt(tensorrt, machine.tensorrt))
      differences.differs("tensorrt", "tensorrt " + machine.tensorrt, tensorrt);
    differences.expect("cuda", machine.cuda, text_of(record.key, "cuda"));
    differences.expect("driver", machine.driver, text_of(record.key, "driver"));
    differences.expect("gpu", machine.gpu, text_of(record.key, "gpu"));
    differences.expect("sm", machine.sm, text_of(record.key, "sm"));
    if (sha256_of(file.bytes) != record.sha256)
      differences.add("its SHA-256 is not the one in " + record_path.filename().string());
    file.dla = record.dla;
  } catch (const Error& error) {
    if (error.code() != Code::engine_stale) throw;
    differences.add(record_path.filename().string() + " cannot be read: " + error.problem());
  }
  if (!differences.text().empty()) throw Error(Code::engine_stale, differences.text(), engine.string(), kBuild);
  return file;
}

std::string driver_version(const std::string& driver_file, const std::string& tegra_file) {
  std::string version = kernel_module(content(driver_file).value_or(""));
  if (version.empty()) version = tegra_release(content(tegra_file).value_or(""));
  return version.empty() ? "unknown" : version;
}

}  // namespace imkd
