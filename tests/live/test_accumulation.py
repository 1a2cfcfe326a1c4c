"""Sweeps of a moving radar at irregular times put a static post into one cell; real frames pass through unchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from helpers import random_spec
from imkd_edge import Detector, Ego, RadarCalibration, RadarSweep, SensorRig, Synchronizer, ops

MS = 1_000_000
POST = np.array([31.6, 4.4, 0.5])  # m in the world: the centre of a 0.8 m cell of the frame's grid
RADAR_TIMES = (418, 493, 571, 647, 724, 801, 877, 953, 1004)  # ms; the frame's is 1000
POSE_TIMES = range(390, 1050, 20)


def pose(time: float) -> np.ndarray:
    """Ego motion at 12 m/s along an arc with a yaw rate of 0.3 rad/s; at 1000 ms the pose is the world's origin."""
    rate, speed, seconds = 0.3, 12.0, (time - 1000) / 1000
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec([0, 0, rate * seconds]).as_matrix()
    T[:2, 3] = speed / rate * np.sin(rate * seconds), speed / rate * (1 - np.cos(rate * seconds))
    return T


def radar_rig() -> SensorRig:
    mounting = np.eye(4)
    mounting[:3, :3], mounting[:3, 3] = Rotation.from_rotvec([0, 0, 0.2]).as_matrix(), (3.5, 0.4, 0.5)
    return SensorRig(radars=[RadarCalibration(name="R", T_ego_radar=mounting)])


def post_sweep(rig: SensorRig, time: float) -> np.ndarray:
    """(1, 5): the post in the radar's frame, with velocity 0."""
    T_radar_world = np.linalg.inv(pose(time) @ rig.radars[0].T_ego_radar)
    return np.array([[*(T_radar_world @ [*POST, 1])[:3], 10, 0]], np.float32)


def accumulated(with_ego: bool) -> np.ndarray:
    """Counts by cell of the radar grid: exp(log_count) - 1."""
    rig, spec = radar_rig(), random_spec(cameras=1)
    sync = Synchronizer(rig, spec)
    random = np.random.default_rng(1)
    events = [("R", time) for time in RADAR_TIMES] + [("ego", time) for time in POSE_TIMES if with_ego]
    for kind, time in sorted(events, key=lambda event: event[1] + random.integers(0, 60)):  # in random order
        if kind == "ego":
            assert sync.push_ego(Ego(pose(time)), time * MS, 1100 * MS) == "kept"
        else:
            assert sync.push_radar(RadarSweep("R", post_sweep(rig, time), time * MS), 1100 * MS) == "kept"
    frames = []
    while (frame := sync.pop(1100 * MS)) is not None:
        frames.append(frame)
    last = frames[-1]
    assert last.timestamp_ns == 1004 * MS and last.complete and len(last.radar) == len(RADAR_TIMES)
    grid, stats = ops.voxelize_radar(spec, rig, last.radar, last.timestamp_ns, last.ego)
    assert stats.used == len(RADAR_TIMES)
    return np.round(np.expm1(grid[0])).astype(int)


def test_a_static_post_falls_into_one_cell() -> None:
    counts = accumulated(with_ego=True)
    (row, column), T = np.argwhere(counts > 0)[0], np.linalg.inv(pose(1004))
    x, y = (T @ [*POST, 1])[:2]
    assert counts.max() == counts.sum() == len(RADAR_TIMES)
    assert (row, column) == (int((y + 51.2) // 0.8), int((x + 51.2) // 0.8))


def test_without_ego_motion_it_smears() -> None:
    """Shows that the check can fail: at 12 m/s the sweeps lie up to 7 m apart."""
    assert (accumulated(with_ego=False) > 0).sum() > 5


def test_real_frames_give_the_same_boxes_live_and_one_by_one(shared_data: Path) -> None:
    """Every fourth frame of 10 Hz: the previous sweep is older than the model's 0.3 s, so each frame has one sweep."""
    from imkd_edge.sources.astyx import AstyxSource

    source = AstyxSource(shared_data / "astyx", lidar=False)
    samples = [source[name] for name in ("000105", "000109", "000113", "000117", "000121")]
    box_count = 0
    with Detector("astyx-lite", samples[0].rig) as detector:
        sync = Synchronizer(samples[0].rig, detector.spec)
        for sample in samples:  # radar first, the camera 30 ms later
            (camera,), time = sample.frames, sample.timestamp_ns
            for sweep in sample.radar:
                assert sync.push_radar(sweep, time + 5 * MS) == "kept"
            assert sync.pop(time + 30 * MS) is None
            assert sync.push_camera(camera, sample.frames[camera], time, time + 30 * MS) == "kept"
            frame = sync.pop(time + 31 * MS)
            assert frame is not None and frame.complete and frame.timestamp_ns == time
            detector.set_rig(sample.rig)
            live = detector.infer(frame.frames, frame.radar, frame.ego, frame.timestamp_ns, frame.camera_timestamps_ns)
            direct = detector.infer(sample.frames, sample.radar, sample.ego, time)
            assert np.array_equal(live.boxes, direct.boxes, equal_nan=True) and live.health == direct.health
            box_count += len(live.boxes)
    assert box_count > 0
