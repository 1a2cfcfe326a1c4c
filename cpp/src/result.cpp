#include "imkd/result.hpp"

#include <algorithm>
#include <cstdio>

namespace imkd {

std::string code_name(WarningCode code) {
  char text[16];
  std::snprintf(text, sizeof text, "W%04d", static_cast<int>(code));
  return text;
}

Mode mode_of(const std::vector<SensorState>& cameras, const std::vector<SensorState>& radars) {
  const auto usable_cameras = std::count_if(cameras.begin(), cameras.end(), usable);
  const auto usable_radars = std::count_if(radars.begin(), radars.end(), usable);
  if (usable_cameras == 0) return usable_radars == 0 ? Mode::blind : Mode::radar_only;
  if (usable_radars == 0) return Mode::camera_only;
  const bool all =
      usable_cameras == static_cast<long>(cameras.size()) && usable_radars == static_cast<long>(radars.size());
  return all ? Mode::full : Mode::partial;
}

}  // namespace imkd
