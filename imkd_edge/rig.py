"""SensorRig: the cameras and radars with their calibration and mounting."""

from imkd_edge._core import CameraCalibration, RadarCalibration, SensorRig

__all__ = ["CameraCalibration", "RadarCalibration", "SensorRig"]
