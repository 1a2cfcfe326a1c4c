"""What a source yields: one moment of the sensors, the rig it was taken with and, where known, the truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import SensorRig


@dataclass(frozen=True)
class Truth:
    """Labelled boxes of one sample, in the ego frame at the sample's reference time."""

    boxes: (
        np.ndarray
    )  # (M, 9) float64: x, y, z centre, length, width, height m, yaw rad, vx, vy m/s (nan where unknown)
    labels: list[str]  # M class names as the dataset calls them, lower case, e.g. "car"
    occlusion: np.ndarray  # (M,) int8: 0 visible, 1 partly, 2 largely, 3 fully occluded; -1 unknown
    radar_points: np.ndarray  # (M,) int32 returns inside the box; -1 unknown
    lidar_points: np.ndarray  # (M,) int32; -1 unknown
    racks: np.ndarray = field(
        default_factory=lambda: np.zeros((0, 9))
    )  # (R, 9) as boxes: bicycle racks, cycles in which nuScenes ignores


@dataclass(frozen=True)
class Sample:
    """One moment of one recording."""

    name: str  # unique within the source, e.g. "000105"
    timestamp_ns: int
    rig: SensorRig  # as calibrated for this very sample
    frames: dict[str, np.ndarray]  # camera name -> (H, W, 3) uint8 RGB; absent cameras are not in it
    radar: list[RadarSweep]  # any number per radar, absent radars have none
    ego: Ego | None = None
    truth: Truth | None = None
    lidar: np.ndarray | None = None  # (N, 4) float32: x, y, z m in the ego frame, reflectance 0..255; training only
    camera_timestamps_ns: dict[str, int] = field(default_factory=dict)
    scene: str = ""  # recording that the sample belongs to


class Source(Protocol):
    """An ordered, random-access collection of samples; reading is lazy, names are cheap."""

    kind: str  # "astyx", "nuscenes", "vod", "synth", ...
    names: list[str]

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Sample]: ...
    def __getitem__(self, name: str) -> Sample: ...
