// One image or sweep as a sensor's driver delivers it: checks against the rig, and copies of memory without an owner.
#pragma once
#include <memory>

#include "imkd/frames.hpp"
#include "imkd/rig.hpp"

namespace imkd {

// These throw Error frame_unknown_sensor (index) and frame_bad_shape (size, count, missing data).
const CameraCalibration& checked_camera(const SensorRig& rig, int camera);
void check_image(const SensorRig& rig, int camera, const ImageView& image);
void check_sweep(const SensorRig& rig, const RadarSweep& sweep);

// Return the owner of a copy in host memory and make the argument a view of it. The copy of an image has dense rows.
std::shared_ptr<const void> copy_image(ImageView& image);
std::shared_ptr<const void> copy_points(RadarSweep& sweep);

}  // namespace imkd
