"""The View-of-Delft reader on a folder written by hand, with the set's own devkit as reference."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pyquaternion import Quaternion
from sources.vod_folder import (
    HEIGHT,
    NAMES,
    OBJECTS,
    P2,
    SPLITS,
    WIDTH,
    calibration,
    calibration_text,
    devkit,
    lidar_rows,
    radar_rows,
    write_vod,
)

from helpers import random_spec
from imkd_edge import ModelSpec, ops
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.sources import open_source
from imkd_edge.sources.vod import VodSource


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_vod(tmp_path_factory.mktemp("vod"))


@pytest.fixture(scope="module")
def source(root) -> VodSource:
    return VodSource(root)


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_vod(tmp_path)


def reference(root: Path, name: str):
    """The devkit's data and transforms of a frame."""
    vod = devkit()
    data = vod.frame.FrameDataLoader(vod.configuration.KittiLocations(root_dir=str(root)), name)
    return data, vod.frame.FrameTransformMatrix(data)


def corners(box: np.ndarray) -> np.ndarray:
    """(8, 3) corners of x, y, z centre, l, w, h, yaw, the devkit's order."""
    signs = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]] * 2)
    local = np.concatenate([signs * box[3:5] / 2, np.repeat([-0.5, 0.5], 4)[:, None] * box[5]], 1)
    return local @ Quaternion(axis=[0, 0, 1], radians=box[6]).rotation_matrix.T + box[:3]


# ---- against the devkit ----
@pytest.mark.parametrize("name", NAMES[:4])
def test_boxes_are_the_devkits(source, root, name):
    data, transforms = reference(root, name)
    labels = devkit().frame.FrameLabels(data.raw_labels)
    helpers = devkit().visualization.helpers
    expected = helpers.get_transformed_3d_label_corners(labels, np.eye(4), transforms.t_camera_lidar)
    truth = source[name].truth
    assert len(truth.boxes) == len(expected) == len(OBJECTS)
    for box, label, item in zip(truth.boxes, truth.labels, expected, strict=True):
        # the devkit counts in float32
        assert np.allclose(corners(box), item["corners_3d_transformed"][:, :3], atol=2e-5)
        assert label == item["label_class"].lower()


@pytest.mark.parametrize("name", NAMES)
def test_calibration_and_pose_are_the_devkits(source, root, name):
    _, transforms = reference(root, name)
    sample = source[name]
    camera, radar = sample.rig.cameras[0], sample.rig.radars[0]
    assert np.allclose(camera.T_ego_camera, transforms.t_lidar_camera, atol=1e-5)
    assert np.allclose(radar.T_ego_radar, transforms.t_lidar_radar, atol=1e-5)
    assert np.allclose(camera.K, transforms.camera_projection_matrix[:, :3], atol=1e-3)
    assert np.allclose(sample.ego.T_world_ego, transforms.t_odom_camera @ transforms.t_camera_lidar, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_points_are_the_devkits(root, name):
    data, transforms = reference(root, name)
    sample = VodSource(root, scans=1)[name]
    assert np.array_equal(sample.lidar, data.lidar_data) and sample.lidar.dtype == np.float32
    [sweep] = sample.radar
    assert np.array_equal(sweep.points, data.radar_data[:, [0, 1, 2, 3, 5]])
    expected = devkit().frame.transform_pcl(data.radar_data, transforms.t_lidar_radar)[:, :3]
    T = np.asarray(sample.rig.radars[0].T_ego_radar)
    assert np.allclose(sweep.points[:, :3] @ T[:3, :3].T + T[:3, 3], expected, atol=1e-4)


# ---- as written ----
def test_a_frame_is_read_as_written(root):
    source = open_source(root)
    assert isinstance(source, VodSource) and source.kind == "vod" and source.names == NAMES and source.splits == SPLITS
    sample = source[NAMES[1]]
    assert sample.timestamp_ns == 54_300_000_000 and source[NAMES[2]].timestamp_ns - sample.timestamp_ns == 100_000_000
    image = sample.frames["camera_front"]
    assert image.shape == (HEIGHT, WIDTH, 3) and np.abs(image.reshape(-1, 3).mean(0) - [220, 120, 20]).max() < 3  # RGB
    camera = sample.rig.cameras[0]
    assert (camera.width, camera.height, str(camera.distortion)) == (WIDTH, HEIGHT, "none") and np.allclose(
        camera.K, P2[:, :3]
    )
    assert sample.truth.labels == ["car", "car", "pedestrian", "cyclist", "bicycle_rack", "rider"]
    assert sample.truth.occlusion.tolist() == [0, 1, 0, 2, 0, 2]
    for box, (_, x, y, z, length, width, height, yaw, _) in zip(sample.truth.boxes, OBJECTS, strict=True):
        assert np.allclose(box[:7], [x, y, z + height / 2, length, width, height, yaw], atol=1e-5)
        assert np.isnan(box[7:]).all()


def test_scenes_are_the_recordings(source):
    assert [sample.scene for sample in source] == ["delft_1", "delft_1", "delft_2", "delft_2", "delft_7"]


def test_points_are_counted_in_the_boxes(source):
    truth = source[NAMES[0]].truth
    assert truth.radar_points[[0, 1, 2, 4]].tolist() == [10, 10, 10, 10]  # twice in each of five scans
    assert (truth.radar_points[[3, 5]] >= 10).all() and (
        truth.lidar_points[[3, 5]] >= 8
    ).all()  # the cyclist and his rider share theirs
    assert truth.lidar_points[[0, 1, 2, 4]].tolist() == [8, 8, 8, 8]
    bare = VodSource(source.path, lidar=False, images=False)[NAMES[0]]
    assert bare.lidar is None and not bare.frames and bare.truth.lidar_points.tolist() == [-1] * 6


def test_the_accumulated_scans_are_one_sweep_of_the_newest_time(source):
    sample, table = source[NAMES[1]], radar_rows(1, 5)
    [sweep] = sample.radar
    expected = np.concatenate([table[table[:, 6] == -age] for age in range(5)])
    assert np.array_equal(sweep.points, expected[:, [0, 1, 2, 3, 5]])
    assert sweep.timestamp_ns == sample.timestamp_ns and np.array_equal(sweep.T_world_ego, sample.ego.T_world_ego)
    assert str(sample.rig.radars[0].velocity) == "compensated"


def test_accumulated_scans_are_not_moved_again(source):
    """Their standing targets lie in the grid where they lie in the cloud, whatever motion is known."""
    spec = json.loads(random_spec(1).to_json())
    spec["radar"]["features"] = [
        {"statistic": name, "offset": 0, "scale": 1} for name in ("log_count", "intensity_max")
    ]
    spec = ModelSpec.from_json(json.dumps(spec))
    sample = source[NAMES[1]]
    at_rest = RadarSweep("radar_front", sample.radar[0].points * np.float32([1, 1, 1, 1, 0]))
    expected, _ = ops.voxelize_radar(spec, sample.rig, [at_rest], sample.timestamp_ns, None)
    sweeps = [replace(sample.radar[0], points=at_rest.points)]
    for ego in (None, sample.ego, Ego(sample.ego.T_world_ego, (9.0, 0.0, 0.2))):
        grid, _ = ops.voxelize_radar(spec, sample.rig, sweeps, sample.timestamp_ns, ego)
        assert np.array_equal(grid, expected) and (grid[0] > 0).sum() > 10


def test_raw_velocity_shows_the_vehicle(root):
    """Static targets approach at the vehicle's speed: from them the core estimates its 7 m/s."""
    sample = VodSource(root, scans=1, velocity="raw")[NAMES[0]]
    [sweep] = sample.radar
    assert np.array_equal(sweep.points[:, 4], radar_rows(0, 1)[:, 4]) and str(sample.rig.radars[0].velocity) == "raw"
    standing = replace(sweep, points=np.tile(sweep.points[-9:], (3, 1)))
    speed = ops.estimate_ego_speed(sample.rig, [standing])
    assert speed.valid and speed.speed == pytest.approx(7, abs=0.05)
    [compensated] = VodSource(root, scans=1)[NAMES[0]].radar
    assert not compensated.points[-9:, 4].any()


def test_each_frame_has_its_own_calibration(folder):
    before = VodSource(folder)[NAMES[0]]
    T_camera_lidar, T_camera_radar = calibration(0)
    turn = np.eye(4)
    turn[:3, :3] = Quaternion(axis=[0, 0, 1], degrees=3).rotation_matrix
    turn[:3, 3] = 0.5, -0.2, 0.1
    (folder / "radar_5frames" / "training" / "calib" / f"{NAMES[0]}.txt").write_text(
        calibration_text(T_camera_radar @ turn)
    )
    after = VodSource(folder)[NAMES[0]]
    assert np.allclose(after.rig.radars[0].T_ego_radar, np.asarray(before.rig.radars[0].T_ego_radar) @ turn, atol=1e-7)
    assert np.array_equal(after.truth.boxes, before.truth.boxes, equal_nan=True) and after.truth.radar_points.sum() < 30
    (folder / "lidar" / "training" / "calib" / f"{NAMES[0]}.txt").write_text(calibration_text(T_camera_lidar @ turn))
    moved = VodSource(folder)[NAMES[0]]  # the same labels in the camera frame, with another LiDAR
    expected = np.linalg.inv(T_camera_lidar @ turn) @ T_camera_lidar @ [*OBJECTS[0][1:4], 1]
    assert np.allclose(moved.truth.boxes[0, :3], expected[:3] + [0, 0, OBJECTS[0][6] / 2], atol=1e-5)
    # its rotation is about the LiDAR's axis
    assert moved.truth.boxes[0, 6] == pytest.approx(OBJECTS[0][7], abs=1e-6)
    assert np.allclose(
        VodSource(folder)[NAMES[1]].rig.cameras[0].T_ego_camera, np.linalg.inv(calibration(1)[0]), atol=1e-7
    )


def test_subsets_keep_the_options(root):
    part = VodSource(root, scans=1, velocity="raw", images=False).subset(SPLITS["val"])
    assert part.names == SPLITS["val"] and len(part) == 2
    assert [(s.name, len(s.radar), len(s.frames)) for s in part] == [("00544", 1, 0), ("00545", 1, 0)]


def test_the_documents_folder_names_are_known_too(folder):
    (folder / "radar_5frames").rename(folder / "radar_5_scans")
    [sweep] = VodSource(folder)[NAMES[0]].radar
    assert len(sweep.points) == len(radar_rows(0, 5))


def test_frames_of_the_testing_folder_are_found_and_have_no_truth(folder):
    for sensor, kinds in (
        ("lidar", ("image_2", "velodyne", "calib", "pose")),
        ("radar_5frames", ("velodyne", "calib")),
    ):
        for kind in kinds:
            file = next((folder / sensor / "training" / kind).glob(f"{NAMES[4]}.*"))
            target = folder / sensor / "testing" / kind
            target.mkdir(parents=True)
            file.rename(target / file.name)
    source = VodSource(folder)
    assert source.names == NAMES and source[NAMES[4]].truth is None
    assert np.array_equal(source[NAMES[4]].lidar, lidar_rows(4)) and source[NAMES[4]].ego is not None


def test_png_images_are_read_too(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    image = folder / "lidar" / "training" / "image_2" / f"{NAMES[0]}.jpg"
    image.unlink()
    cv2.imwrite(str(image.with_suffix(".png")), pixels[..., ::-1])
    assert np.array_equal(VodSource(folder)[NAMES[0]].frames["camera_front"], pixels)


def test_without_labels_lidar_and_poses_there_is_less(folder):
    for kind in ("label_2", "velodyne", "pose"):
        shutil.rmtree(folder / "lidar" / "training" / kind)
    sample = VodSource(folder)[NAMES[0]]
    assert sample.truth is None and sample.lidar is None and sample.ego is None and sample.radar[0].T_world_ego is None


def test_an_empty_label_file_is_an_empty_truth(folder):
    (folder / "lidar" / "training" / "label_2" / f"{NAMES[0]}.txt").write_text("")
    truth = VodSource(folder)[NAMES[0]].truth
    assert truth.boxes.shape == (0, 9) and truth.labels == [] and len(truth.radar_points) == 0


def test_dont_care_regions_and_scores_are_left_out(folder):
    path = folder / "lidar" / "training" / "label_2" / f"{NAMES[0]}.txt"
    lines = [line.rsplit(" ", 1)[0] for line in path.read_text().splitlines()]  # without the score
    path.write_text("\n".join(["DontCare -1 -1 -10 503 169 590 190 -1 -1 -1 -1000 -1000 -1000 -10", *lines]) + "\n")
    truth = VodSource(folder)[NAMES[0]].truth
    assert len(truth.labels) == 6 and np.allclose(truth.boxes[0, :2], OBJECTS[0][1:3], atol=1e-5)


def test_tracking_numbers_in_the_truncation_column_change_nothing(folder):
    path = folder / "lidar" / "training" / "label_2" / f"{NAMES[0]}.txt"
    before = VodSource(folder)[NAMES[0]].truth.boxes
    path.write_text(path.read_text().replace("Car 0 ", "Car 1757 "))
    assert np.array_equal(VodSource(folder)[NAMES[0]].truth.boxes, before, equal_nan=True)
