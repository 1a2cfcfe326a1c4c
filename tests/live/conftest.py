"""Two cameras of 4 x 2 pixels and two radars; a synchronizer with times in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from helpers import random_spec
from imkd_edge import CameraCalibration, Ego, LiveFrame, RadarCalibration, RadarSweep, SensorRig, Synchronizer

MS = 1_000_000
CAMERAS, RADARS = ("A", "B"), ("R", "S")
LOOK_AHEAD = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]], np.float64)
K = np.array([[4.0, 0, 2], [0, 4, 1], [0, 0, 1]])


def tiny_rig() -> SensorRig:
    return SensorRig(
        cameras=[CameraCalibration(name=name, width=4, height=2, K=K, T_ego_camera=LOOK_AHEAD) for name in CAMERAS],
        radars=[RadarCalibration(name=name, T_ego_radar=np.eye(4)) for name in RADARS],
    )


def pose(x: float, y: float = 0) -> np.ndarray:
    T = np.eye(4)
    T[:2, 3] = x, y
    return T


@dataclass
class SynchronizerBench:
    """A synchronizer with times in milliseconds. It checks that a frame holds the very items that were pushed."""

    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sync = Synchronizer(tiny_rig(), random_spec(cameras=2), **self.options)
        self.items: dict[tuple[str, int], np.ndarray] = {}

    def push(self, sensor: str, time: int, now: int) -> str:
        if sensor == "ego":
            return self.sync.push_ego(Ego(T_world_ego=pose(time / 100)), time * MS, now * MS)  # 10 m/s along x
        if sensor in CAMERAS:
            item = np.full((2, 4, 3), time % 251, np.uint8)
            result = self.sync.push_camera(sensor, item, time * MS, now * MS)
        else:
            item = np.full((3, 5), time % 251 + 1, np.float32)
            result = self.sync.push_radar(RadarSweep(sensor, item, time * MS), now * MS)
        if result == "kept":
            self.items[sensor, time] = item
        return result

    def pop(self, now: int) -> LiveFrame | None:
        frame = self.sync.pop(now * MS)
        if frame is not None:
            for name, image in frame.frames.items():
                assert image is self.items[name, frame.camera_timestamps_ns[name] // MS]
            for sweep in frame.radar:
                assert sweep.timestamp_ns is not None
                assert sweep.points is self.items[sweep.radar, sweep.timestamp_ns // MS]
        return frame


def frame_text(frame: LiveFrame | None) -> str:
    """ "100 A100 B103 R60 R110 S95", then " incomplete" if it is; "-" for None."""
    if frame is None:
        return "-"
    words = [f"{frame.timestamp_ns // MS}"]
    words += [f"{name}{frame.camera_timestamps_ns[name] // MS}" for name in frame.frames]
    words += [f"{sweep.radar}{(sweep.timestamp_ns or 0) // MS}" for sweep in frame.radar]
    return " ".join(words + ["incomplete"] * (not frame.complete))


@pytest.fixture
def bench() -> SynchronizerBench:
    return SynchronizerBench()


@pytest.fixture(scope="session")
def make_bench() -> type[SynchronizerBench]:
    return SynchronizerBench


@pytest.fixture(scope="session")
def write() -> Any:
    return frame_text
