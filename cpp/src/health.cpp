#include "health.hpp"

#include <algorithm>

#include "ops/radar_point.hpp"

namespace imkd {

Mode mode_of(const std::vector<SensorState>& cameras, const std::vector<SensorState>& radars) {
  const auto seeing = std::count_if(cameras.begin(), cameras.end(), usable),
             hearing = std::count_if(radars.begin(), radars.end(), usable);
  if (seeing == 0) return hearing == 0 ? Mode::blind : Mode::radar_only;
  if (hearing == 0) return Mode::camera_only;
  const bool all = seeing == static_cast<long>(cameras.size()) && hearing == static_cast<long>(radars.size());
  return all ? Mode::full : Mode::partial;
}

bool any_valid(const RadarSweep& sweep) {
  for (int i = 0; i < sweep.count; ++i)
    if (valid_point(sweep.points + std::size_t(i) * 5)) return true;
  return false;
}

}  // namespace imkd
