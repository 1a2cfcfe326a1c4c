"""The KITTI reader against numbers that follow from the set's readme."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sources.kitti_folder import CALIBRATION, CAR, write_kitti

from imkd_edge.errors import Error
from imkd_edge.sources import open_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_kitti(tmp_path / "kitti")


def test_a_frame_has_camera_lidar_and_labels(folder: Path) -> None:
    source = open_source(folder)
    assert source.kind == "kitti" and source.splits == {"train": ["000000", "000001"]}
    sample = source["000001"]
    assert sample.frames["image_2"].shape == (360, 640, 3) and sample.radar == [] and len(sample.rig.radars) == 0
    np.testing.assert_allclose(sample.lidar, [[20.27, -3, -0.9, 127.5], [5, 5, 5, 255]], rtol=1e-6)
    assert sample.timestamp_ns == 100_000_000


def test_boxes_stand_in_the_lidar_frame(folder: Path) -> None:
    """20 m ahead of camera 0, which is 0.27 m ahead of the LiDAR and 0.08 m below it; the label is a bottom centre."""
    truth = open_source(folder)["000000"].truth
    assert truth.labels == ["car", "pedestrian"] and truth.occlusion.tolist() == [1, -1]
    car, person = truth.boxes
    np.testing.assert_allclose(car[:7], [20.27, -3, -0.08 - 1.6 + 0.75, 4.2, 1.8, 1.5, -np.pi / 2], atol=1e-12)
    np.testing.assert_allclose(person[:3], [8.27, 2, -0.08 - 1.6 + 0.875], atol=1e-12)
    assert abs(person[6]) < 1e-12, "rotation_y -90 degrees faces ahead"
    assert truth.lidar_points.tolist() == [1, 0] and truth.radar_points.tolist() == [-1, -1]


def test_the_camera_stands_where_p2_says(folder: Path) -> None:
    camera = open_source(folder)["000000"].rig.cameras[0]
    np.testing.assert_allclose(np.asarray(camera.T_ego_camera)[:3, 3], [0.27, 0.06, -0.08], atol=1e-12)
    # A pixel of P2 and of the rig for the same point.
    point = np.array([15.0, 2.0, -1.0, 1.0])
    in_rectified = np.array([-point[1], -point[2] - 0.08, point[0] - 0.27])
    expected = np.array([[700, 0, 320], [0, 700, 180], [0, 0, 1]]) @ in_rectified + [42, 0, 0]
    in_camera = np.linalg.inv(np.asarray(camera.T_ego_camera)) @ point
    pixel = np.asarray(camera.K) @ in_camera[:3]
    np.testing.assert_allclose(pixel[:2] / pixel[2], expected[:2] / expected[2], atol=1e-9)


def test_the_folder_may_be_flat_and_incomplete(tmp_path: Path) -> None:
    folder = write_kitti(tmp_path / "kitti", ".")
    (folder / "image_2" / "000001.png").unlink()
    source = open_source(folder)
    with pytest.warns(UserWarning, match="no such file"):
        assert source["000001"].frames == {} and source["000002"].truth is None
    assert [source.labelled(name) for name in source.names] == [True, True, False]
    assert source.absent == {"image_2": 1, "labels": 1}


@pytest.mark.parametrize(
    ("file", "text", "code"),
    [
        ("calib/000000.txt", CALIBRATION.replace("P2:", "P9:"), "E0306"),
        ("calib/000000.txt", CALIBRATION.replace("0 -1 0 0 0", "0 -2 0 0 0"), "E0306"),
        ("label_2/000000.txt", f"{CAR}\nCar 0\n", "E0305"),
        ("label_2/000000.txt", CAR.replace("4.2", "-4.2"), "E0305"),
        ("velodyne/000000.bin", "abc", "E0304"),
    ],
)
def test_a_defect_is_named(folder: Path, file: str, text: str, code: str) -> None:
    (folder / "training" / file).write_text(text)
    with pytest.raises(Error, match=code) as info:
        open_source(folder)["000000"]
    assert str(folder / "training" / file) in info.value.where
