"""3D object detection from cameras and radars at the sensors' frame rate."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from imkd_edge.errors import Code, Error
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import CameraCalibration, RadarCalibration, SensorRig
from imkd_edge.spec import ModelSpec

__version__ = "0.1.0"
__all__ = ["Bundle", "CameraCalibration", "Code", "Detector", "Ego", "Error", "ModelSpec", "RadarCalibration", "RadarSweep", "SensorRig"]

_LAZY = {"Detector": "imkd_edge.detector", "Bundle": "imkd_edge.bundle"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
