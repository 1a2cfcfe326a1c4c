// One image or sweep as a sensor's driver hands it over: checked against the rig, and copied where nobody else keeps
// it.
#pragma once
#include <memory>

#include "imkd/frames.hpp"
#include "imkd/rig.hpp"

namespace imkd {

const CameraCalibration& checked_camera(const SensorRig& rig, int camera);  // throws Error frame_unknown_sensor
void check_image(const SensorRig& rig, int camera,
                 const ImageView& image);                         // throws Error frame_unknown_sensor, frame_bad_shape
void check_sweep(const SensorRig& rig, const RadarSweep& sweep);  // the same
std::shared_ptr<const void> copy_image(ImageView& image);         // the view is of the copy afterwards, which is dense
std::shared_ptr<const void> copy_points(RadarSweep& sweep);

}  // namespace imkd
