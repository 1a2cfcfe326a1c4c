// A contract that fakes.hpp's rig and moments fulfil, and what a test changes of them.
#pragma once
#include <string>
#include <vector>

#include "fakes.hpp"
#include "imkd/contract.hpp"

namespace imkd::fakes {

inline Contract small_contract() {
  Contract c;
  c.data = "fake, split train";
  c.frames = 100;
  c.cameras = {{2, 2}, {90, 90}, {80, 80}, {40, 40}, {Distortion::none}, {1, 1}};
  c.radars = {{2, 2}, {RadialVelocity::compensated}, IntensityUnit::rcs_dbsm, {-9.5, 29.5}, {150, 250}, 13, {0, 0.5}};
  c.classes = {{"car", 10, {4.5, 1.8, 1.5}}, {"pedestrian", 0, {0, 0, 0}}};
  c.trained.velocity = true;
  return c;
}

struct Setting {
  ModelSpec spec = small_spec();
  SensorRig rig = small_rig();
  Contract contract = small_contract();
  float intensity = 0;  // dB added to every point
  float shift = 0;      // m added to every x
};

// A moment of the setting's rig, `index` apart from the first in time and content.
inline Moment moment_of(const Setting& setting, int index, bool changed = true) {
  Moment m = moment(setting.rig, 1 + static_cast<unsigned>(index));
  for (auto& sweep : m.points)
    for (std::size_t i = 0; i < sweep.size(); i += 5) {
      if (changed) sweep[i] += setting.shift;
      if (changed) sweep[i + 3] += setting.intensity;
    }
  const std::int64_t later = 100'000'000LL * index;
  m.frames.timestamp_ns += later;
  for (RadarSweep& sweep : m.frames.sweeps) sweep.timestamp_ns += later;
  return m;
}

inline std::vector<std::string> codes_of(const Health& health) {
  std::vector<std::string> codes;
  for (const Warning& warning : health.warnings) codes.push_back(code_name(warning.code));
  return codes;
}

}  // namespace imkd::fakes
