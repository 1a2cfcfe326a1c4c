"""Scenes of the synthetic world as messages, in no container's form: what a vehicle would record.

The messages are built here from samples, independently of the readers; ros.py and foxglove_file.py write them with the
formats' own libraries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from imkd_edge.rig import SensorRig
from imkd_edge.sources.base import Sample
from imkd_edge.sources.synth import SynthSource

EGO, WORLD = "base_link", "odom"


@dataclass(frozen=True)
class Event:
    """One message."""

    kind: str  # image, info, radar, odometry, static
    sensor: str
    time_ns: int
    value: Any


def synth(scenes: int = 1, frames: int = 3, **options: Any) -> SynthSource:
    """Two cameras and two radars of the default rig, small images, a moving vehicle."""
    from imkd_edge.sources.synth import default_rig

    rig = default_rig((96, 54))
    small = SensorRig(cameras=list(rig.cameras)[:2], radars=list(rig.radars)[:2], ground_plane=rig.ground_plane)
    return SynthSource(scenes=scenes, frames_per_scene=frames, **{"rig": small, "speed": 8.0, **options})


def full_synth(frames: int = 3) -> SynthSource:
    """The default rig, for the shipped bundle."""
    return SynthSource(scenes=1, frames_per_scene=frames, speed=8.0)


def quaternion(R: np.ndarray) -> tuple[float, float, float, float]:
    """x, y, z, w by SciPy, which the readers do not use."""
    from scipy.spatial.transform import Rotation

    return tuple(Rotation.from_matrix(R).as_quat().tolist())


def poses(sample: Sample) -> dict[int, np.ndarray]:
    """Every pose that a sample knows, by time."""
    assert sample.ego is not None and sample.ego.T_world_ego is not None
    result = {sweep.timestamp_ns: sweep.T_world_ego for sweep in sample.radar}
    result[sample.timestamp_ns] = np.asarray(sample.ego.T_world_ego)
    return {time: pose for time, pose in result.items() if time is not None and pose is not None}


def events(samples: list[Sample]) -> Iterator[Event]:
    """All messages of some samples in the order of their times; sweeps that two samples share come once."""
    result: dict[tuple[str, str, int], Event] = {}

    def add(event: Event) -> None:
        result.setdefault((event.kind, event.sensor, event.time_ns), event)

    first = samples[0]
    start = min([first.timestamp_ns, *(sweep.timestamp_ns or 0 for sweep in first.radar)]) - 1_000_000
    for sensor in (*first.rig.cameras, *first.rig.radars):
        add(Event("static", sensor.name, start, sensor))
    for camera in first.rig.cameras:
        add(Event("info", camera.name, start, camera))
    for sample in samples:
        twist = None if sample.ego is None else sample.ego.twist
        for camera, image in sample.frames.items():
            add(Event("image", camera, sample.camera_timestamps_ns.get(camera, sample.timestamp_ns), image))
        for sweep in sample.radar:
            add(Event("radar", sweep.radar, int(sweep.timestamp_ns or 0), sweep.points))
        for time, pose in poses(sample).items():
            add(Event("odometry", "", time, (pose, twist)))
    yield from sorted(result.values(), key=lambda event: (event.time_ns, event.kind != "static", event.kind))
