// The C++ API on one frame: detect BUNDLE.imkd RIG.json FRAME
// FRAME is a folder with one CAMERA.ppm (binary P6, RGB, 8 bits) per camera and one RADAR.bin (float32 rows x, y, z,
// intensity, velocity) per radar, under the sensors' names. A sensor without a file is absent; without any file the
// exit code is 1.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>

#include "imkd/detector.hpp"
#include "imkd/error.hpp"

using Bytes = std::vector<char>;

static Bytes read(const std::string& path) {  // empty where there is no file
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

static imkd::ImageView ppm_view(const Bytes& bytes, const std::string& name) {
  imkd::ImageView view;
  if (bytes.empty()) return view;
  int header = 0;  // bytes up to the single white space before the pixels
  const std::string start(bytes.begin(), bytes.begin() + std::min<std::ptrdiff_t>(64, bytes.end() - bytes.begin()));
  const int numbers = std::sscanf(start.c_str(), "P6 %5d %5d 255%n", &view.width, &view.height, &header);
  if (numbers != 2 || header == 0 || view.width <= 0 || view.height <= 0 ||
      bytes.size() != header + 1 + 3ull * view.width * view.height)
    throw imkd::Error(imkd::Code::source_bad_image, "is no complete binary PPM image", name,
                      "write it as P6 with 8 bits");
  view.data = reinterpret_cast<const std::uint8_t*>(bytes.data()) + header + 1;
  view.row_stride = 3 * view.width;
  return view;
}

int main(int argc, char** argv) try {
  if (argc != 4) return std::fprintf(stderr, "usage: detect BUNDLE.imkd RIG.json FRAME\n"), 2;
  const imkd::SensorRig rig = imkd::SensorRig::load(argv[2]);
  imkd::Detector detector = imkd::Detector::load(argv[1], rig);
  const std::string folder = std::string(argv[3]) + "/";

  std::vector<Bytes> files;  // the views below point into these
  files.reserve(rig.cameras.size() + rig.radars.size());
  imkd::FrameSet frames;
  for (const auto& camera : rig.cameras) {
    files.push_back(read(folder + camera.name + ".ppm"));
    frames.cameras.push_back(ppm_view(files.back(), camera.name));
  }
  for (std::size_t i = 0; i < rig.radars.size(); ++i) {
    files.push_back(read(folder + rig.radars[i].name + ".bin"));
    const auto* points = reinterpret_cast<const float*>(files.back().data());
    const int count = static_cast<int>(files.back().size() / (5 * sizeof(float)));
    if (count) frames.sweeps.push_back({static_cast<int>(i), 0, points, count, {}});
  }

  if (std::all_of(files.begin(), files.end(), [](const Bytes& file) { return file.empty(); }))
    return std::fprintf(stderr, "%s has no CAMERA.ppm and no RADAR.bin of the rig's sensors\n", argv[3]), 1;

  const imkd::Result& result = detector.infer(frames);
  for (const imkd::Detection& d : result.detections)
    std::printf("%-12s %.3f  at %7.2f %7.2f %6.2f m  size %.2f %.2f %.2f m  yaw %6.3f\n",
                detector.spec().head.classes[d.label].name.c_str(), d.score, d.x, d.y, d.z, d.length, d.width, d.height,
                d.yaw);
  constexpr const char* kModes[] = {"full", "partial", "camera_only", "radar_only", "blind"};
  std::printf("%zu boxes in %.1f ms, mode %s\n", result.detections.size(), result.total_us / 1000,
              kModes[static_cast<int>(result.health.mode)]);
} catch (const imkd::Error& error) {
  return std::fprintf(stderr, "%s\n", error.what()), 4;
}
