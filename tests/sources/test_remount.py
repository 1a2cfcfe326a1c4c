"""A sample in another ego frame is the same scene: sensors, objects and road keep their positions to each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import CameraCalibration, RadarCalibration, SensorRig
from imkd_edge.sources.base import Sample, Truth
from imkd_edge.sources.remount import lift, remount, tilt

PLANE = (0.05, -0.08, -1.6)


def rigid(angles: tuple[float, float, float], translation: tuple[float, float, float]) -> np.ndarray:
    """(4, 4) of angles about x, y, z in degrees and a translation in m."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    T[:3, 3] = translation
    return T


def make_sample(plane: tuple[float, float, float] | None = PLANE) -> Sample:
    rng = np.random.default_rng(0)
    K = np.array([[600.0, 0, 330.0], [0, 610.0, 90.0], [0, 0, 1]])
    T_camera = rigid((-90, 0, -80), (1.5, 0.2, 1.4))
    rig = SensorRig(
        cameras=[CameraCalibration(name="front", width=640, height=192, K=K, T_ego_camera=T_camera)],
        radars=[RadarCalibration(name="radar", T_ego_radar=rigid((1, 2, -20), (3.5, -0.6, 0.5)))],
        ground_plane=plane,
    )
    points = rng.uniform([5, -20, -1, 0, -5], [60, 20, 2, 30, 5], (80, 5)).astype(np.float32)
    boxes = rng.uniform([8, -6, 0, 3, 1.5, 1.4, -3, -5, -5], [50, 10, 1, 5, 2, 2, 3, 5, 5], (6, 9))
    unknown = np.full(6, -1, np.int32)
    return Sample(
        name="0",
        timestamp_ns=10**9,
        rig=rig,
        frames={},
        radar=[RadarSweep("radar", points, 9 * 10**8, rigid((0, 1, 38), (99, 49, 0.1)))],
        ego=Ego(rigid((0, 0, 40), (100, 50, 0)), np.array([8.0, 0.3, 0.1])),
        truth=Truth(boxes, ["car"] * 6, np.zeros(6, np.int8), unknown, unknown, boxes[:2] + 1),
        lidar=rng.uniform([2, -20, -1, 0], [50, 20, 2, 255], (100, 4)).astype(np.float32),
    )


def seen_from(T: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points of the target frame of T in its source frame."""
    return np.linalg.solve(np.asarray(T), np.column_stack([points[:, :3], np.ones(len(points))]).T).T[:, :3]


def in_world(sample: Sample, points: np.ndarray) -> np.ndarray:
    return (np.column_stack([points[:, :3], np.ones(len(points))]) @ np.asarray(sample.ego.T_world_ego).T)[:, :3]


ANGLES = st.tuples(*[st.floats(-10, 10)] * 3)
SHIFTS = st.tuples(*[st.floats(-3, 3)] * 3)


@settings(max_examples=30, deadline=None)
@given(angles=ANGLES, shift=SHIFTS)
def test_every_sensor_sees_what_it_saw(angles, shift):
    before, T = make_sample(), rigid(angles, shift)
    after = remount(before, T)
    after.rig.check()
    for sensors in ("cameras", "radars"):
        for old, new in zip(getattr(before.rig, sensors), getattr(after.rig, sensors), strict=True):
            mounts = [s.T_ego_camera if sensors == "cameras" else s.T_ego_radar for s in (old, new)]
            for kind in ("boxes", "racks"):
                objects = [getattr(sample.truth, kind) for sample in (before, after)]
                np.testing.assert_allclose(*map(seen_from, mounts, objects), atol=1e-9)
            np.testing.assert_allclose(*map(seen_from, mounts, (before.lidar, after.lidar)), atol=2e-5)
    assert after.radar[0].points is before.radar[0].points


@settings(max_examples=30, deadline=None)
@given(angles=ANGLES, shift=SHIFTS)
def test_the_world_stays(angles, shift):
    before, T = make_sample(), rigid(angles, shift)
    after = remount(before, T)
    np.testing.assert_allclose(in_world(after, after.truth.boxes), in_world(before, before.truth.boxes), atol=1e-8)
    positions = [np.asarray(s.radar[0].T_world_ego) @ np.asarray(s.rig.radars[0].T_ego_radar) for s in (before, after)]
    np.testing.assert_allclose(*positions, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(angles=ANGLES, shift=SHIFTS, a=st.floats(-0.1, 0.1), c=st.floats(-2, 2))
def test_the_road_stays_under_the_wheels(angles, shift, a, c):
    T = rigid(angles, shift)
    after = remount(make_sample((a, -a / 2, c)), T)
    ground = np.array([[x, y, a * x - a / 2 * y + c, 1] for x, y in ((0, 0), (50, 0), (0, 50))]) @ T.T
    a, b, c = after.rig.ground_plane
    np.testing.assert_allclose(ground[:, 2], a * ground[:, 0] + b * ground[:, 1] + c, atol=1e-9)


def test_a_rig_without_a_plane_stood_on_zero():
    assert remount(make_sample(None), lift(0.2)).rig.ground_plane == pytest.approx((0, 0, -0.2), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(roll=st.floats(-3, 3), pitch=st.floats(-3, 3), yaw=st.floats(-180, 180))
def test_boxes_stay_upright_and_turn_with_the_frame(roll, pitch, yaw):
    before, T = make_sample(), rigid((roll, pitch, yaw), (0, 0, 0))
    after = remount(before, T).truth.boxes
    np.testing.assert_array_equal(after[:, 3:6], before.truth.boxes[:, 3:6])
    front = np.column_stack([np.cos(before.truth.boxes[:, 6]), np.sin(before.truth.boxes[:, 6]), np.zeros(6)])
    front = front @ T[:3, :3].T  # the way the objects head
    np.testing.assert_allclose(after[:, 6], np.arctan2(front[:, 1], front[:, 0]), atol=1e-9)
    velocity = np.column_stack([before.truth.boxes[:, 7:9], np.zeros(6)]) @ T[:3, :3].T
    np.testing.assert_allclose(after[:, 7:9], velocity[:, :2], atol=1e-9)


def test_the_twist_is_that_of_the_new_origin():
    """Against the difference of poses over a short time."""
    before, T, dt = make_sample(), rigid((1, -2, 30), (0.5, 2, 0.1)), 1e-6
    vx, vy, rate = before.ego.twist
    T_old_then = rigid((0, 0, np.degrees(rate * dt)), (vx * dt, vy * dt, 0))
    T_new_then = T @ T_old_then @ np.linalg.inv(T)
    twist = [*T_new_then[:2, 3] / dt, (T_new_then[1, 0] - T_new_then[0, 1]) / 2 / dt]
    np.testing.assert_allclose(remount(before, T).ego.twist, twist, atol=1e-4)


def test_there_and_back_is_where_it_was():
    before, T = make_sample(), rigid((3, -2, 50), (0.5, 2, 0.1))
    after = remount(remount(before, T), np.linalg.inv(T))
    np.testing.assert_allclose(after.lidar, before.lidar, atol=1e-4)
    np.testing.assert_allclose(after.ego.twist, before.ego.twist, atol=0.05)  # of planar parts
    np.testing.assert_allclose(after.rig.ground_plane, PLANE, atol=1e-12)


def test_absent_data_stay_absent():
    bare = replace(make_sample(), ego=None, truth=None, lidar=None, radar=[])
    after = remount(bare, tilt(2))
    assert (after.ego, after.truth, after.lidar, after.radar) == (None, None, None, [])


@pytest.mark.parametrize(("azimuth", "angles"), [(0, (2, 0, 0)), (90, (0, 2, 0))])
def test_a_tilt_turns_about_a_horizontal_axis(azimuth, angles):
    np.testing.assert_allclose(tilt(2, azimuth), rigid(angles, (0, 0, 0)), atol=1e-12)
    R = Rotation.from_matrix(tilt(2)[:3, :3])
    assert np.degrees(R.magnitude()) == pytest.approx(2) and R.as_rotvec()[2] == pytest.approx(0)
