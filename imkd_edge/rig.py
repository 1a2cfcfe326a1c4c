"""SensorRig: which cameras and radars there are, and where they sit."""

from imkd_edge._core import CameraCalibration, RadarCalibration, SensorRig

__all__ = ["CameraCalibration", "RadarCalibration", "SensorRig"]
