"""An augmented sample is consistent: sensors and labels agree after the change as before."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import DISTORTIONS, opencv_pixels, random_camera

from imkd_edge import ops
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import CameraCalibration, RadarCalibration, SensorRig
from imkd_edge.sources.base import Sample, Truth
from imkd_edge.training import augment
from imkd_edge.training.config import load_config
from imkd_edge.training.data import FrameDataset
from imkd_edge.training.lidar import CHANNELS, STATISTICS
from imkd_edge.training.sections import AugmentConfig
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
    rig = SensorRig(cameras=[camera], radars=[radar])
    frames = {"front": rng.integers(0, 256, (192, 640, 3), np.uint8)}
    sweeps = [RadarSweep("radar", points, 9 * 10**8, T_then)]
    ego = Ego(T_world_ego, np.array([8.0, 0.3, 0.1]))
    truth = Truth(boxes, ["car"] * 6, np.zeros(6, np.int8), unknown, unknown)
    lidar = rng.uniform([2, -20, -1, 0], [50, 20, 2, 255], (100, 4)).astype(np.float32)
    return Sample("0", 10**9, rig, frames, sweeps, ego, truth, lidar=lidar)


def pixels(sample: Sample) -> np.ndarray:
    camera = sample.rig.cameras[0]
    centres = np.c_[sample.truth.boxes[:, :3], np.ones(len(sample.truth.boxes))]
    p = centres @ np.linalg.inv(np.array(camera.T_ego_camera)).T
    q = p[:, :3] @ np.array(camera.K).T
    return q[:, :2] / q[:, 2:]


def reference_points(sample: Sample) -> np.ndarray:
    """Radar points in the ego frame of the reference time, through the poses."""
    sweep, T_ego_radar = sample.radar[0], np.array(sample.rig.radars[0].T_ego_radar)
    T = np.linalg.inv(np.array(sample.ego.T_world_ego)) @ np.array(sweep.T_world_ego) @ T_ego_radar
    return sweep.points[:, :3] @ T[:3, :3].T + T[:3, 3]


def test_mirroring_twice_returns_the_sample():
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


@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_mirrored_points_project_onto_the_mirrored_image_of_any_lens(distortion):
    """Both images by hand: OpenCV's lens, then K with its skew."""
    rng = np.random.default_rng(3)
    camera = random_camera(rng, "c", distortion)
    sample = Sample("0", 0, SensorRig(cameras=[camera]), {}, [])
    ahead = rng.uniform([-3, -2, 4], [3, 2, 20], (100, 3))
    points = ahead @ np.array(camera.T_ego_camera)[:3, :3].T + np.array(camera.T_ego_camera)[:3, 3]
    before = opencv_pixels(camera, points)
    after = opencv_pixels(augment.mirror(sample).rig.cameras[0], points * [1, -1, 1])
    np.testing.assert_allclose(after[:, 0], camera.width - 1 - before[:, 0], atol=1e-9)
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
def test_rotation_and_scale_move_sensors_and_labels_alike(angle, scale):
    sample = make_sample(1)
    other = augment.rotate_and_scale(sample, angle, scale)
    other.rig.check()
    R = rotation(angle)[:3, :3]
    np.testing.assert_allclose(pixels(other), pixels(sample), atol=1e-6)
    np.testing.assert_allclose(reference_points(other), reference_points(sample) @ R.T * scale, atol=2e-3)
    np.testing.assert_allclose(other.lidar[:, :3], sample.lidar[:, :3] @ R.T * scale, atol=1e-3)
    np.testing.assert_allclose(other.truth.boxes[:, 7:9], sample.truth.boxes[:, 7:9] @ R[:2, :2].T, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(other.ego.twist[:2]), np.linalg.norm(sample.ego.twist[:2]))


@settings(max_examples=30, deadline=None)
@given(flip=st.booleans(), angle=st.floats(-3, 3), scale=st.floats(0.8, 1.2))
def test_objects_on_the_road_stay_on_it_in_the_changed_world(flip, angle, scale):
    sample = make_sample(4)
    sample.rig.ground_plane = (0.0495, -0.0756, -1.602)  # a road with a cross slope
    other = augment.mirror(sample) if flip else sample
    other = augment.rotate_and_scale(other, angle, scale)

    def above(sample, points):
        a, b, c = sample.rig.ground_plane
        return [z - (a * x + b * y + c) for x, y, z in points.astype(float)]

    for a, b in ((sample.truth.boxes[:, :3], other.truth.boxes[:, :3]), (sample.lidar[:, :3], other.lidar[:, :3])):
        np.testing.assert_allclose(above(other, b), np.array(above(sample, a)) * scale, atol=1e-4)
    radar, expected = above(other, reference_points(other)), np.array(above(sample, reference_points(sample))) * scale
    np.testing.assert_allclose(radar, expected, atol=2e-3)


def test_the_tensors_of_a_mirrored_example_are_mirrored():
    """On a road with a cross slope: radar, LiDAR and targets in the grid have reversed rows."""
    config = load_config("astyx-lite")
    flip_alone = AugmentConfig(flip=True, variants=4)
    config = dataclasses.replace(config, augment=flip_alone, data=dataclasses.replace(config.data, keep=True))
    sample = make_sample(5)
    sweep = dataclasses.replace(sample.radar[0], timestamp_ns=10**9, T_world_ego=None)
    sample = dataclasses.replace(sample, ego=None, radar=[sweep])
    sample.rig.ground_plane = (0.0495, -0.0756, -1.602)
    data = FrameDataset(OneSample(sample), ["0"], config, seed=0)
    data.sensors, data.radar, data.lidar = False, True, True
    examples = {}
    for data.epoch in range(4):
        examples[data.image_change(0, data.variant(0)).flip] = data[0]
    plain, mirrored = examples[False], examples[True]
    features = [f.statistic for f in config.spec.radar.features]
    grids = [("radar_grid", [i for i, f in enumerate(features) if f != "offset_y"])]
    grids += [("lidar_grid", [i for i in range(CHANNELS) if i != list(STATISTICS).index("offset_y")]), ("heatmap", [0])]
    for name, channels in grids:
        a, b = plain[name].numpy()[channels], mirrored[name].numpy()[channels, ::-1]
        assert (a != 0).sum() > 20, name
        # Points within rounding of a border change cells.
        assert np.mean(np.isclose(a, b, atol=1e-3)[:, (a != 0).any(0)]) > 0.97, name
    for a, b in zip(heights(plain), sorted(heights(mirrored)), strict=True):
        assert a == pytest.approx(b, abs=1e-4)


class OneSample:
    kind, root = "test", None

    def __init__(self, sample: Sample):
        self.names, self.sample = [sample.name], sample

    def __getitem__(self, name: str) -> Sample:
        return self.sample


def heights(example: dict) -> list[float]:
    """Height of every object's centre above the road (m), ascending."""
    return sorted(example["box"][2][example["heatmap"][0] == 1].tolist())


def test_rotation_of_the_world_does_not_change_the_depth_of_boxes():
    spec, sample = load_config("astyx-lite").spec, make_sample(2)
    sample = dataclasses.replace(sample, lidar=None)
    crop = [ops.image_crop(spec.image, 640, 192)]
    rotated = augment.rotate_and_scale(sample, 0.3, 1.0)
    np.testing.assert_array_equal(depth_targets(spec, rotated, crop), depth_targets(spec, sample, crop))


def test_the_runtimes_radar_grid_rotates_with_the_world():
    """A rotation by 90 degrees rotates the occupied cells of the grid."""
    spec = load_config("tiny").spec
    sample = make_sample(3)
    sweep = dataclasses.replace(sample.radar[0], timestamp_ns=10**9, T_world_ego=sample.ego.T_world_ego)
    sample = dataclasses.replace(sample, radar=[sweep])
    before, _ = ops.voxelize_radar(spec, sample.rig, sample.radar, sample.timestamp_ns, sample.ego)
    rotated = augment.rotate_and_scale(sample, np.pi / 2, 1.0)
    after, _ = ops.voxelize_radar(spec, rotated.rig, rotated.radar, rotated.timestamp_ns, rotated.ego)
    expected = np.rot90(before[0], -1)  # +90 degrees about z maps +x (columns) to +y (rows)
    assert (expected > 0).sum() > 40
    assert np.mean((after[0] > 0) == (expected > 0)) > 0.999  # points within rounding of a border may change cells


def test_colour_change_is_monotone_and_flip_is_a_mirror():
    image = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, 2)
    changed = augment.change_image(image, augment.ImageChange(flip=True, gain=1.2, offset=-10.0))
    assert (np.diff(changed[0, ::-1, 0].astype(int)) >= 0).all() and changed.dtype == np.uint8
    assert changed[0, -1, 0] == 0 and changed[0, -101, 0] == 110  # 100 * 1.2 - 10


def test_some_images_are_as_dark_as_at_night_and_the_others_as_without_darkening():
    def changes(dark: float) -> list[augment.ImageChange]:
        config = AugmentConfig(dark=dark, colour=0.2, image_scale=0.1)
        return [augment.draw_image_change(np.random.default_rng(i), config) for i in range(400)]

    light, some = changes(0.0), changes(0.25)
    ratios = np.array([b.gain / a.gain for a, b in zip(light, some, strict=True)])
    assert ((ratios >= 1 / 32) & (ratios <= 1)).all() and 0.2 < np.mean(ratios < 1) < 0.3
    stops = -np.log2(ratios[ratios < 1])  # uniform from 0 to 5: mean 2.5
    assert stops.max() > 4.5 and abs(stops.mean() - 2.5) < 0.4
    assert all(a == b for a, b, ratio in zip(light, some, ratios, strict=True) if ratio == 1)


@pytest.mark.parametrize(
    "config", [AugmentConfig(drop_points=0.5), AugmentConfig(drop_radar=1.0), AugmentConfig(drop_camera=1.0)]
)
def test_dropping_removes_and_never_adds(config):
    sample = make_sample()
    other = augment.drop(sample, np.random.default_rng(0), config)
    assert set(other.frames) <= set(sample.frames)
    assert sum(len(s.points) for s in other.radar) <= sum(len(s.points) for s in sample.radar)
    assert other.frames != sample.frames or len(other.radar) != 1 or len(other.radar[0].points) < 80


@pytest.mark.parametrize(
    "ego, earlier, estimated",
    [(None, False, True), (Ego(rotation(0.7)), False, True), (Ego(rotation(0.7)), True, False)],
)
def test_the_radar_gives_an_unknown_ego_speed_before_the_world_rotates(ego, earlier, estimated):
    """A pose gives a motion only with another pose at least 10 ms away.

    At 14 m/s static returns have a radial velocity of -14 m/s times the cosine of their bearing.
    """
    sample = make_sample(7)
    points = sample.radar[0].points.copy()
    mount = np.array(sample.rig.radars[0].T_ego_radar)
    ahead = (points[:, :3] / np.linalg.norm(points[:, :3], axis=1, keepdims=True)) @ mount[0, :3]
    points[:, 4] = -14 * ahead
    radar = RadarCalibration(name="radar", T_ego_radar=mount, velocity="raw")
    changes = {} if earlier else {"timestamp_ns": None, "T_world_ego": None}
    sweep = dataclasses.replace(sample.radar[0], points=points, **changes)
    rig = SensorRig(cameras=sample.rig.cameras, radars=[radar])
    sample = dataclasses.replace(sample, ego=ego, radar=[sweep], rig=rig)
    read = FrameDataset(OneSample(sample), ["0"], load_config("tiny"), seed=0).read("0").ego
    assert (read.twist is not None) == estimated
    if estimated:
        np.testing.assert_allclose(read.twist, [14, 0, 0], atol=0.01)
    assert read.T_world_ego is (ego and ego.T_world_ego)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), bound=st.floats(0.1, 5))
def test_a_tilt_is_within_its_bound_and_off_without_one(seed, bound):
    images = augment.ImageChange()
    with_tilt = augment.draw_view(
        np.random.default_rng(seed), AugmentConfig(rotation=0.3, scale=0.1, tilt=bound), images
    )
    without = augment.draw_view(np.random.default_rng(seed), AugmentConfig(rotation=0.3, scale=0.1), images)
    assert 0 <= with_tilt.tilt[0] <= bound and 0 <= with_tilt.tilt[1] <= 360 and without.tilt == (0, 0)
    assert (with_tilt.angle, with_tilt.scale) == (without.angle, without.scale)


def test_objects_keep_their_height_above_the_road_in_a_tilted_mounting():
    """The box target of a tilted example is that of the same example, within what 2 degrees do to a height."""
    config, sample = load_config("astyx-lite"), make_sample(4)
    sample.rig.ground_plane = (0.0495, -0.0756, -1.602)
    off = AugmentConfig(flip=False)
    data = FrameDataset(
        OneSample(sample), ["0"], dataclasses.replace(config, augment=dataclasses.replace(off, tilt=2.0)), seed=0
    )
    tilted = data.changed(sample, augment.View(augment.ImageChange(), 0.0, 1.0, (2.0, 30.0)), np.random.default_rng(0))
    assert tilted.rig.ground_plane != sample.rig.ground_plane

    def above(sample):
        a, b, c = sample.rig.ground_plane
        return sample.truth.boxes[:, 2] - (a * sample.truth.boxes[:, 0] + b * sample.truth.boxes[:, 1] + c)

    np.testing.assert_allclose(above(tilted), above(sample), atol=0.02)
