// Raw pixel -> ray of a camera, for every distortion of the rig.
#pragma once
#include "imkd/rig.hpp"

namespace imkd {

// The point on the plane z = 1 of the camera frame that is seen at raw pixel (u, v); false where the lens model has no such point
// (behind the camera, or beyond the radius up to which the distortion polynomial is invertible).
bool undistort(const CameraCalibration& camera, double u, double v, double& x, double& y);

}  // namespace imkd
