// Sensors -> Synchronizer -> Detector -> boxes, as in a vehicle's software: embed BUNDLE.imkd RIG.json FRAME
// FRAME is a folder with one CAMERA.rgb (rows of 8-bit RGB, as large as the rig says) per camera and one RADAR.bin
// (float32 rows x, y, z, intensity, velocity) per radar.
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <thread>

#include "imkd/detector.hpp"
#include "imkd/error.hpp"
#include "imkd/monitor.hpp"
#include "imkd/synchronizer.hpp"

using Bytes = std::vector<char>;

static std::int64_t now() {  // ns, on the clock of the sensors' timestamps
  return std::chrono::nanoseconds(std::chrono::system_clock::now().time_since_epoch()).count();
}

static std::shared_ptr<Bytes> read(const std::string& path) {  // empty where there is no file
  std::ifstream file(path, std::ios::binary);
  return std::make_shared<Bytes>(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

int main(int argc, char** argv) try {
  if (argc != 4) return std::fprintf(stderr, "usage: embed BUNDLE.imkd RIG.json FRAME\n"), 2;
  const imkd::SensorRig rig = imkd::SensorRig::load(argv[2]);
  imkd::Detector detector = imkd::Detector::load(argv[1], rig);
  imkd::Synchronizer synchronizer(rig, detector.spec());
  imkd::Watchdog watchdog(1.0, [](double seconds) { std::fprintf(stderr, "no result for %.1f s\n", seconds); });

  // In a vehicle each sensor's driver does this on its own thread. The buffers are shared, not copied.
  const std::int64_t time = now();
  for (int i = 0; i < static_cast<int>(rig.cameras.size()); ++i) {
    const imkd::CameraCalibration& camera = rig.cameras[i];
    const auto pixels = read(std::string(argv[3]) + "/" + camera.name + ".rgb");
    if (pixels->size() != std::size_t(camera.width) * camera.height * 3) continue;  // no image, or a truncated one
    const auto* data = reinterpret_cast<const std::uint8_t*>(pixels->data());
    synchronizer.push_camera(i, {data, camera.width, camera.height, camera.width * 3}, time, now(), pixels);
  }
  for (int i = 0; i < static_cast<int>(rig.radars.size()); ++i) {
    const auto points = read(std::string(argv[3]) + "/" + rig.radars[i].name + ".bin");
    const int count = static_cast<int>(points->size() / (5 * sizeof(float)));
    if (count)
      synchronizer.push_radar({i, time, reinterpret_cast<const float*>(points->data()), count, {}}, now(), points);
  }

  std::optional<imkd::LiveFrame> frame;  // ready at once, or after the timeout if a sensor is missing
  for (const std::int64_t end = time + 1'000'000'000; !(frame = synchronizer.pop(now())) && now() < end;)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  if (!frame) return std::fprintf(stderr, "no frame: no sensor delivered anything\n"), 1;
  const imkd::Result& result = detector.infer(frame->frames);
  watchdog.beat();
  for (const imkd::Detection& d : result.detections)
    std::printf("%s %.6g %.6g %.6g %.6g %.6g\n", detector.spec().head.classes[d.label].name.c_str(), d.score, d.x, d.y,
                d.z, d.yaw);
} catch (const imkd::Error& error) {
  return std::fprintf(stderr, "%s\n", error.what()), 4;
}
