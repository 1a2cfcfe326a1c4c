// What both the Detector and the Monitor ask of sensor data.
#pragma once
#include "imkd/frames.hpp"
#include "imkd/result.hpp"

namespace imkd {

bool any_finite(const RadarSweep& sweep);  // whether one point has five finite numbers

}  // namespace imkd
