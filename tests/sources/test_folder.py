"""The drive folder's reader on a folder written by hand, and round trips of every source through its writer."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from sources.drive_folder import (
    LIDAR,
    RADAR,
    START_NS,
    STEP_NS,
    T_RADAR,
    frames,
    image,
    pose,
    write_drive,
    write_frames,
)

from imkd_edge.errors import Error
from imkd_edge.sources import open_source
from imkd_edge.sources.base import Sample
from imkd_edge.sources.folder import FolderSource, FolderWriter, problems


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_drive(tmp_path / "drive")


def test_the_folder_is_opened_by_its_content(folder: Path) -> None:
    source = open_source(folder)
    assert source.kind == "folder" and source.names == ["f0", "f1", "f2"]
    assert problems(folder) == []


def test_a_sample_has_what_the_files_hold(folder: Path) -> None:
    sample = open_source(folder)["f0"]
    assert (sample.name, sample.scene, sample.timestamp_ns) == ("f0", "a", START_NS)
    assert [camera.distortion for camera in sample.rig.cameras] == ["none", "fisheye"]
    assert sample.rig.radars[0].velocity == "aliased" and sample.rig.radars[0].period == 10.0
    np.testing.assert_array_equal(sample.frames["front"], image(0))
    assert sample.frames["rear"].shape == (48, 64, 3)
    assert sample.camera_timestamps_ns == {"front": START_NS - 20_000_000}
    np.testing.assert_array_equal(sample.radar[0].points, RADAR)
    np.testing.assert_array_equal(sample.lidar, LIDAR)
    np.testing.assert_array_equal(sample.ego.T_world_ego, pose(0))
    np.testing.assert_array_equal(sample.ego.twist, [8, 0, 0.125])


def test_labels_are_boxes_with_unknown_values_where_the_line_has_none(folder: Path) -> None:
    source = open_source(folder)
    truth = source["f0"].truth
    assert truth.labels == ["forklift", "car"] and truth.occlusion.tolist() == [1, -1]
    np.testing.assert_array_equal(truth.boxes[0], [23.5, 1.25, 1.0, 3.0, 1.5, 2.0, 0.5, np.nan, np.nan])
    np.testing.assert_array_equal(truth.boxes[1, 7:], [7.5, 0.25])
    # In the ego frame the radar's points lie at (23.5, 1.25, 0.5), (11.5, -1.75, 0.75), (43.5, 5.25, 1.5).
    assert T_RADAR[0][3] == 3.5
    assert truth.radar_points.tolist() == [1, 0] and truth.lidar_points.tolist() == [0, 0]
    assert len(source["f1"].truth.labels) == 0 and source["f2"].truth is None
    assert [source.labelled(name) for name in source.names] == [True, True, False]
    assert source.instances("f0") == ["7", "f0/1"]


def test_points_are_counted_where_the_vehicle_has_moved_them(folder: Path) -> None:
    """4 m further on, the older sweep's point at 23.5 m lies at 19.5 m."""
    lines = frames()
    lines[1]["objects"] = [{"label": "car", "center": [19.5, 1.25, 0.5], "size": [1, 1, 1], "yaw": 0}]
    write_frames(folder, lines)
    assert open_source(folder)["f1"].truth.radar_points.tolist() == [1]


@pytest.mark.parametrize("name", ["f0", "f1", "f2"])
def test_every_kind_of_point_file_holds_the_same_points(folder: Path, name: str) -> None:
    np.testing.assert_array_equal(open_source(folder)[name].radar[0].points, RADAR)


def test_a_frame_may_have_a_rig_of_its_own(folder: Path) -> None:
    heights = [np.asarray(sample.rig.cameras[0].T_ego_camera)[2, 3] for sample in open_source(folder)]
    assert heights == [1.4, 1.4, 1.9]


def test_splits_name_frames_or_scenes(folder: Path) -> None:
    assert open_source(folder).splits == {"train": ["f0", "f1"], "val": ["f2"]}


def test_a_moment_needs_no_sensor_file(folder: Path) -> None:
    assert open_source(folder).moment("f1") == ("a", START_NS + STEP_NS)


def test_a_frame_without_a_pose_among_others_is_counted(folder: Path) -> None:
    source = FolderSource(folder)
    with pytest.warns(UserWarning, match="(?s)frames.jsonl.*'f2'.*without pose"):
        egos = [source[name].ego is None for name in ("f0", "f1", "f2")]
    assert egos == [False, False, True] and source.absent == {"pose": 1}


def test_a_file_that_is_not_there_is_an_absent_reading(folder: Path) -> None:
    for file in ("images/f0.png", "radar/f0.npy", "lidar/f0.npy"):
        (folder / file).unlink()
    source = open_source(folder)
    with pytest.warns(UserWarning, match="no such file"):
        sample = source["f0"]
    assert list(sample.frames) == ["rear"] and sample.radar == [] and sample.lidar is None
    assert sample.truth.radar_points.tolist() == [-1, -1]
    assert source.absent == {"front": 1, "lidar": 1, "radar front": 1}


def test_a_frame_without_any_sensor_is_a_frame(folder: Path) -> None:
    write_frames(folder, [{"frame": "bare", "timestamp_ns": 5}])
    for split in (folder / "splits").iterdir():
        split.unlink()
    sample = open_source(folder)["bare"]
    assert sample.frames == {} and sample.radar == [] and sample.ego is None and sample.truth is None
    assert problems(folder) == []


def test_keys_of_a_line_may_come_in_any_order(folder: Path) -> None:
    lines = [dict(reversed(line.items())) for line in frames()]
    write_frames(folder, lines)
    source = open_source(folder)
    assert source.names == ["f0", "f1", "f2"] and source.moment("f2") == ("b", START_NS + 100 * STEP_NS)


def test_unread_labels_are_not_looked_at(folder: Path) -> None:
    lines = frames()
    lines[0]["objects"] = "broken"
    write_frames(folder, lines)
    assert FolderSource(folder, labels=False)["f0"].truth is None
    with pytest.raises(Error, match=r"E0305.*frames\.jsonl:1"):
        open_source(folder)["f0"]


def test_100000_frames_open_without_any_sensor_file(tmp_path: Path) -> None:
    """The files that the lines name do not exist, and of a line only its beginning is parsed."""
    folder = write_drive(tmp_path / "drive")
    for name in ("images", "radar", "lidar"):
        for file in (folder / name).iterdir():
            file.unlink()
    line = json.dumps({k: v for k, v in frames()[0].items() if k not in ("frame", "timestamp_ns", "scene")})
    with open(folder / "frames.jsonl", "w") as file:
        for i in range(100_000):
            file.write(f'{{"frame": "{i:06d}", "scene": "s{i // 200}", "timestamp_ns": {i}, {line[1:]}\n')
    (folder / "splits/train.txt").write_text("s0\n")
    (folder / "splits/val.txt").write_text("s1\n")
    start, before = time.process_time(), resident()
    source = open_source(folder)
    taken, memory = time.process_time() - start, (resident() - before) / 1e6
    print(f"100,000 frames opened in {taken:.2f} s of a core, {memory:.0f} MB more in memory")
    assert memory < 80
    assert len(source) == 100_000 and source.moment("012345") == ("s61", 12345)
    assert len(source.splits["train"]) == 200


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# ---- writing ----
def same(value: object, other: object) -> bool:
    if isinstance(value, np.ndarray) or isinstance(other, np.ndarray):
        a, b = np.asarray(value), np.asarray(other)
        return a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return value == other


def check_same(sample: Sample, copy: Sample) -> None:
    """Every field that a network's input depends on, to the bit; and the labels."""
    assert copy.rig.to_json() == sample.rig.to_json()
    assert (copy.name, copy.scene, copy.timestamp_ns) == (sample.name, sample.scene, sample.timestamp_ns)
    assert copy.camera_timestamps_ns == sample.camera_timestamps_ns
    assert copy.frames.keys() == sample.frames.keys()
    assert all(same(copy.frames[camera], pixels) for camera, pixels in sample.frames.items())
    assert len(copy.radar) == len(sample.radar)
    for sweep, other in zip(sample.radar, copy.radar):
        assert (sweep.radar, sweep.timestamp_ns) == (other.radar, other.timestamp_ns)
        assert same(sweep.points, other.points) and same(sweep.T_world_ego, other.T_world_ego)
    assert (sample.ego is None) == (copy.ego is None)
    if sample.ego is not None:
        assert same(sample.ego.T_world_ego, copy.ego.T_world_ego)
        assert sample.ego.twist is None or same(np.asarray(sample.ego.twist), copy.ego.twist)
    assert same(sample.lidar, copy.lidar)
    assert (sample.truth is None) == (copy.truth is None)
    if sample.truth is not None:
        assert same(sample.truth.boxes, copy.truth.boxes) and sample.truth.labels == copy.truth.labels
        assert same(sample.truth.occlusion, copy.truth.occlusion) and same(sample.truth.racks, copy.truth.racks)


def test_what_is_written_is_read_again(folder: Path, tmp_path: Path) -> None:
    source = open_source(folder)
    with FolderWriter(tmp_path / "copy", {"name": "copy", "classes": ["car", "forklift"]}) as writer:
        for sample in source:
            writer.add(sample)
        writer.finish(source.splits)
    copy = open_source(tmp_path / "copy")
    assert problems(tmp_path / "copy") == []
    assert copy.names == source.names and copy.splits == source.splits
    for name in source.names:
        check_same(source[name], copy[name])


def test_an_unfinished_folder_says_so_and_is_continued(folder: Path, tmp_path: Path) -> None:
    source, target = open_source(folder), tmp_path / "copy"
    with FolderWriter(target) as writer:
        writer.add(source["f0"])
    with open(target / "frames.jsonl.part", "ab") as file:
        file.write(b'{"frame": "f1", "timestamp')  # killed while it wrote a line
    with pytest.raises(Error, match=r"E0302.*continues where it stopped"):
        open_source(target)
    with FolderWriter(target) as writer:
        assert list(writer.names) == ["f0"]
        writer.add(source["f1"])
        writer.add(source["f2"])
        writer.finish()
    assert open_source(target).names == ["f0", "f1", "f2"] and problems(target) == []
    assert not list(target.rglob("*.part"))
    with pytest.raises(Error, match=r"E0702.*complete already"):
        FolderWriter(target)


def test_a_writer_refuses_what_would_not_open(folder: Path, tmp_path: Path) -> None:
    sample = open_source(folder)["f1"]
    with FolderWriter(tmp_path / "copy") as writer:
        writer.add(sample)
        with pytest.raises(Error, match="E0313"):
            writer.add(sample)
        with pytest.raises(Error, match="E0314"):
            writer.add(replace(sample, name="earlier", timestamp_ns=sample.timestamp_ns - 1))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(Error, match=r"E0702.*not empty"):
        FolderWriter(tmp_path / "other")


def test_names_that_are_no_file_names_are_written(folder: Path, tmp_path: Path) -> None:
    sample = replace(open_source(folder)["f0"], name="../a b/c")
    with FolderWriter(tmp_path / "copy") as writer:
        writer.add(sample)
        writer.finish()
    assert open_source(tmp_path / "copy").names == ["../a b/c"] and problems(tmp_path / "copy") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "drive"]


def test_an_encoded_image_is_copied_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    source = open_source(folder)
    with FolderWriter(tmp_path / "copy") as writer:
        writer.add(source["f0"], source.image_files("f0"))
        writer.finish()
    copies = open_source(tmp_path / "copy").image_files("f0")
    assert {camera: path.suffix for camera, path in copies.items()} == {"front": ".png", "rear": ".jpg"}
    for camera, path in source.image_files("f0").items():
        assert copies[camera].read_bytes() == path.read_bytes()


def test_a_jpeg_is_read_as_opencv_decodes_it(folder: Path) -> None:
    pixels = cv2.imread(str(folder / "images/rear0.jpg"))[..., ::-1]
    np.testing.assert_array_equal(open_source(folder)["f0"].frames["rear"], pixels)
