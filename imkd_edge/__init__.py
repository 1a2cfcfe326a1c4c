"""3D object detection from cameras and radars at the sensors' frame rate."""

from imkd_edge.bundle import Bundle
from imkd_edge.detector import Detection, Detector, Health, Result
from imkd_edge.errors import Code, Error
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.live import LiveFrame, Monitor, Synchronizer, Watchdog
from imkd_edge.rig import CameraCalibration, RadarCalibration, SensorRig
from imkd_edge.spec import ModelSpec
from imkd_edge.tracking import Track, Tracker

__version__ = "0.1.0"
__all__ = [
    "Bundle",
    "CameraCalibration",
    "Code",
    "Detection",
    "Detector",
    "Ego",
    "Error",
    "Health",
    "LiveFrame",
    "ModelSpec",
    "Monitor",
    "RadarCalibration",
    "RadarSweep",
    "Result",
    "SensorRig",
    "Synchronizer",
    "Track",
    "Tracker",
    "Watchdog",
]
