// What both the Detector and the Monitor ask of sensor data.
#pragma once
#include "imkd/frames.hpp"
#include "imkd/result.hpp"

namespace imkd {

bool any_valid(const RadarSweep& sweep);  // whether one point is not invalid, as in ops.hpp

}  // namespace imkd
