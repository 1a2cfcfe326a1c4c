"""The ground plane of Astyx frames: fitted on the training split, follows the calibration, needs no label."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from imkd_edge.sources.astyx import GROUND_OF_LIDAR, GROUND_OF_RADAR, AstyxSource, fit_ground
from imkd_edge.sources.plane import fit_plane, heights_above, transform_plane

NAME = "000105"


@pytest.fixture(scope="module")
def source(shared_data: Path) -> AstyxSource:
    return AstyxSource(shared_data / "astyx", images=False, lidar=False)


def bottoms(source: AstyxSource, names: list[str]) -> np.ndarray:
    """(N, 3) bottom centres of labelled cars, m in the radar frame, read from the label files."""
    points = []
    for name in names:
        objects = json.loads((source.path / "groundtruth_obj3d" / f"{name}.json").read_text())["objects"]
        for item in objects:
            if item["classname"] == "Car":
                points.append(np.array(item["center3d"]) - [0, 0, item["dimension3d"][2] / 2])
    return np.array(points)


def test_the_constants_are_a_fit_of_the_training_split(source):
    cars = bottoms(source, source.splits["train"])
    lidar, radar = fit_ground(source, source.splits["train"])
    assert np.sqrt(((heights_above(radar, cars) - heights_above(GROUND_OF_RADAR, cars)) ** 2).mean()) < 0.1
    _, T_ego_lidar = source.calibration(NAME, (2048, 618))
    assert np.allclose(transform_plane(T_ego_lidar, GROUND_OF_LIDAR), GROUND_OF_RADAR, atol=1e-5)
    assert np.allclose(transform_plane(T_ego_lidar, lidar), radar, atol=1e-3)


@pytest.mark.parametrize(("split", "rms", "median"), [("train", 0.34, 0.16), ("val", 0.33, 0.16)])
def test_cars_stand_on_the_plane(source, split, rms, median):
    plane = source[NAME].rig.ground_plane
    heights = heights_above(plane, bottoms(source, source.splits[split]))
    assert np.sqrt((heights**2).mean()) < rms
    assert np.median(np.abs(heights)) < median


def mounted(folder: Path, data: Path, T: np.ndarray | None, name: str = NAME) -> AstyxSource:
    """One frame whose calibration has every sensor moved by T in the ego frame; without LiDAR calibration for None."""
    for kind, suffix in (("radar_6455", ".txt.gz"), ("camera_front", ".jpg")):
        (folder / kind).mkdir()
        shutil.copy(data / kind / f"{name}{suffix}", folder / kind)
    content = json.loads((data / "calibration" / f"{name}.json").read_text())
    if T is None:
        content["sensors"] = [s for s in content["sensors"] if s["sensor_uid"] != "lidar_vlp16"]
    else:
        for sensor in content["sensors"]:
            calibration = sensor["calib_data"]
            calibration["T_to_ref_COS"] = (T @ np.array(calibration["T_to_ref_COS"])).tolist()
    (folder / "calibration").mkdir()
    (folder / "calibration" / f"{name}.json").write_text(json.dumps(content))
    return AstyxSource(folder)


def test_the_plane_follows_the_calibration(source, tmp_path):
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("xyz", [2, -3, 5], degrees=True).as_matrix()
    T[:3, 3] = [0.1, -0.2, 0.3]
    a, b, c = source[NAME].rig.ground_plane
    corners = np.array([[x, y, a * x + b * y + c] for x, y in ((5, -5), (5, 5), (80, 0))]) @ T[:3, :3].T + T[:3, 3]
    plane = mounted(tmp_path, source.path, T)[NAME].rig.ground_plane
    assert np.abs(heights_above(plane, corners)).max() < 1e-6


def test_the_plane_needs_no_label_and_no_lidar(source, tmp_path):
    frame = mounted(tmp_path, source.path, np.eye(4))[NAME]
    assert frame.truth is None and frame.lidar is None
    assert frame.rig.ground_plane == source[NAME].rig.ground_plane


def test_without_lidar_calibration_the_plane_is_that_of_the_radar(source, tmp_path):
    plane = mounted(tmp_path, source.path, None)[NAME].rig.ground_plane
    assert np.allclose(plane, GROUND_OF_RADAR)
    assert np.allclose(plane, source[NAME].rig.ground_plane, atol=1e-3)


def test_a_fit_of_a_plane_ignores_a_fifth_of_outliers():
    rng = np.random.default_rng(0)
    xy = rng.uniform(-30, 30, (500, 2))
    z = 0.03 * xy[:, 0] - 0.02 * xy[:, 1] - 1.7 + rng.normal(0, 0.02, 500)
    z[:100] += rng.uniform(1, 3, 100)
    assert np.allclose(fit_plane(np.column_stack([xy, z])), (0.03, -0.02, -1.7), atol=0.02)


def test_a_plane_follows_a_transform():
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("xyz", [10, -20, 70], degrees=True).as_matrix()
    T[:3, 3] = [1, 2, 3]
    plane = (0.1, -0.2, -1.5)
    points = np.array([[x, y, 0.1 * x - 0.2 * y - 1.5] for x, y in ((0, 0), (10, 0), (0, 10))]) @ T[:3, :3].T + T[:3, 3]
    assert np.abs(heights_above(transform_plane(T, plane), points)).max() < 1e-12
