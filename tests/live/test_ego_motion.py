"""The ego pose of each sweep and of the frame: interpolated on a screw, extrapolated along an arc, or absent."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm, logm
from scipy.spatial.transform import Rotation

from imkd_edge import Ego, RadarSweep

MS = 1_000_000
ALL = ("A", "B", "R", "S")


def transform(rotation: Rotation, translation) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation.as_matrix(), translation
    return T


def frame_at(bench, time: int, radar: tuple[int, ...] = ()):
    """A frame of all sensors, with more sweeps of radar R."""
    for sensor in ALL:
        bench.push(sensor, time, time)
    for other in radar:
        assert bench.push("R", other, max(time, other)) == "kept"
    frame = bench.pop(time + 100)
    assert frame is not None and frame.timestamp_ns == time * MS
    return frame


@pytest.mark.parametrize("seed", range(20))
def test_a_pose_between_two_is_interpolated(bench, seed: int) -> None:
    random = np.random.default_rng(seed)
    times = np.sort(random.choice(np.arange(1000, 1400), 4, replace=False))
    rotations = Rotation.from_rotvec(np.cumsum(random.normal(0, 0.4, (4, 3)), 0))
    positions = np.cumsum(random.uniform(-1, 1, (4, 3)), 0)
    for i in random.permutation(4):
        assert bench.sync.push_ego(Ego(transform(rotations[i], positions[i])), int(times[i]) * MS, 1400 * MS) == "kept"
    queries = sorted({int(t) for t in random.integers(times[0], times[-1], 6)} | {int(times[1])})
    for time in queries:
        bench.push("R", time, 1400)
    for sensor in ALL:
        bench.push(sensor, int(times[-1]), 1400)
    frame = bench.pop(1400)
    assert frame.complete and np.array_equal(frame.ego.T_world_ego, transform(rotations[3], positions[3]))
    poses = [transform(rotation, position) for rotation, position in zip(rotations, positions)]
    for sweep in (s for s in frame.radar if s.radar == "R"):
        time = sweep.timestamp_ns / MS
        k = min(int(np.searchsorted(times, time, side="right")) - 1, 2)
        screw = logm(np.linalg.inv(poses[k]) @ poses[k + 1]) * (time - times[k]) / (times[k + 1] - times[k])
        assert np.allclose(sweep.T_world_ego, poses[k] @ expm(screw), atol=1e-9), time


def test_poses_too_far_apart_are_not_interpolated(bench) -> None:
    for time, x in ((399, 0.0), (900, 5.0)):
        bench.sync.push_ego(Ego(transform(Rotation.identity(), (x, 0, 0))), time * MS, 900 * MS)
    frame = frame_at(bench, 900, radar=(399, 650))
    poses = {sweep.timestamp_ns // MS: sweep.T_world_ego for sweep in frame.radar if sweep.radar == "R"}
    assert poses[399] is not None and poses[900] is not None and poses[650] is None


@pytest.mark.parametrize("ahead", [100, 99, 1])
def test_a_pose_is_extrapolated_at_its_twist(bench, ahead: int) -> None:
    """A quarter of a circle per second to the left at 10 m/s: radius 10 / (pi / 2)."""
    bench.sync.push_ego(Ego(np.eye(4), (10.0, 0.0, np.pi / 2)), 1000 * MS, 1000 * MS)
    frame = frame_at(bench, 1000 + ahead)
    angle, radius = np.pi / 2 * ahead / 1000, 10 / (np.pi / 2)
    arc = transform(Rotation.from_rotvec([0, 0, angle]), (radius * np.sin(angle), radius * (1 - np.cos(angle)), 0))
    assert np.allclose(frame.ego.T_world_ego, arc, atol=1e-9) and frame.ego.twist == (10.0, 0.0, np.pi / 2)
    assert not frame.complete


def test_a_pose_is_extrapolated_at_the_speed_of_the_last_two(bench) -> None:
    for time in (900, 1000):
        bench.push("ego", time, 1000)  # 10 m/s along x
    frame = frame_at(bench, 1050)
    assert np.allclose(frame.ego.T_world_ego[:3, 3], (10.5, 0, 0)) and frame.ego.twist is None


@pytest.mark.parametrize("phase", [5, 15, 25, 45])
def test_poses_and_twists_may_arrive_separately(bench, phase: int) -> None:
    """Poses at 50 Hz, twists at 50 Hz between them, frames at 20 Hz: each pose lies on the line driven at 10 m/s."""
    heading, count = Rotation.from_rotvec([0, 0, 0.7]), 0
    for time in range(1000, 2000, 5):
        position = heading.apply([time / 100, 0, 0])
        if time % 20 == 0:
            bench.sync.push_ego(Ego(transform(heading, position)), time * MS, time * MS)
        elif time % 20 == 10:
            bench.sync.push_ego(Ego(twist=(10.0, 0.0, 0.0)), time * MS, time * MS)
        elif time % 50 == phase:
            for sensor in ALL:
                bench.push(sensor, time, time)
        frame = bench.pop(time)
        if frame is not None:
            count += 1
            expected = heading.apply([frame.timestamp_ns / MS / 100, 0, 0])
            assert frame.complete and frame.ego.T_world_ego is not None, frame.timestamp_ns
            assert np.allclose(frame.ego.T_world_ego, transform(heading, expected), atol=1e-6)  # m
            assert frame.ego.twist == (10.0, 0.0, 0.0)
    assert count >= 19


def test_a_twist_between_two_poses_does_not_hide_their_speed(bench) -> None:
    """The twist at 740 ms is too old for 950 ms; the speed comes from the poses at 700 and 900 ms."""
    for time in (700, 900):
        bench.push("ego", time, 900)  # 10 m/s along x
    bench.sync.push_ego(Ego(twist=(3.0, 0.0, 0.0)), 740 * MS, 900 * MS)
    frame = frame_at(bench, 950)
    assert np.allclose(frame.ego.T_world_ego[:3, 3], (9.5, 0, 0)) and frame.ego.twist is None


def test_a_pose_is_extrapolated_back_to_sweeps_before_it(bench) -> None:
    bench.sync.push_ego(Ego(np.eye(4), (10.0, 0.0, 0.0)), 1000 * MS, 1000 * MS)
    frame = frame_at(bench, 1000, radar=(900, 899))
    poses = {sweep.timestamp_ns // MS: sweep.T_world_ego for sweep in frame.radar if sweep.radar == "R"}
    assert np.allclose(poses[900][:3, 3], (-1, 0, 0)) and poses[899] is None


def test_no_pose_is_extrapolated_beyond_100_ms(bench) -> None:
    bench.sync.push_ego(Ego(np.eye(4), (10.0, 0.0, 0.0)), 1000 * MS, 1000 * MS)
    assert frame_at(bench, 1101).ego is None


def test_a_single_pose_without_a_twist_is_not_extrapolated(bench) -> None:
    bench.push("ego", 1000, 1000)
    assert frame_at(bench, 1001).ego is None


def test_a_twist_without_a_pose_reaches_the_frame(bench) -> None:
    bench.sync.push_ego(Ego(twist=(3.0, 0.0, 0.1)), 1000 * MS, 1000 * MS)
    frame = frame_at(bench, 1000)
    assert frame.complete and frame.ego.T_world_ego is None and frame.ego.twist == (3.0, 0.0, 0.1)


def test_a_jump_of_the_pose_discards_the_poses_before(bench) -> None:
    bench.push("ego", 900, 1000)  # at x = 9
    bench.sync.push_ego(Ego(transform(Rotation.identity(), (5000, 0, 0))), 950 * MS, 1000 * MS)
    bench.sync.push_ego(Ego(transform(Rotation.identity(), (5001, 0, 0))), 1000 * MS, 1000 * MS)
    frame = frame_at(bench, 1000, radar=(900, 840))
    poses = {sweep.timestamp_ns // MS: sweep.T_world_ego for sweep in frame.radar if sweep.radar == "R"}
    assert np.allclose(poses[900][:3, 3], (4999, 0, 0))  # extrapolated back at 20 m/s from the new poses
    assert poses[840] is None


def test_a_pose_that_a_newer_one_contradicts_is_invalid(bench) -> None:
    assert bench.push("ego", 1000, 1000) == "kept"
    assert bench.sync.push_ego(Ego(transform(Rotation.identity(), (5000, 0, 0))), 950 * MS, 1000 * MS) == "invalid"


@pytest.mark.parametrize(
    "ego",
    [
        Ego(np.full((4, 4), np.nan)),
        Ego(np.diag([1.0, 1, 2, 1])),
        Ego(np.diag([1.0, 1, -1, 1])),
        Ego(twist=(np.nan, 0.0, 0.0)),
        Ego(np.eye(4), (0.0, np.inf, 0.0)),
    ],
)
def test_an_impossible_motion_is_invalid(bench, ego: Ego) -> None:
    assert bench.sync.push_ego(ego, 1000 * MS, 1000 * MS) == "invalid"
    frame = frame_at(bench, 1000)
    assert frame.complete and frame.ego is None


def test_a_sweep_keeps_its_own_pose(bench) -> None:
    bench.push("ego", 1000, 1000)
    T = transform(Rotation.from_rotvec([0, 0, 1]), (1, 2, 3))
    points = np.ones((2, 5), np.float32)
    assert bench.sync.push_radar(RadarSweep("S", points, 990 * MS, np.full((4, 4), np.nan)), 1000 * MS) == "invalid"
    assert bench.sync.push_radar(RadarSweep("S", points, 990 * MS, T), 1000 * MS) == "kept"
    bench.items["S", 990] = points
    frame = frame_at(bench, 1000)
    (pose,) = [sweep.T_world_ego for sweep in frame.radar if sweep.timestamp_ns == 990 * MS]
    assert np.array_equal(pose, T)
