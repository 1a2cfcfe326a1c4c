"""An augmented sample must be a sample of a consistent world: what projects together before must do so after."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imkd_edge import ops
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import CameraCalibration, RadarCalibration, SensorRig
from imkd_edge.sources.sample import Sample, Truth
from imkd_edge.training import augment
from imkd_edge.training.config import AugmentConfig, load_config
from imkd_edge.training.targets import depth_targets


def rotation(yaw: float, pitch: float = 0.0) -> np.ndarray:
    c, s, d, t = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    T = np.eye(4)
    T[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[d, 0, t], [0, 1, 0], [-t, 0, d]])
    return T


def make_sample(seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    forward = np.array([[0.0, 0, 1, 1.5], [-1, 0, 0, 0.2], [0, -1, 0, 1.4], [0, 0, 0, 1]])
    K = np.array([[600.0, 0, 330.0], [0, 610.0, 90.0], [0, 0, 1]])
    camera = CameraCalibration(name="front", width=640, height=192, K=K, T_ego_camera=rotation(0.2, 0.05) @ forward)
    T_ego_radar = rotation(-0.4)
    T_ego_radar[:3, 3] = [3.5, -0.6, 0.5]
    radar = RadarCalibration(name="radar", T_ego_radar=T_ego_radar, velocity="compensated")
    points = rng.uniform([5, -20, -1, 0, -5], [60, 20, 2, 30, 5], (80, 5)).astype(np.float32)
    T_world_ego, T_then = rotation(0.7), rotation(0.65)
    T_world_ego[:3, 3], T_then[:3, 3] = [100, 50, 0], [99, 49.2, 0]
    boxes = np.c_[rng.uniform([8, -6, 0, 3, 1.5, 1.4, -3, -5, -5], [50, 10, 1, 5, 2, 2, 3, 5, 5], (6, 9))]
    unknown = np.full(6, -1, np.int32)
    return Sample(
        "0", 10**9, SensorRig(cameras=[camera], radars=[radar]), {"front": rng.integers(0, 256, (192, 640, 3), np.uint8)},
        [RadarSweep("radar", points, 9 * 10**8, T_then)], Ego(T_world_ego, np.array([8.0, 0.3, 0.1])),
        Truth(boxes, ["car"] * 6, np.zeros(6, np.int8), unknown, unknown),
        lidar=rng.uniform([2, -20, -1, 0], [50, 20, 2, 255], (100, 4)).astype(np.float32),
    )  # fmt: skip


def pixels(sample: Sample) -> np.ndarray:
    camera = sample.rig.cameras[0]
    p = np.c_[sample.truth.boxes[:, :3], np.ones(len(sample.truth.boxes))] @ np.linalg.inv(np.array(camera.T_ego_camera)).T
    q = p[:, :3] @ np.array(camera.K).T
    return q[:, :2] / q[:, 2:]


def reference_points(sample: Sample) -> np.ndarray:
    """Radar points in the ego frame of the reference time, through the poses."""
    sweep, T_ego_radar = sample.radar[0], np.array(sample.rig.radars[0].T_ego_radar)
    T = np.linalg.inv(np.array(sample.ego.T_world_ego)) @ np.array(sweep.T_world_ego) @ T_ego_radar
    return sweep.points[:, :3] @ T[:3, :3].T + T[:3, 3]


def test_mirroring_twice_gives_the_sample_back():
    sample = make_sample()
    twice = augment.mirror(augment.mirror(sample))
    np.testing.assert_allclose(twice.truth.boxes, sample.truth.boxes, atol=1e-12)
    np.testing.assert_array_equal(twice.radar[0].points, sample.radar[0].points)
    np.testing.assert_allclose(np.array(twice.rig.cameras[0].K), np.array(sample.rig.cameras[0].K))
    np.testing.assert_allclose(np.array(twice.ego.T_world_ego), np.array(sample.ego.T_world_ego), atol=1e-12)


def test_mirrored_objects_project_onto_the_mirrored_image():
    sample = make_sample()
    before, after = pixels(sample), pixels(augment.mirror(sample))
    np.testing.assert_allclose(after[:, 0], 639 - before[:, 0], atol=1e-9)
    np.testing.assert_allclose(after[:, 1], before[:, 1], atol=1e-9)


def test_mirroring_reflects_radar_lidar_and_motion():
    sample = make_sample()
    other = augment.mirror(sample)
    np.testing.assert_allclose(reference_points(other), reference_points(sample) * [1, -1, 1], atol=1e-4)
    np.testing.assert_array_equal(other.lidar[:, 1], -sample.lidar[:, 1])
    np.testing.assert_allclose(other.ego.twist, [8.0, -0.3, -0.1])
    other.rig.check()


@settings(max_examples=30, deadline=None)
@given(angle=st.floats(-1.5, 1.5), scale=st.floats(0.8, 1.2))
def test_turning_and_scaling_moves_everything_alike(angle, scale):
    sample = make_sample(1)
    other = augment.turn_and_scale(sample, angle, scale)
    other.rig.check()
    R = rotation(angle)[:3, :3]
    np.testing.assert_allclose(pixels(other), pixels(sample), atol=1e-6)
    np.testing.assert_allclose(reference_points(other), reference_points(sample) @ R.T * scale, atol=2e-3)
    np.testing.assert_allclose(other.lidar[:, :3], sample.lidar[:, :3] @ R.T * scale, atol=1e-3)
    np.testing.assert_allclose(other.truth.boxes[:, 7:9], sample.truth.boxes[:, 7:9] @ R[:2, :2].T, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(other.ego.twist[:2]), np.linalg.norm(sample.ego.twist[:2]))


def test_depth_of_boxes_does_not_change_when_the_world_turns():
    spec, sample = load_config("astyx-lite").spec, make_sample(2)
    sample = dataclasses.replace(sample, lidar=None)
    crop = [ops.image_crop(spec.image, 640, 192)]
    turned = augment.turn_and_scale(sample, 0.3, 1.0)
    np.testing.assert_array_equal(depth_targets(spec, turned, crop), depth_targets(spec, sample, crop))


def test_the_runtime_sees_the_turned_radar_where_it_belongs():
    """Turning by 90 degrees and reading the grid turned back gives the same occupied cells."""
    spec = load_config("tiny").spec
    sample = make_sample(3)
    still = dataclasses.replace(
        sample, radar=[dataclasses.replace(sample.radar[0], timestamp_ns=10**9, T_world_ego=sample.ego.T_world_ego)]
    )
    before, _ = ops.voxelize_radar(spec, still.rig, still.radar, still.timestamp_ns, still.ego)
    turned = augment.turn_and_scale(still, np.pi / 2, 1.0)
    after, _ = ops.voxelize_radar(spec, turned.rig, turned.radar, turned.timestamp_ns, turned.ego)
    moved = np.rot90(before[0], -1)  # +90 degrees about z takes +x (columns) to +y (rows)
    assert (moved > 0).sum() > 40
    assert np.mean((after[0] > 0) == (moved > 0)) > 0.999  # points within rounding of a border may change cells


def test_colour_change_is_monotone_and_flip_is_a_mirror():
    image = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, 2)
    changed = augment.change_image(image, augment.ImageChange(flip=True, gain=1.2, offset=-10.0))
    assert (np.diff(changed[0, ::-1, 0].astype(int)) >= 0).all() and changed.dtype == np.uint8
    assert changed[0, -1, 0] == 0 and changed[0, -101, 0] == 110  # 100 * 1.2 - 10


@pytest.mark.parametrize("config", [AugmentConfig(drop_points=0.5), AugmentConfig(drop_radar=1.0), AugmentConfig(drop_camera=1.0)])
def test_dropping_takes_away_and_never_adds(config):
    sample = make_sample()
    other = augment.drop(sample, np.random.default_rng(0), config)
    assert set(other.frames) <= set(sample.frames)
    assert sum(len(s.points) for s in other.radar) <= sum(len(s.points) for s in sample.radar)
    assert other.frames != sample.frames or len(other.radar) != 1 or len(other.radar[0].points) < 80
