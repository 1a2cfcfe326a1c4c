"""Folders of nuScenes data with one defect each: what is refused, with which code, and what is no fault."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from sources.nuscenes_folder import SENSORS, pcd, radar_rows, write_nuscenes

from imkd_edge.errors import Error
from imkd_edge.sources import open_source
from imkd_edge.sources.nuscenes import NuScenesSource
from imkd_edge.sources.select import open_with


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_nuscenes(tmp_path)


def change(folder: Path, table: str, edit) -> None:
    path = folder / "v1.0-mini" / f"{table}.json"
    rows = json.loads(path.read_text())
    edited = edit(copy.deepcopy(rows))
    path.write_text(json.dumps(rows if edited is None else edited))


def code_of(folder: Path, name: str = "k0", **options) -> str:
    with pytest.raises(Error) as caught:
        _ = NuScenesSource(folder, **options)[name]
    assert caught.value.what and caught.value.where and caught.value.fix
    return str(caught.value.code)


@pytest.mark.parametrize("end", [0, 30, 300, -44, -60])
def test_a_truncated_pcd_is_refused(folder, end):
    path = next((folder / "samples" / "RADAR_FRONT").iterdir())
    path.write_bytes(path.read_bytes()[:end])
    assert code_of(folder, images=False) == "E0304"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"DATA binary", b"DATA binary_compressed"),
        (b"POINTS 12", b"POINTS many"),
        (b"POINTS 12", b"POINTS -1"),
        (b"FIELDS x y z dyn_prop", b"FIELDS x y z dynprop"),
        (b"FIELDS x y z", b"FIELDS x y y"),
        (b"FIELDS x y z", b"FIELDS x y"),
        (b"SIZE 4", b"SIZE 3"),
        (b"TYPE F", b"TYPE X"),
        (b"COUNT 1", b"COUNT 2"),
    ],
)
def test_a_pcd_of_another_kind_is_refused(folder, old, new):
    path = next((folder / "samples" / "RADAR_FRONT").iterdir())
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    assert code_of(folder, images=False) == "E0304"


def test_a_radar_that_saw_nothing_is_no_fault(folder):
    path = next(p for p in (folder / "samples" / "RADAR_FRONT").iterdir())
    nothing = radar_rows(0, 1)
    nothing["x"] = np.nan  # how the set writes it
    path.write_bytes(pcd(nothing))
    sample = NuScenesSource(folder, sweeps=1)["k0"]
    assert [sweep.points.shape for sweep in sample.radar] == [(0, 5)]


@pytest.mark.parametrize("end", [-1, 7, 0])
def test_a_truncated_lidar_file_is_refused(folder, end):
    path = folder / NuScenesSource(folder).tables.keyframes["k0"]["LIDAR_TOP"]["filename"]
    path.write_bytes(path.read_bytes()[:end])
    assert code_of(folder) == "E0304"


def test_a_truncated_image_is_refused(folder):
    path = folder / NuScenesSource(folder).tables.keyframes["k0"]["CAM_BACK"]["filename"]
    path.write_bytes(path.read_bytes()[:-100])
    assert code_of(folder) == "E0303"


@pytest.mark.parametrize(
    "options", [{"sweeps": "abc"}, {"sweeps": 1.5}, {"invalid_states": 3}, {"ambiguity_states": "three"}], ids=str
)
def test_an_option_of_another_type_is_refused_when_opened(folder, options):
    with pytest.raises(Error, match="E0104"):
        open_with(str(folder), options)


def test_an_image_of_another_size_is_refused(folder):
    change(folder, "sample_data", lambda rows: [{**row, "width": 641 if row["width"] else 0} for row in rows])
    assert code_of(folder) == "E0303"


@pytest.mark.parametrize(
    ("table", "key", "value", "code"),
    [
        ("sample", "token", ["k0"], "E0306"),
        ("sample", "timestamp", "noon", "E0306"),
        ("sample", "timestamp", 2**63, "E0306"),
        ("sample", "timestamp", 1.6e15, "E0306"),
        ("sample", "scene_token", {}, "E0306"),
        ("sample_data", "filename", 3, "E0306"),
        ("sample_data", "filename", "a\0b", "E0302"),
        ("sample_data", "prev", ["k0"], "E0306"),
        ("ego_pose", "rotation", None, "E0306"),
        ("sensor", "channel", None, "E0306"),
        ("sample_annotation", "size", 1, "E0305"),
        ("sample_annotation", "instance_token", [], "E0305"),
        ("sample_annotation", "prev", ["a"], "E0305"),
        ("sample_annotation", "num_radar_pts", 2**40, "E0305"),
    ],
)
def test_a_value_of_another_type_is_refused(folder, table, key, value, code):
    change(folder, table, lambda rows: [{**row, key: value} for row in rows])
    assert code_of(folder) == code


@pytest.mark.parametrize("key", ["sample_token", "translation", "size", "prev", "next"])
def test_a_box_without_a_key_is_refused_before_any_frame_is_read(folder, key):
    change(folder, "sample_annotation", lambda rows: [{k: v for k, v in row.items() if k != key} for row in rows])
    with pytest.raises(Error, match=f"E0305.*a row has no {key}"):
        NuScenesSource(folder)


def test_a_sensor_without_a_reading_stays_in_the_rig(folder):
    def absent(row) -> bool:
        return row["token"] in ("CAM_BACK-0", "RADAR_FRONT-0")

    change(folder, "sample_data", lambda rows: [row for row in rows if not absent(row)])
    change(
        folder,
        "sample_data",
        lambda rows: [{**row, "prev": "" if "FRONT-1" in row["token"] else row["prev"]} for row in rows],
    )
    sample = NuScenesSource(folder)["k0"]
    _, translation, rotation, _ = SENSORS["CAM_BACK"]
    expected = rotation.transformation_matrix
    expected[:3, 3] = translation
    assert [camera.name for camera in sample.rig.cameras] == ["CAM_FRONT", "CAM_BACK"]
    assert list(sample.frames) == ["CAM_FRONT"] and sample.radar == []
    assert [radar.name for radar in sample.rig.radars] == ["RADAR_FRONT"]
    assert np.allclose(sample.rig.cameras[1].T_ego_camera, expected)


@pytest.mark.parametrize(
    ("table", "edit", "code"),
    [
        ("ego_pose", lambda rows: rows[1:], "E0306"),
        ("ego_pose", lambda rows: [{**row, "rotation": [0, 0, 0, 0]} for row in rows], "E0306"),
        ("ego_pose", lambda rows: [{**row, "translation": [1, 2]} for row in rows], "E0306"),
        ("calibrated_sensor", lambda rows: rows[1:], "E0306"),
        ("calibrated_sensor", lambda rows: [{**row, "camera_intrinsic": [[1, 2], [3, 4]]} for row in rows], "E0306"),
        (
            "calibrated_sensor",
            lambda rows: [{k: v for k, v in row.items() if k != "rotation"} for row in rows],
            "E0306",
        ),
        ("sensor", lambda rows: rows[:1], "E0306"),
        ("sample_data", lambda rows: [], "E0306"),
        ("sample_data", lambda rows: [{**row, "ego_pose_token": "?"} for row in rows], "E0306"),
        ("sample", lambda rows: {"not": "a list"}, "E0306"),
        ("sample", lambda rows: [3], "E0306"),
        ("scene", lambda rows: [], "E0306"),
        ("sample_annotation", lambda rows: [{**row, "size": [1, 0, 1]} for row in rows], "E0305"),
        ("sample_annotation", lambda rows: [{**row, "size": [1, 1]} for row in rows], "E0305"),
        ("sample_annotation", lambda rows: [{**row, "translation": [1, 2, float("nan")]} for row in rows], "E0305"),
        ("sample_annotation", lambda rows: [{**row, "rotation": "up"} for row in rows], "E0305"),
        ("sample_annotation", lambda rows: [{**row, "next": "?"} for row in rows], "E0305"),
        ("instance", lambda rows: [], "E0305"),
        ("category", lambda rows: [], "E0305"),
        ("visibility", lambda rows: [{"token": "9", "level": "v0-40"}], "E0305"),
    ],
)
def test_a_broken_table_is_refused(folder, table, edit, code):
    change(folder, table, edit)
    assert code_of(folder) == code


@pytest.mark.parametrize(
    ("table", "code"), [("ego_pose", "E0306"), ("sample_annotation", "E0305"), ("sample", "E0306")]
)
def test_a_table_that_is_no_json_is_refused(folder, table, code):
    (folder / "v1.0-mini" / f"{table}.json").write_text("[{")
    assert code_of(folder) == code


def test_a_missing_table_is_named(folder):
    (folder / "v1.0-mini" / "ego_pose.json").unlink()
    assert code_of(folder) == "E0302"


def test_without_label_tables_there_is_no_truth(folder):
    for name in ("sample_annotation", "instance", "category", "visibility"):
        (folder / "v1.0-mini" / f"{name}.json").unlink()
    assert NuScenesSource(folder)["k0"].truth is None


def test_one_of_several_versions_must_be_named(folder):
    (folder / "v1.0-mini").rename(folder / "v1.0-trainval")
    write_nuscenes(folder)
    with pytest.raises(Error) as caught:
        open_source(folder)
    assert caught.value.code == "E0301"
    assert len(open_source(folder, version="v1.0-trainval")) == 3
    assert len(open_source(folder / "v1.0-mini")) == 3 and open_source(folder / "v1.0-mini")["k0"].frames
