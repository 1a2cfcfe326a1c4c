"""Targets: perfect outputs decode to the labels, and depth is that of the box or the point."""

import dataclasses

import numpy as np
import pytest
from op_cases import DISTORTIONS, opencv_pixels

from imkd_edge import ModelSpec, ops
from imkd_edge.rig import CameraCalibration, SensorRig
from imkd_edge.sources import open_source
from imkd_edge.sources.base import Sample, Truth
from imkd_edge.training.config import load_config
from imkd_edge.training.data import FrameDataset
from imkd_edge.training.targets import depth_bin, depth_targets, head_targets

CLASSES = {"car": "car", "truck": "truck", "person": "person"}
LOOKING_FORWARD = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])  # optical z along ego x


def make_truth(boxes, labels, occlusion=None) -> Truth:
    boxes = np.array(boxes, np.float64).reshape(-1, 9)
    unknown = np.full(len(boxes), -1, np.int32)
    occlusion = np.zeros(len(boxes), np.int8) if occlusion is None else np.array(occlusion, np.int8)
    return Truth(boxes, list(labels), occlusion, unknown, unknown)


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return load_config("astyx-lite").spec


def scene(truth: Truth | None = None, lidar: np.ndarray | None = None) -> Sample:
    K = np.array([[640.0, 0, 319.5], [0, 640.0, 95.5], [0, 0, 1]])
    camera = CameraCalibration(name="front", width=640, height=192, K=K, T_ego_camera=LOOKING_FORWARD)
    frames = {"front": np.zeros((192, 640, 3), np.uint8)}
    return Sample("0", 0, SensorRig(cameras=[camera], radars=[]), frames, [], truth=truth, lidar=lidar)


def test_perfect_outputs_decode_to_the_truth(spec):
    boxes = [
        [20.3, 4.1, -0.2, 4.5, 1.8, 1.5, 0.7, 8.0, 2.0],
        [55.5, -11.7, 1.6, 9.0, 2.6, 3.4, -2.9, 0.0, 0.0],
        [9.1, -3.2, -0.4, 0.8, 0.7, 1.8, 1.5, 0.5, -1.0],
    ]
    labels = ["car", "truck", "person"]
    target = head_targets(spec, make_truth(boxes, labels), CLASSES)
    logits = np.where(target["heatmap"] == 1, 8.0, -8.0).astype(np.float32)
    decoded, _, classes = ops.decode(spec, logits, np.nan_to_num(target["box"]))
    names = [spec.head.classes[k].name for k in classes]
    for box, label in zip(boxes, labels):
        np.testing.assert_allclose(decoded[names.index(label)], box, atol=2e-4)


def test_the_heat_map_is_one_at_each_centre_and_nowhere_else(spec):
    truth = make_truth([[30, 0, 0, 4, 1.8, 1.5, 0.3, 0, 0], [60, 5, 0, 4, 1.8, 1.5, 0, 0, 0]], ["car", "car"])
    target = head_targets(spec, truth, CLASSES)
    assert (target["heatmap"] == 1).sum() == 2
    assert target["heatmap"][0, int(25.6 / 0.64), int(30 / 0.64)] == 1


def test_the_gaussian_follows_the_heading(spec):
    across = head_targets(spec, make_truth([[40, 0, 0, 8, 2, 2, np.pi / 2, 0, 0]], ["car"]), CLASSES)["heatmap"][0]
    row, column = np.argwhere(across == 1)[0]
    assert across[row + 2, column] > across[row, column + 2] + 0.2


@pytest.mark.parametrize("box", [[150, 0], [-1, 0], [30, 40], [np.nan, 0]])
def test_objects_outside_the_grid_have_no_target(spec, box):
    target = head_targets(spec, make_truth([[*box, 0, 4, 2, 1.5, 0, 0, 0]], ["car"]), CLASSES)
    assert target["heatmap"].sum() == 0 and target["weight"].sum() == 0


@pytest.mark.parametrize("occlusion, returns, objects", [(3, 0, 0), (3, 2, 1), (2, 0, 1), (3, -1, 1)])
def test_objects_that_no_sensor_sees_have_no_target(spec, occlusion, returns, objects):
    truth = make_truth([[30, 0, 0, 4, 2, 1.5, 0, 0, 0]], ["car"], [occlusion])
    truth = dataclasses.replace(truth, radar_points=np.array([returns], np.int32))
    assert (head_targets(spec, truth, CLASSES)["heatmap"] == 1).sum() == objects


def test_the_caller_may_select_the_objects(spec):
    truth = make_truth([[30, 0, 0, 4, 2, 1.5, 0, 0, 0], [60, 5, 0, 4, 2, 1.5, 0, 0, 0]], ["car", "car"])
    assert (head_targets(spec, truth, CLASSES, np.array([False, True]))["heatmap"] == 1).sum() == 1


def test_objects_that_the_metric_ignores_have_no_target():
    """nuScenes' rule: an object without any LiDAR or radar point counts as a false positive."""
    source = open_source("synth", scenes=1, frames_per_scene=1)
    sample = source[source.names[0]]
    zero = np.zeros(len(sample.truth.labels), np.int32)
    invisible = dataclasses.replace(sample.truth, radar_points=zero, lidar_points=zero, occlusion=zero.astype(np.int8))
    config = load_config("tiny")
    for truth, objects in ((sample.truth, True), (invisible, False)):
        data = FrameDataset(source, source.names, config, 0, train=False)
        data.memory[source.names[0]] = dataclasses.replace(sample, truth=truth)
        assert bool((data[0]["heatmap"] == 1).any()) == objects


def test_unmapped_labels_are_background(spec):
    assert head_targets(spec, make_truth([[30, 0, 0, 4, 2, 1.5, 0, 0, 0]], ["animal"]), CLASSES)["heatmap"].sum() == 0


def test_unknown_velocity_stays_unknown(spec):
    target = head_targets(spec, make_truth([[30, 0, 0, 4, 2, 1.5, 0, np.nan, np.nan]], ["car"]), CLASSES)
    where = target["weight"] > 0
    assert np.isnan(target["box"][8:, where]).all() and np.isfinite(target["box"][:8, where]).all()


def test_depth_bins_follow_the_logarithmic_edges(spec):
    edges = 3.0 * (110.0 / 3.0) ** (np.arange(49) / 48)
    inside = np.sqrt(edges[:-1] * edges[1:])
    np.testing.assert_array_equal(depth_bin(spec, inside), np.arange(48))
    np.testing.assert_array_equal(depth_bin(spec, np.array([2.9, 111.0, np.inf, np.nan])), -1)


def test_the_depth_of_a_box_is_that_of_its_near_face(spec):
    truth = make_truth([[20, 0, 0, 4, 2, 2, 0, 0, 0]], ["car"])
    target = depth_targets(spec, scene(truth), [ops.ImageCrop(1.0, 0.0, 0.0)])[0]
    face = depth_bin(spec, np.array([18.0]))[0]
    rows, columns = np.nonzero(target >= 0)
    assert set(target[rows, columns]) == {face}
    # The near face is 2 m wide and high at 18 m: 71 px, about 9 feature pixels of 8 px.
    assert 8 <= len(set(rows)) <= 10 and 8 <= len(set(columns)) <= 10


def test_the_nearest_box_wins_and_occluded_boxes_have_no_depth(spec):
    near, far = [15, 0, 0, 4, 2, 2, 0, 0, 0], [30, 0, 0, 4, 8, 2, 0, 0, 0]
    target = depth_targets(spec, scene(make_truth([far, near], ["car", "car"])), [ops.ImageCrop(1.0, 0.0, 0.0)])[0]
    assert set(target[target >= 0]) == set(depth_bin(spec, np.array([13.0, 28.0])))
    hidden = depth_targets(spec, scene(make_truth([near], ["car"], [3])), [ops.ImageCrop(1.0, 0.0, 0.0)])[0]
    assert (hidden == -1).all()


def test_lidar_gives_the_nearest_point_of_a_pixel(spec):
    lidar = np.array([[25.0, 0, 0, 10], [12.0, 0, 0, 10], [-12.0, 0, 0, 10]], np.float32)
    target = depth_targets(spec, scene(lidar=lidar), [ops.ImageCrop(1.0, 0.0, 0.0)])[0]
    assert list(target[target >= 0]) == [depth_bin(spec, np.array([12.0]))[0]]
    # The principal point, (319.5, 95.5), is the corner of this feature pixel.
    assert np.argwhere(target >= 0).tolist() == [[12, 40]]


@pytest.mark.parametrize("distortion", ["plumb_bob", "rational_polynomial", "fisheye"])
def test_a_lidar_point_lies_in_the_feature_pixel_that_shows_it_through_the_lens(spec, distortion):
    sample = scene()
    camera = sample.rig.cameras[0]
    camera.K = np.array([[330.0, 0, 319.5], [0, 330, 95.5], [0, 0, 1]])
    camera.distortion, camera.coefficients = distortion, DISTORTIONS[distortion]
    sample.rig.cameras = [camera]
    for x, y, z in np.random.default_rng(0).uniform([5, -4, -1], [20, 4, 1], (50, 3)):
        u, v = opencv_pixels(camera, np.array([[x, y, z]]))[0]
        assert 0 <= u < 640 and 0 <= v < 192
        seen = dataclasses.replace(sample, lidar=np.array([[x, y, z, 9]], np.float32))
        target = depth_targets(spec, seen, [ops.ImageCrop(1.0, 0.0, 0.0)])[0]
        assert np.argwhere(target >= 0).tolist() == [[int((v + 0.5) // 8), int((u + 0.5) // 8)]]
        assert target.max() == depth_bin(spec, np.array([x]))[0]


def test_absent_cameras_have_no_depth(spec):
    sample = dataclasses.replace(scene(make_truth([[20, 0, 0, 4, 2, 2, 0, 0, 0]], ["car"])), frames={})
    assert (depth_targets(spec, sample, [ops.ImageCrop(1.0, 0.0, 0.0)]) == -1).all()
