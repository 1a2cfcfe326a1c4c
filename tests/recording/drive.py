"""Writes a long drive of the synthetic world as a ROS 2 MCAP file: 6 cameras 10 Hz, 5 radars 13 Hz, odometry 50 Hz.

    PYTHONPATH=tests python -m recording.drive drive.mcap --seconds 60

What is measured of recordings begins with it (docs/guide/recordings.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from recording import ros
from recording.scenes import Event, events
from scipy.spatial.transform import Rotation, Slerp

from imkd_edge.sources.base import Sample
from imkd_edge.sources.synth import SynthSource

CAMERA_HZ, ODOMETRY_NS = 10.0, 20_000_000


def jpeg_image(time_ns: int, frame: str, pixels: np.ndarray) -> Any:
    """As most drivers publish it."""
    data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].reshape(-1)
    return ros.message("sensor_msgs/msg/CompressedImage", header=ros.header(time_ns, frame), format="jpeg", data=data)


def odometry(before: Sample, after: Sample) -> Iterator[Event]:
    """Poses from one sample to the next, 20 ms apart."""
    ends = [before.timestamp_ns, after.timestamp_ns]
    poses = np.stack([sample.ego.T_world_ego for sample in (before, after)])
    turn = Slerp([0, 1], Rotation.from_matrix(poses[:, :3, :3]))
    for time in range(ends[0], ends[1], ODOMETRY_NS):
        share = (time - ends[0]) / (ends[1] - ends[0])
        pose = np.eye(4)
        pose[:3, :3] = turn(share).as_matrix()
        pose[:3, 3] = (1 - share) * poses[0, :3, 3] + share * poses[1, :3, 3]
        yield Event("odometry", "", time, (pose, before.ego.twist))


def stream(seconds: float) -> Iterator[Event]:
    """The drive's events, in the order of their times from sample to sample."""
    count = round(seconds * CAMERA_HZ) + 1
    source = SynthSource(scenes=1, frames_per_scene=count, rate_hz=CAMERA_HZ, speed=8.0, sweeps=3)
    before, seen = None, set()
    for sample in source:
        fresh = [event for event in events([sample]) if event.kind != "odometry"]
        fresh = [event for event in fresh if event.kind not in ("static", "info") or before is None]
        keys = [(event.kind, event.sensor, event.time_ns) for event in fresh]
        fresh = [event for event, key in zip(fresh, keys) if key not in seen]
        seen = set(keys)
        if before is not None:
            fresh += odometry(before, sample)
        yield from sorted(fresh, key=lambda event: event.time_ns)
        before = sample
    yield Event("odometry", "", before.timestamp_ns, (before.ego.T_world_ego, before.ego.twist))


def stored(seconds: float) -> Iterator[ros.Stored]:
    """The drive's messages."""
    for event in stream(seconds):
        yield from ros.messages([event], jpeg_image)


def write(path: Path, seconds: float) -> Path:
    """The file."""
    return ros.write_mcap(path, stored(seconds), chunk_size=1 << 20)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    print(write(given.path, given.seconds), given.path.stat().st_size)
