"""Folders in which single optional files are missing: a frame without them is a frame, and the source reports them."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from sources.nuscenes_folder import write_nuscenes
from sources.vod_folder import HEIGHT, NAMES, WIDTH, write_vod

from imkd_edge.errors import Error
from imkd_edge.sources import Source, open_source
from imkd_edge.sources.astyx import AstyxSource
from imkd_edge.sources.nuscenes import NuScenesSource
from imkd_edge.sources.select import select
from imkd_edge.sources.vod import VodSource

NAME = NAMES[0]


@contextmanager
def silent() -> Iterator[None]:
    """No warning may be given."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def vod(tmp_path: Path) -> Path:
    return write_vod(tmp_path)


@pytest.fixture
def nuscenes(tmp_path: Path) -> Path:
    return write_nuscenes(tmp_path)


@pytest.fixture
def astyx(tmp_path: Path) -> Path:
    """Two complete frames, 7 and 8."""
    T_camera = [[0, 0, 1, 0.1], [-1, 0, 0, 0], [0, -1, 0, 0.4], [0, 0, 0, 1]]
    sensors = {
        "radar_6455": {"T_to_ref_COS": np.eye(4).tolist()},
        "lidar_vlp16": {"T_to_ref_COS": np.eye(4).tolist()},
        "camera_front": {"K": [[500, 0, 31.5], [0, 500, 15.5], [0, 0, 1]], "T_to_ref_COS": T_camera},
    }
    box = {"center3d": [10, 1, 0], "dimension3d": [4, 2, 1.5], "orientation_quat": [1, 0, 0, 0]}
    texts = {
        "calibration": (
            "json",
            json.dumps({"sensors": [{"sensor_uid": k, "calib_data": v} for k, v in sensors.items()]}),
        ),
        "groundtruth_obj3d": ("json", json.dumps({"objects": [{**box, "classname": "Car", "occlusion": 0}]})),
        "radar_6455": ("txt", "X Y Z V_r Mag\n10 1 0 2.5 48\n20 -3 0.5 -1.25 50.5\n"),
        "lidar_vlp16": ("txt", "X Y Z Reflectivity LaserID Timestamp\n10 1 0 7 0 123\n"),
    }
    (tmp_path / "camera_front").mkdir()
    for name in ("000007", "000008"):
        for folder, (suffix, text) in texts.items():
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{name}.{suffix}").write_text(text)
        cv2.imwrite(str(tmp_path / "camera_front" / f"{name}.jpg"), np.zeros((32, 64, 3), np.uint8))
    return tmp_path


def sensors(sample) -> dict[str, bool]:
    """Which optional parts a sample has."""
    return {
        "image": bool(sample.frames),
        "radar": bool(sample.radar),
        "lidar": sample.lidar is not None,
        "labels": sample.truth is not None,
        "pose": sample.ego is not None,
    }


# ---- View-of-Delft ----
VOD_FILES = {  # part -> file, kind in source.absent
    "image": ("lidar/training/image_2/{}.jpg", "camera_front"),
    "radar": ("radar_5frames/training/velodyne/{}.bin", "radar_front"),
    "lidar": ("lidar/training/velodyne/{}.bin", "LiDAR"),
    "labels": ("lidar/training/label_2/{}.txt", "labels"),
    "pose": ("lidar/training/pose/{}.json", "pose"),
}


@pytest.mark.parametrize("part", VOD_FILES)
def test_a_vod_frame_without_one_file_is_a_frame(vod, part):
    path, kind = VOD_FILES[part]
    file = vod / path.format(NAME)
    file.unlink()
    source = VodSource(vod)
    with pytest.warns(UserWarning, match=f"(?s){file}.*{NAME}.*{kind}"):
        sample = source[NAME]
    assert sensors(sample) == {name: name != part for name in VOD_FILES}
    assert source.absent == {kind: 1}
    with silent():
        assert all(sensors(source[NAMES[1]]).values())
    camera, radar = sample.rig.cameras[0], sample.rig.radars[0]
    assert (camera.width, camera.height, radar.name) == (WIDTH, HEIGHT, "radar_front")  # the rig keeps every sensor
    assert source.rig(NAME).cameras[0].width == WIDTH
    if part == "radar":
        assert (sample.truth.radar_points == -1).all()


def test_a_source_reports_a_kind_once_and_counts_frames_once(vod):
    for name in NAMES[:3]:
        (vod / VOD_FILES["pose"][0].format(name)).unlink()
    source = VodSource(vod)
    with pytest.warns(UserWarning) as caught:
        for name in (*NAMES[:3], *NAMES):
            source[name]
    assert len(caught) == 1 and source.absent == {"pose": 3}


def test_a_vod_camera_of_which_no_image_is_there_has_the_published_size(vod):
    shutil.rmtree(vod / "lidar" / "training" / "image_2")
    with pytest.warns(UserWarning, match="camera_front"):
        sample = VodSource(vod)[NAME]
    camera = sample.rig.cameras[0]
    assert not sample.frames and not sample.camera_timestamps_ns and (camera.width, camera.height) == (1936, 1216)


@pytest.mark.parametrize("text", ["", " \n\n", "{}", '{"mapToCamera": [1, 0, 0, 0]}\n{"UTMToCamera": []}\n'])
def test_a_pose_file_without_odometry_gives_no_pose(vod, text):
    """Published pose files are empty or lack odomToCamera (View-of-Delft, issue 4)."""
    file = vod / VOD_FILES["pose"][0].format(NAME)
    file.write_text(text)
    source = VodSource(vod)
    with pytest.warns(UserWarning, match=f"{file}.*odomToCamera"):
        sample = source[NAME]
    assert sample.ego is None and sample.radar[0].T_world_ego is None and source.absent == {"pose": 1}


def test_only_labels_that_are_published_are_reported(vod):
    source = VodSource(vod)
    with silent():
        assert source[NAMES[4]].truth is None and not source.labelled(NAMES[4]) and source.labelled(NAME)
    for split in ("test", "full"):
        (vod / "lidar" / "ImageSets" / f"{split}.txt").unlink()
    source = VodSource(vod)
    with pytest.warns(UserWarning, match="labels"):
        assert source[NAMES[4]].truth is None
    assert source.absent == {"labels": 1}


# ---- Astyx ----
ASTYX_FILES = {
    "image": ("camera_front/{}.jpg", "camera_front"),
    "radar": ("radar_6455/{}.txt", "radar_6455"),
    "lidar": ("lidar_vlp16/{}.txt", "lidar_vlp16"),
    "labels": ("groundtruth_obj3d/{}.json", "labels"),
}


@pytest.mark.parametrize("part", ASTYX_FILES)
def test_an_astyx_frame_without_one_file_is_a_frame(astyx, part):
    path, kind = ASTYX_FILES[part]
    file = astyx / path.format("000007")
    file.unlink()
    source = AstyxSource(astyx)
    with pytest.warns(UserWarning, match=str(file)):
        sample = source["000007"]
    assert sensors(sample) == {**{name: name != part for name in ASTYX_FILES}, "pose": False}
    assert source.absent == {kind: 1} and source.labelled("000007") == (part != "labels")
    camera = sample.rig.cameras[0]
    assert (camera.width, camera.height, len(sample.rig.radars)) == (64, 32, 1)
    if sample.truth is not None:
        assert sample.truth.radar_points.tolist() == [-1 if part == "radar" else 1]
        assert sample.truth.lidar_points.tolist() == [-1 if part == "lidar" else 1]


def test_an_astyx_image_that_is_broken_stays_an_error_when_another_is_absent(astyx):
    (astyx / "camera_front" / "000007.jpg").write_bytes(b"")
    (astyx / "camera_front" / "000008.jpg").unlink()
    source = AstyxSource(astyx)
    with pytest.warns(UserWarning, match="camera_front"):
        assert source["000008"].rig.cameras[0].width == 2048  # as published: no image tells it
    with pytest.raises(Error, match="E0303"):
        source["000007"]


# ---- nuScenes ----
def remove(folder: Path, kind: str) -> None:
    for file in (folder / kind).iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("kind", "absent", "cameras", "sweeps", "lidar"),
    [
        ("samples/CAM_FRONT", {"CAM_FRONT": 1}, ["CAM_BACK"], 5, True),
        ("samples/LIDAR_TOP", {"LIDAR_TOP": 1}, ["CAM_FRONT", "CAM_BACK"], 5, False),
        ("samples/RADAR_FRONT", {"RADAR_FRONT": 1}, ["CAM_FRONT", "CAM_BACK"], 3, True),
        ("sweeps/RADAR_FRONT", {"RADAR_FRONT sweeps": 1}, ["CAM_FRONT", "CAM_BACK"], 2, True),
    ],
)
def test_a_nuscenes_sample_without_a_file_lacks_that_sensor(nuscenes, kind, absent, cameras, sweeps, lidar):
    """Sample k1 of five radar readings: two of key frames, three of sweeps."""
    whole = NuScenesSource(nuscenes)["k1"]
    remove(nuscenes, kind)
    source = NuScenesSource(nuscenes)
    with pytest.warns(UserWarning, match=kind) as caught:
        sample = source["k1"]
    assert len(caught) == 1 and source.absent == absent
    assert list(sample.frames) == list(sample.camera_timestamps_ns) == cameras and len(sample.radar) == sweeps
    assert (sample.lidar is not None) == lidar
    assert [c.name for c in sample.rig.cameras] == ["CAM_FRONT", "CAM_BACK"] and len(sample.rig.radars) == 1
    for ours, theirs in zip(sample.rig.cameras, whole.rig.cameras, strict=True):  # the tables still say where they are
        assert np.array_equal(ours.T_ego_camera, theirs.T_ego_camera)
    assert np.array_equal(sample.ego.T_world_ego, whole.ego.T_world_ego)
    assert np.array_equal(sample.truth.boxes, whole.truth.boxes, equal_nan=True)


def test_nuscenes_tables_without_any_blob_are_refused(nuscenes):
    for folder in ("samples", "sweeps"):
        shutil.rmtree(nuscenes / folder)
    for options in ({}, {"lidar": False}, {"images": False, "lidar": False}):
        with pytest.raises(Error, match=r"E0302.*no file of a camera or radar") as caught:
            _ = NuScenesSource(nuscenes, **options)["k0"]
        assert "samples/" in caught.value.fix and "again" not in caught.value.fix


def test_one_blob_makes_a_source(nuscenes):
    shutil.rmtree(nuscenes / "sweeps")
    for kind in ("CAM_FRONT", "LIDAR_TOP", "RADAR_FRONT"):
        remove(nuscenes, f"samples/{kind}")
    *others, last = sorted((nuscenes / "samples" / "CAM_BACK").iterdir())
    for file in others:
        file.unlink()
    with pytest.warns(UserWarning):
        samples = list(NuScenesSource(nuscenes))
    assert [list(sample.frames) for sample in samples] == [[], [], ["CAM_BACK"]] and last.exists()
    assert not any(sample.radar for sample in samples)


# ---- what the device verbs read ----
def test_select_reads_neither_lidar_nor_labels_of_a_folder(nuscenes):
    remove(nuscenes, "samples/LIDAR_TOP")
    for table in ("sample_annotation", "instance", "category", "visibility"):
        (nuscenes / "v1.0-mini" / f"{table}.json").write_text("[{")  # reading it would be an error
    with silent():
        samples = list(select(str(nuscenes)))
    assert [len(sample.frames) for sample in samples] == [2, 2, 2] and all(sample.radar for sample in samples)
    assert all(sample.truth is None and sample.lidar is None for sample in samples)
    with pytest.raises(Error, match="E0305"):
        select(str(nuscenes), read=("labels",))


def test_select_reads_what_it_is_told(vod, tmp_path):
    for folder in ("label_2", "velodyne"):
        for file in (vod / "lidar" / "training" / folder).iterdir():
            file.write_bytes(b"broken")
    with silent():
        [sample] = select(str(vod), names=[NAME])
    assert sample.truth is None and sample.lidar is None
    for read, options, code in (
        (("labels",), {}, "E0305"),
        (("lidar",), {}, "E0304"),
        ((), {"labels": True}, "E0305"),
        ((), {"lidar": True}, "E0304"),
    ):
        with pytest.raises(Error, match=code):
            list(select(str(vod), names=[NAME], read=read, options=options))


def test_a_subset_reads_what_its_source_reads(vod, astyx, nuscenes):
    def truths(source: Source, name: str) -> list[bool]:
        return [part[name].truth is None for part in (source, source.subset([name]))]

    for kind, folder, name in (
        (AstyxSource, astyx, "000007"),
        (VodSource, vod, NAME),
        (NuScenesSource, nuscenes, "k0"),
    ):
        assert truths(kind(folder, labels=False), name) == [True, True]
        assert truths(kind(folder), name) == [False, False]


def test_the_synthetic_world_keeps_its_truth():
    [sample] = select("synth", names=["s000-f000"], options={"scenes": 1, "frames_per_scene": 1, "image": [64, 36]})
    assert sample.truth is not None and sample.lidar is None
    assert open_source("synth").names == select("synth", split="all").names
