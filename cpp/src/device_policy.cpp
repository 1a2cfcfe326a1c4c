#include "imkd/detector.hpp"
#include "imkd/error.hpp"

namespace imkd {
namespace {

constexpr const char* kAuto = "auto";

}  // namespace

void check_device(const std::string& device, const std::string& where) {
  if (device == kAuto || device == "cpu" || device == "cuda") return;
  throw Error(Code::device_unavailable, "there is no device \"" + device + "\"", where,
              "use \"auto\", \"cpu\" or \"cuda\"");
}

DeviceChoice load_for_device(const std::string& device, const std::string& engine,
                             const std::function<void(const std::string& engine)>& load) {
  check_device(device, "device");
  const auto named_or = [&](const char* name) { return engine == kAuto ? name : engine; };
  if (device == "cuda") {
    require_cuda();
    load(named_or("tensorrt"));
    return {device, ""};
  }
  if (device == "cpu" || engine != kAuto) {
    load(named_or("onnxruntime"));
    return {device, ""};
  }

  // Both are "auto": the GPU first, the CPU where anything is missing for it.
  std::string why_not_cuda;
  try {
    require_cuda();
    load("tensorrt");
    return {"cuda", ""};
  } catch (const Error& error) {
    why_not_cuda = error.what();
  }
  load("onnxruntime");
  return {"cpu", why_not_cuda};
}

}  // namespace imkd
