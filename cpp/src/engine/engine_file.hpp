// NAME.engine and its NAME.engine.json, as `imkd-edge build-engine` writes them; an engine built for another machine is
// refused.
#pragma once
#include <optional>
#include <string>

namespace imkd {

struct Machine {         // this machine, compared with the one of the build
  std::string tensorrt;  // version of the library, "10.3.0"
  std::string cuda;      // version that the driver implements, "12.6"
  std::string driver;    // version of the kernel module, "540.4.0"
  std::string gpu;       // "Orin"
  std::string sm;        // "87"
};

struct EngineFile {
  std::string path;
  std::string bytes;
  int dla = -1;  // DLA core that it was built for; -1: none
};

// Reads and checks an engine. Throws Error engine_stale with every difference between build and machine, engine_load
// where it cannot be read. An engine is executable code: one that other users can change is stale.
//   path: NAME.engine, or FOLDER/NAME.imkd/PART.onnx, whose engine is FOLDER/NAME.engines/PART.engine and must be built
//   from that ONNX file
//   onnx: content of that ONNX file, where it was read before
EngineFile read_engine_file(const std::string& path, const Machine& machine,
                            const std::optional<std::string>& onnx = {});

// The version of the NVIDIA kernel driver; on a Jetson without driver_file the release of L4T, "R36.4.3"; else
// "unknown".
std::string driver_version(const std::string& driver_file = "/proc/driver/nvidia/version",
                           const std::string& tegra_file = "/etc/nv_tegra_release");

}  // namespace imkd
