// A recording, frame by frame: stream BUNDLE.imkd RIG.json DRIVE
// DRIVE is a folder with one TIME_SENSOR.rgb (rows of 8-bit RGB, as large as the rig says) per image and one
// TIME_SENSOR.bin (float32 rows x, y, z, intensity, velocity) per radar sweep; TIME in ns.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>

#include "imkd/detector.hpp"
#include "imkd/error.hpp"
#include "imkd/synchronizer.hpp"

int main(int argc, char** argv) try {
  if (argc != 4) return std::fprintf(stderr, "usage: stream BUNDLE.imkd RIG.json DRIVE\n"), 2;
  const imkd::SensorRig rig = imkd::SensorRig::load(argv[2]);
  imkd::Detector detector = imkd::Detector::load(argv[1], rig);
  imkd::Synchronizer synchronizer(rig, detector.spec());
  const auto detect = [&](std::int64_t now) {
    while (const auto frame = synchronizer.pop(now))
      for (const imkd::Detection& d : detector.infer(frame->frames).detections)
        std::printf("%lld %s %.3f at %.2f %.2f %.2f m\n", static_cast<long long>(frame->frames.timestamp_ns),
                    detector.spec().head.classes[d.label].name.c_str(), d.score, d.x, d.y, d.z);
  };
  std::map<std::int64_t, std::vector<std::filesystem::path>> drive;
  for (const auto& item : std::filesystem::directory_iterator(argv[3]))
    drive[std::atoll(item.path().filename().c_str())].push_back(item.path());
  for (const auto& [time, items] : drive) {
    for (const auto& path : items) {
      std::ifstream file(path, std::ios::binary);
      const std::vector<char> data{std::istreambuf_iterator<char>(file), {}};
      const std::string stem = path.stem(), name = stem.substr(stem.find('_') + 1);
      if (const int i = rig.camera_index(name); i >= 0) {
        const int width = rig.cameras[i].width, height = rig.cameras[i].height;
        const auto* pixels = reinterpret_cast<const std::uint8_t*>(data.data());
        if (data.size() == std::size_t(width) * height * 3)  // else truncated: the camera is absent
          synchronizer.push_camera(i, {pixels, width, height, 3 * width}, time, time);
      } else {  // Error frame_unknown_sensor where the rig has no such radar
        const auto* points = reinterpret_cast<const float*>(data.data());
        synchronizer.push_radar({rig.radar_index(name), time, points, static_cast<int>(data.size() / 20), {}}, time);
      }
    }
    detect(time);
  }
  if (!drive.empty()) detect(drive.rbegin()->first + 100'000'000);  // what still waited for a sensor
} catch (const imkd::Error& error) {
  return std::fprintf(stderr, "%s\n", error.what()), 4;
} catch (const std::filesystem::filesystem_error& error) {
  return std::fprintf(stderr, "%s\n", error.what()), 4;
}
