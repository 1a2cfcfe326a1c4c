"""SensorRig: the cameras and radars with their calibration and mounting."""

from imkd_edge._core import RIGID_TOLERANCE, CameraCalibration, RadarCalibration, SensorRig, orthonormalised

__all__ = ["RIGID_TOLERANCE", "CameraCalibration", "RadarCalibration", "SensorRig", "orthonormalised"]
