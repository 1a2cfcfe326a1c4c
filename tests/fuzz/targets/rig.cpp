// The JSON of a rig, and what the detector makes of it: lookup tables, and a frame where its images are small.
#include "imkd/rig.hpp"

#include "fakes.hpp"
#include "imkd/coverage.hpp"
#include "json_mutator.hpp"
#include "target.hpp"

using namespace imkd;

static void detect(const SensorRig& rig) {
  static Detector detector = [] {
    DetectorOptions options;
    options.threads = 1;
    return Detector(fakes::small_spec(), fakes::small_rig(), fakes::camera_engine(), fakes::bev_engine(), options);
  }();
  detector.set_rig(rig);
  std::size_t pixels = 0;
  for (const CameraCalibration& camera : rig.cameras)
    pixels += static_cast<std::size_t>(camera.width) * static_cast<std::size_t>(camera.height);
  if (pixels > 100'000 || rig.radars.size() > 8) return;
  const fakes::Moment moment = fakes::moment(rig, 1, 20);
  const Result& result = detector.infer(moment.frames);
  for (const Detection& d : result.detections) fuzz::require(std::isfinite(d.x + d.y + d.z + d.yaw), "a box is finite");
}

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  SensorRig rig;
  if (!fuzz::accepted([&] { rig = SensorRig::from_json(fuzz::text(data, size)); })) return 0;
  const std::string text = rig.to_json();
  fuzz::require(SensorRig::from_json(text).to_json() == text, "a rig survives writing and reading");
  fuzz::accepted([&] { detect(rig); });
  return 0;
}
