// Times the C++ Detector for tests/python_overhead.py: frame_times BUNDLE.imkd RIG.json FRAME THREADS. The folder FRAME
// has CAMERA.rgb and RADAR.bin as cpp/examples/embed reads them. Each byte on standard input is one infer, which prints
// a line with its ns and boxes.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "imkd/detector.hpp"
#include "imkd/error.hpp"

using Bytes = std::vector<char>;

static Bytes read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

int main(int argc, char** argv) try {
  if (argc != 5) return std::fprintf(stderr, "usage: frame_times BUNDLE.imkd RIG.json FRAME THREADS\n"), 2;
  const imkd::SensorRig rig = imkd::SensorRig::load(argv[2]);
  imkd::DetectorOptions options;
  options.device = "cpu";
  options.threads = std::atoi(argv[4]);
  imkd::Detector detector = imkd::Detector::load(argv[1], rig, options);
  const std::string folder = std::string(argv[3]) + "/";

  std::vector<Bytes> files;  // viewed below
  files.reserve(rig.cameras.size() + rig.radars.size());
  imkd::FrameSet frames;
  for (const imkd::CameraCalibration& camera : rig.cameras) {
    const Bytes& pixels = files.emplace_back(read(folder + camera.name + ".rgb"));
    if (pixels.size() != std::size_t(camera.width) * camera.height * 3)
      return std::fprintf(stderr, "%s\n", camera.name.c_str()), 2;
    const auto* data = reinterpret_cast<const std::uint8_t*>(pixels.data());
    frames.cameras.push_back({data, camera.width, camera.height, camera.width * 3});
  }
  for (std::size_t i = 0; i < rig.radars.size(); ++i) {
    const Bytes& points = files.emplace_back(read(folder + rig.radars[i].name + ".bin"));
    const int count = static_cast<int>(points.size() / (5 * sizeof(float)));
    if (count)
      frames.sweeps.push_back({static_cast<int>(i), 0, reinterpret_cast<const float*>(points.data()), count, {}});
  }
  while (std::getchar() != EOF) {
    const auto started = std::chrono::steady_clock::now();
    const imkd::Result& result = detector.infer(frames);
    const std::chrono::nanoseconds taken = std::chrono::steady_clock::now() - started;
    std::printf("%lld %zu\n", static_cast<long long>(taken.count()), result.detections.size());
    std::fflush(stdout);
  }
} catch (const imkd::Error& error) {
  return std::fprintf(stderr, "%s\n", error.what()), 4;
}
