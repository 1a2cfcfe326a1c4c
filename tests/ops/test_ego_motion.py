"""EgoMotion: the one motion of a frame, against poses made by SciPy's matrix exponential."""

from __future__ import annotations

import numpy as np
import pytest
from op_cases import FORWARD, shift, small_spec
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from imkd_edge import ModelSpec, ops
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.ops import EgoMotion
from imkd_edge.rig import CameraCalibration, RadarCalibration, SensorRig

MS = 1_000_000
NOW = 1_700_000_000 * 1000 * MS
K = [[10, 0, 3.5], [0, 10, 3.5], [0, 0, 1]]
CAMERA = CameraCalibration(name="c", width=8, height=8, K=K, T_ego_camera=shift(z=1.5) @ FORWARD)
RIG = SensorRig(cameras=[CAMERA], radars=[RadarCalibration(name="r", T_ego_radar=np.eye(4))])
POINTS = np.array([[20, 1, 0, 10, 0]], np.float32)


def pose_at(twist: np.ndarray, ms: float, T: np.ndarray | None = None) -> np.ndarray:
    """(4, 4) after so long at a twist of (v, w) in three dimensions, by the exponential of its matrix."""
    (vx, vy, vz), (wx, wy, wz) = twist[:3], twist[3:]
    generator = np.array([[0, -wz, wy, vx], [wz, 0, -wx, vy], [-wy, wx, 0, vz], [0, 0, 0, 0]])
    pose = (np.eye(4) if T is None else T) @ expm(generator * ms / 1000)
    pose[3] = 0, 0, 0, 1
    return pose


def sweeps(poses: dict[int, np.ndarray | None]) -> list[RadarSweep]:
    """Sweeps of radar r, by age in ms."""
    return [RadarSweep("r", POINTS, NOW - age * MS, pose) for age, pose in poses.items()]


@pytest.mark.parametrize("seed", range(5))
def test_between_poses_a_constant_twist_in_three_dimensions_is_exact(seed):
    rng = np.random.default_rng(seed)
    twist = np.concatenate([rng.uniform(-20, 20, 3), rng.uniform(-1, 1, 3)])
    world = pose_at(rng.uniform(-1, 1, 6), 1000)
    poses = {age: pose_at(twist, -age, world) for age in (300, 120, 40)}
    motion = EgoMotion(RIG, sweeps(poses), NOW, Ego(world))
    assert motion.source == "poses"
    for age in (300, 290, 120, 77, 40, 39, 1, 0):
        np.testing.assert_allclose(motion.T_ref_at(NOW - age * MS), pose_at(twist, -age), atol=1e-9)


@pytest.mark.parametrize("ages", [(100, 40), (40,), (-30, 60)])
def test_beyond_the_poses_the_motion_goes_on_at_their_twist(ages):
    twist = np.array([17.0, -0.5, 0, 0, 0, 0.3])
    motion = EgoMotion(RIG, sweeps({age: pose_at(twist, -age) for age in ages}), NOW, Ego(np.eye(4)))
    assert motion.source == "poses"
    np.testing.assert_allclose(motion.twist, twist[[0, 1, 5]], atol=1e-9)
    for age in (250, 101, -80):
        np.testing.assert_allclose(motion.T_ref_at(NOW - age * MS), pose_at(twist, -age), atol=1e-9)


@pytest.mark.parametrize("ages", [(500, 420, 40), (300, 60), (80, -80)])
def test_without_an_ego_pose_that_of_the_newest_sweep_serves(ages):
    twist = np.array([20.0, 0, 0, 0, 0, -0.2])
    world = pose_at(np.array([3.0, 2, 1, 0.1, 0.2, 0.3]), 1000)
    motion = EgoMotion(RIG, sweeps({age: pose_at(twist, -age, world) for age in ages}), NOW)
    assert motion.source == "poses"
    np.testing.assert_allclose(motion.T_world_ego, world, atol=1e-9)
    for age in ages:
        np.testing.assert_allclose(motion.T_ref_at(NOW - age * MS), pose_at(twist, -age), atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_frame_of_the_world_is_of_no_concern(seed):
    rng = np.random.default_rng(seed)
    twist = np.concatenate([rng.uniform(-20, 20, 3), rng.uniform(-0.5, 0.5, 3)])
    poses = {age: pose_at(twist, -age) for age in (450, 130, 70)}
    world = np.eye(4)
    world[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    world[:3, 3] = rng.uniform(-1e6, 1e6, 3)  # m, as of UTM
    exposure = {"c": pose_at(twist, -35)}
    here = EgoMotion(RIG, sweeps(poses), NOW, Ego(np.eye(4)), {"c": NOW - 35 * MS}, exposure)
    there = EgoMotion(
        RIG,
        sweeps({age: world @ T for age, T in poses.items()}),
        NOW,
        Ego(world),
        {"c": NOW - 35 * MS},
        {"c": world @ exposure["c"]},
    )
    for age in (500, 450, 200, 35, 0, -20):
        np.testing.assert_allclose(there.T_ref_at(NOW - age * MS), here.T_ref_at(NOW - age * MS), atol=1e-7)
    rigs = [motion.exposure_rig(RIG) for motion in (here, there)]
    np.testing.assert_allclose(rigs[0].cameras[0].T_ego_camera, rigs[1].cameras[0].T_ego_camera, atol=1e-7)


def test_the_order_of_the_sweeps_is_of_no_concern():
    twist = np.array([12.0, 0, 0, 0, 0, 0.2])
    all_sweeps = sweeps({age: pose_at(twist, -age) for age in (200, 150, 100, 50)})
    all_sweeps.append(RadarSweep("r", POINTS, NOW - 100 * MS, pose_at(twist, -101)))  # contradicts another
    forth, back = (EgoMotion(RIG, order, NOW) for order in (all_sweeps, all_sweeps[::-1]))
    assert np.array_equal(forth.T_ref_at(NOW - 99 * MS), back.T_ref_at(NOW - 99 * MS))


@pytest.mark.parametrize(
    "ego, poses, source",
    [
        (None, {0: None, 500: None}, "none"),
        (Ego(np.eye(4)), {500: None}, "none"),  # a pose alone moves nothing within the frame
        (None, {200: np.eye(4)}, "none"),
        (Ego(twist=(5.0, 0, 0)), {500: None}, "twist"),
        (Ego(np.eye(4), (5.0, 0, 0)), {500: None}, "twist"),
        (Ego(np.eye(4)), {500: shift(-5)}, "poses"),
        (None, {100: np.eye(4), 200: shift(-1)}, "poses"),
    ],
)
def test_the_source_of_the_motion(ego, poses, source):
    motion = EgoMotion(RIG, sweeps(poses), NOW, ego)
    assert motion.source == source
    if source == "none":
        assert motion.twist is None and np.array_equal(motion.T_ref_at(NOW - 500 * MS), np.eye(4))


def test_static_returns_of_a_raw_radar_give_the_motion_last():
    rig = SensorRig(cameras=[CAMERA], radars=[RadarCalibration(name="r", T_ego_radar=np.eye(4), velocity="raw")])
    rng = np.random.default_rng(0)
    x, y = rng.uniform(5, 60, 200), rng.uniform(-30, 30, 200)
    points = np.column_stack([x, y, 0 * x, 20 + 0 * x, -14 * x / np.hypot(x, y)]).astype(np.float32)
    cloud = [RadarSweep("r", points, NOW - 50 * MS)]
    motion = EgoMotion(rig, cloud, NOW)
    assert motion.source == "estimated"
    np.testing.assert_allclose(motion.T_ref_at(NOW - 100 * MS), shift(-1.4), atol=0.01)
    assert EgoMotion(rig, cloud, NOW, Ego(twist=(3.0, 0, 0))).source == "twist"
    assert EgoMotion(rig, cloud, NOW, max_age=0.04).source == "none"


# ---- exposures ----
@pytest.mark.parametrize("own", [False, True])
def test_a_camera_is_where_the_vehicle_was_at_its_exposure(own):
    """20 m/s and 40 ms: 0.8 m further back, and turned by the yaw rate."""
    twist = np.array([20.0, 0, 0, 0, 0, 0.35])
    poses = {"c": pose_at(twist, -40)} if own else None
    motion = EgoMotion(RIG, [], NOW, Ego(np.eye(4), tuple(twist[[0, 1, 5]])), {"c": NOW - 40 * MS}, poses)
    T = motion.exposure_rig(RIG).cameras[0].T_ego_camera
    np.testing.assert_allclose(T, pose_at(twist, -40) @ CAMERA.T_ego_camera, atol=1e-9)
    assert T[0, 3] == pytest.approx(-0.8, abs=1e-3)


@pytest.mark.parametrize("seed", range(20))
def test_the_lift_rounds_an_exposure_by_less_than_an_eighth_of_a_cell(seed):
    rng = np.random.default_rng(seed)
    grid = ModelSpec().grid
    twist = np.concatenate([rng.uniform(-30, 30, 2), [rng.uniform(-1, 1)], rng.uniform(-0.5, 0.5, 3)])
    age = int(rng.integers(1, 100))
    motion = EgoMotion(RIG, [], NOW, Ego(np.eye(4)), {"c": NOW - age * MS}, {"c": pose_at(twist, -age)})
    exact, rounded = (
        np.asarray(motion.exposure_rig(RIG, g).cameras[0].T_ego_camera) @ np.linalg.inv(CAMERA.T_ego_camera)
        for g in (None, grid)
    )
    corners = np.array(
        [[x, y, z, 1.0] for x in (grid.x_min, grid.x_max) for y in (grid.y_min, grid.y_max) for z in (0, 3)]
    )
    off = np.linalg.norm((corners @ (exact - rounded).T)[:, :3], axis=1)
    assert 0 < off.max() < grid.cell / 8
    np.testing.assert_allclose(rounded[:3, :3] @ rounded[:3, :3].T, np.eye(3), atol=1e-12)


def test_a_vehicle_that_stands_has_the_table_of_its_rig():
    spec = small_spec(cameras=1)
    motion = EgoMotion(RIG, [], NOW, Ego(shift(4e5, 5e6), (0.0, 0.0, 0.0)), {"c": NOW - 40 * MS})
    tables = [ops.lift_table(spec, rig) for rig in (RIG, motion.exposure_rig(RIG, spec.grid))]
    for name in ("cells", "starts", "points", "pixels"):
        assert np.array_equal(getattr(tables[0], name), getattr(tables[1], name))


def test_past_frames_are_joined_by_poses_else_by_twists():
    twist = np.array([10.0, 0, 0, 0, 0, 0.4])
    ego = tuple(twist[[0, 1, 5]])

    def motion(ms: int, pose: bool) -> EgoMotion:
        return EgoMotion(RIG, [], NOW + ms * MS, Ego(pose_at(twist, ms) if pose else None, ego))

    for then, now in ((True, True), (True, False), (False, False)):
        T_then_now = motion(500, now).since(motion(0, then))
        np.testing.assert_allclose(T_then_now, pose_at(twist, 500), atol=1e-9)
    jump = EgoMotion(RIG, [], NOW + 500 * MS, Ego(shift(51)))  # faster than 100 m/s
    assert jump.since(EgoMotion(RIG, [], NOW, Ego(np.eye(4)))) is None
