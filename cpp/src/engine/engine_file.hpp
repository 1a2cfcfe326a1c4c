// NAME.engine and the NAME.engine.json beside it, as `imkd-edge build-engine` writes them: an engine built elsewhere is
// never loaded.
#pragma once
#include <string>

namespace imkd {

struct Machine {         // what runs here; compared with what the engine was built for
  std::string tensorrt;  // of the library, "10.3.0"
  std::string cuda;      // that the driver implements, "12.6"
  std::string driver;    // of the kernel, "540.4.0"
  std::string gpu;       // "Orin"
  std::string sm;        // "87"
};

struct EngineFile {
  std::string path, bytes;
  int dla = -1;  // core that it was built for; -1: none
};

// Reads and checks an engine. Throws Error engine_stale with every reason why it must not run here, engine_load when it
// cannot be read.
//   path: NAME.engine, or FOLDER/NAME.imkd/PART.onnx, whose engine is FOLDER/NAME.engines/PART.engine and must come
//   from that ONNX file
EngineFile read_engine_file(const std::string& path, const Machine& machine);

// The kernel's driver, from files of its own; on a Jetson without the first the release of L4T, "R36.4.3"; else
// "unknown".
std::string driver_version(const std::string& driver_file = "/proc/driver/nvidia/version",
                           const std::string& tegra_file = "/etc/nv_tegra_release");

}  // namespace imkd
