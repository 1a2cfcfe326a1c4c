"""What a source yields: one moment of the sensors, its rig and, where known, the truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.ops import EgoMotion
from imkd_edge.rig import SensorRig

FACTS = ("licence", "intensity", "traffic")  # attributes of a source that hold for all of its frames, where known
HIDDEN = 3  # Truth.occlusion: in nuScenes less than 40 % visible


@dataclass(frozen=True)
class Truth:
    """Labelled boxes of one sample, in the ego frame at the sample's reference time."""

    # (M, 9) float64: x, y, z centre, length, width, height m, yaw rad, vx, vy m/s (nan where unknown)
    boxes: np.ndarray
    labels: list[str]  # M class names of the data set, in lower case, e.g. "car"
    occlusion: np.ndarray  # (M,) int8: 0 visible, 1 partly, 2 largely, 3 fully occluded; -1 unknown
    radar_points: np.ndarray  # (M,) int32: returns inside the box; -1 unknown
    lidar_points: np.ndarray  # (M,) int32: returns inside the box; -1 unknown
    # (R, 9) as boxes: bicycle racks; nuScenes ignores cycles in them
    racks: np.ndarray = field(default_factory=lambda: np.zeros((0, 9)))
    scores: np.ndarray | None = None  # (M,) in [0,1], of labels that a network wrote


@dataclass(frozen=True)
class Sample:
    """One moment of one recording."""

    name: str  # unique within the source, e.g. "000105"
    timestamp_ns: int
    rig: SensorRig  # with the calibration of this sample
    frames: dict[str, np.ndarray]  # camera name -> (H, W, 3) uint8 RGB; without absent cameras
    radar: list[RadarSweep]  # any number per radar
    ego: Ego | None = None
    truth: Truth | None = None
    lidar: np.ndarray | None = None  # (N, 4) float32: x, y, z m in the ego frame, reflectance 0..255; training only
    camera_timestamps_ns: dict[str, int] = field(default_factory=dict)
    scene: str = ""  # name of its recording
    # camera name -> (4, 4) float64 ego pose at its exposure, where it is known better than by `motion`
    camera_T_world_ego: dict[str, np.ndarray] = field(default_factory=dict)

    def motion(self, max_age: float = float("inf")) -> EgoMotion:
        """The ego motion around timestamp_ns; max_age s: of the sweeps that may give the ego speed."""
        times, poses = self.camera_timestamps_ns, self.camera_T_world_ego
        return EgoMotion(self.rig, self.radar, self.timestamp_ns, self.ego, times, poses, max_age)


class Source(Protocol):
    """An ordered, random-access collection of samples, read on access; names are known without reading."""

    kind: str  # "astyx", "nuscenes", "vod", "synth", ...
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Sample]:
        return (self[name] for name in self.names)

    def __getitem__(self, name: str) -> Sample: ...
