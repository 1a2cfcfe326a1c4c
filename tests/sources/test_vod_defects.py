"""Folders of View-of-Delft data with one defect each: what is refused, and with which code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sources.vod_folder import NAMES, P2, calibration, calibration_text, radar_rows, write_vod

from imkd_edge.errors import Error
from imkd_edge.sources import open_source
from imkd_edge.sources.vod import VodSource

NAME = NAMES[0]


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_vod(tmp_path)


def file_of(folder: Path, sensor: str, kind: str) -> Path:
    return next((folder / sensor / "training" / kind).glob(f"{NAME}.*"))


def code_of(folder: Path, file: Path | None = None, name: str = NAME, **options) -> str:
    """The code of the error of reading a frame; it must name the faulty file."""
    with pytest.raises(Error) as caught:
        _ = VodSource(folder, **options)[name]
    assert caught.value.what and caught.value.where and caught.value.fix
    assert file is None or caught.value.where == str(file)
    return str(caught.value.code)


@pytest.mark.parametrize("sensor", ["lidar", "radar_5frames"])
def test_a_missing_calibration_is_named(folder, sensor):
    file = file_of(folder, sensor, "calib")
    file.unlink()
    assert code_of(folder, file) == "E0302"


def test_scans_that_were_not_copied_are_named(folder):
    assert code_of(folder, folder / "radar_3frames", scans=3) == "E0302"


@pytest.mark.parametrize(
    "options",
    [{"scans": 2}, {"scans": "5"}, {"velocity": "aliased"}, {"velocity": "raw"}, {"velocity": "raw", "scans": 5}],
)
def test_options_that_the_set_does_not_have_are_refused(folder, options):
    assert code_of(folder, **options) == "E0104"


def test_unknown_frames_and_folders_are_refused(folder, tmp_path):
    source = VodSource(folder)
    for act in (lambda: source["99999"], lambda: source.subset(["99999"]), lambda: source.subset([NAME])[NAMES[1]]):
        with pytest.raises(Error, match=r"E0307.*no frame"):
            act()
    (folder / "radar").rename(folder / "sonar")
    (folder / "radar_5frames").rename(folder / "sonar_5frames")
    with pytest.raises(Error, match="E0301"):
        open_source(folder)
    with pytest.raises(Error, match="E0301"):
        VodSource(folder)


# ---- points and images ----
@pytest.mark.parametrize(("sensor", "size"), [("lidar", 16), ("radar_5frames", 28)])
def test_truncated_point_files_are_refused(folder, sensor, size):
    file = file_of(folder, sensor, "velodyne")
    data = file.read_bytes()
    for end in (0, 1, size - 1, size + 4, len(data) - 1, len(data) - 4):
        file.write_bytes(data[:end])
        assert code_of(folder, file) == "E0304", end


@pytest.mark.parametrize("scan", [1, -5, -0.5, np.nan, np.inf])
def test_a_scan_that_cannot_be_is_refused(folder, scan):
    """As in a cloud of other columns, or of more scans than its folder says."""
    rows = radar_rows(0, 5)
    rows[3, 6] = scan
    file = file_of(folder, "radar_5frames", "velodyne")
    file.write_bytes(rows.tobytes())
    assert code_of(folder, file) == "E0304"


def test_five_scans_in_the_folder_for_one_are_refused(folder):
    file = file_of(folder, "radar", "velodyne")
    file.write_bytes(radar_rows(0, 5).tobytes())
    assert code_of(folder, file, scans=1) == "E0304"


def test_nan_returns_are_kept_for_the_detector_to_count_and_lidar_ones_dropped(folder):
    rows = radar_rows(0, 5)
    rows[0, 1] = np.nan
    file_of(folder, "radar_5frames", "velodyne").write_bytes(rows.tobytes())
    lidar = file_of(folder, "lidar", "velodyne")
    points = np.frombuffer(lidar.read_bytes(), "<f4").reshape(-1, 4).copy()
    points[2, 3] = np.inf
    lidar.write_bytes(points.tobytes())
    sample = VodSource(folder)[NAME]
    assert np.isnan(sample.radar[0].points).sum() == 1 and sum(len(s.points) for s in sample.radar) == len(rows)
    assert np.array_equal(sample.lidar, np.delete(points, 2, 0))
    assert sample.truth.radar_points[0] == 9 and sample.truth.lidar_points[0] == 7


@pytest.mark.parametrize("end", [0, 1, 300, -2])
def test_a_truncated_image_is_refused(folder, end):
    file = file_of(folder, "lidar", "image_2")
    file.write_bytes(file.read_bytes()[:end])
    assert code_of(folder, file) == "E0303"
    assert code_of(folder, file, images=False) == "E0303"  # its size is needed without its pixels


# ---- calibration and poses ----
def skewed(T: np.ndarray) -> np.ndarray:
    result = T.copy()
    result[0] *= 1.1
    return result


@pytest.mark.parametrize("sensor", ["lidar", "radar_5frames"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text.replace("Tr_velo_to_cam", "Tr_cam_to_velo"),
        lambda text: text.replace("Tr_velo_to_cam: ", "Tr_velo_to_cam: one "),
        lambda text: text.replace("Tr_velo_to_cam: ", "Tr_velo_to_cam: 1 "),
        lambda text: text[: text.index("Tr_velo_to_cam") + 60],
        lambda text: "\n".join(
            "Tr_velo_to_cam: " + " ".join(["nan"] * 12) if line.startswith("Tr_v") else line
            for line in text.split("\n")
        ),
        lambda text: text.replace(":", ""),
        lambda text: "\x00\xff" * 40,
    ],
)
def test_a_broken_calibration_is_refused(folder, sensor, damage):
    file = file_of(folder, sensor, "calib")
    file.write_bytes(damage(file.read_text()).encode("latin-1"))
    assert code_of(folder, file) == "E0306"


def test_a_transform_that_is_not_rigid_is_refused(folder):
    for sensor, T in zip(("lidar", "radar_5frames"), calibration(0)):
        file = file_of(folder, sensor, "calib")
        good = file.read_text()
        for bad in (skewed(T), T * [[1], [-1], [1], [1]]):
            file.write_text(calibration_text(bad))
            assert code_of(folder, file) == "E0306"
        file.write_text(good)
    assert VodSource(folder)[NAME].truth is not None


@pytest.mark.parametrize(
    ("index", "value"),
    [((0, 0), 0.0), ((1, 1), -1400.0), ((0, 3), 45.0), ((1, 0), 3.0), ((2, 2), 2.0), ((0, 2), np.nan)],
)
def test_a_camera_matrix_that_is_none_is_refused(folder, index, value):
    file, bad = file_of(folder, "lidar", "calib"), P2.copy()
    bad[index] = value
    lines = file.read_text().splitlines()
    lines[2] = "P2: " + " ".join(map(str, bad.ravel()))
    file.write_text("\n".join(lines))
    assert code_of(folder, file) == "E0306"


@pytest.mark.parametrize(
    "content",
    [
        "not a pose",
        "[]",
        "3",
        '"odomToCamera"',
        '{"odomToCamera": []}',
        '{"mapToCamera": [1, 0, 0, 0, 0, 1',
        '{"odomToCamera": [1, 0, 0]}',
        '{"odomToCamera": null}',
        '{"odomToCamera": "here"}',
        '{"odomToCamera": [[1, 0], [0]]}',
        '{"odomToCamera": [2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]}',
        '{"odomToCamera": [-1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]}',
        '{"odomToCamera": [1, 0, 0, NaN, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]}',
        '{"odomToCamera": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 5, 0, 0, 1]}',
        "[" * 100_000,
        "7",
        '{"odomToCamera": [1, 0',
    ],
)
def test_a_broken_pose_is_refused(folder, content):
    file = file_of(folder, "lidar", "pose")
    file.write_text(content)
    assert code_of(folder, file) == "E0306"


def test_poses_in_another_order_are_read_by_their_name(folder):
    file = file_of(folder, "lidar", "pose")
    before = VodSource(folder)[NAME].ego.T_world_ego
    elsewhere = json.dumps({"UTMToCamera": np.eye(4).ravel().tolist()})
    file.write_text(f"{elsewhere}\n\n{file.read_text().splitlines()[0]}\n")
    assert np.array_equal(VodSource(folder)[NAME].ego.T_world_ego, before)


# ---- labels ----
@pytest.mark.parametrize(
    "line",
    [
        "Car",
        "Car 0 0 0.1 10 10 90 90 1.5 1.8 4.3 1 2 12",
        "Car 0 0 0.1 10 10 90 90 1.5 1.8 4.3 1 2 12 0.1 1 1",
        "Car 0 0 0.1 10 10 90 90 1.5 1.8 4.3 1 two 12 0.1 1",
        "Car 0 0 0.1 10 10 90 90 1.5 0 4.3 1 2 12 0.1 1",
        "Car 0 0 0.1 10 10 90 90 1.5 1.8 -4.3 1 2 12 0.1 1",
        "Car 0 0 0.1 10 10 90 90 1.5 1.8 4.3 1 nan 12 0.1 1",
        "Car 0 0 0.1 10 10 90 90 1.5 1.8 4.3 1 2 12 inf 1",
        "Car 0 7 0.1 10 10 90 90 1.5 1.8 4.3 1 2 12 0.1 1",
        "Car 0 some 0.1 10 10 90 90 1.5 1.8 4.3 1 2 12 0.1 1",
        "\x00\xff\x00",
    ],
)
def test_a_broken_label_is_refused_with_its_line(folder, line):
    file = file_of(folder, "lidar", "label_2")
    file.write_bytes(file.read_bytes() + line.encode("latin-1"))
    assert code_of(folder, file) == "E0305"
    with pytest.raises(Error, match="line 7"):
        _ = VodSource(folder)[NAME]
