"""Drive folders with one defect each: the problem's code, file, line and cure, and all of them in one go."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sources.drive_folder import FORKLIFT, RADAR, START_NS, STEP_NS, csv, frames, pcd, pose, rig, write_drive

from imkd_edge.errors import Error
from imkd_edge.sources import open_source
from imkd_edge.sources.folder import problems

Change = Callable[[Path], None]
FRAMES = "frames.jsonl"


@dataclass(frozen=True)
class Defect:
    """What is done to a folder, and what must be said about it."""

    name: str
    change: Change
    code: str
    file: str
    line: int  # 0: the whole file
    what: str  # part of the message
    fix: str  # part of the cure
    raised: bool = True  # by the reader too, when it opens the folder or reads every frame


# ---- changes ----
def dataset(**keys: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "dataset.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))

    return change


def text(file: str, content: str | bytes) -> Change:
    return lambda folder: (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)


def remove(file: str) -> Change:
    return lambda folder: (folder / file).unlink()


def cut(file: str, size: int) -> Change:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:size])


def camera(**keys: Any) -> Change:
    """Changes the first camera of rig.json."""

    def change(folder: Path) -> None:
        data = rig()
        data["cameras"][0].update(keys)
        (folder / "rig.json").write_text(json.dumps(data))

    return change


def line(number: int, edit: Callable[[dict[str, Any]], Any]) -> Change:
    """Edits a line of frames.jsonl; the edit may return the line's text."""

    def change(folder: Path) -> None:
        lines = frames()
        texts = [json.dumps(entry) for entry in lines]
        result = edit(lines[number - 1])
        texts[number - 1] = result if isinstance(result, str) else json.dumps(lines[number - 1])
        (folder / FRAMES).write_text("\n".join(texts) + "\n")

    return change


def put(number: int, path: str, value: Any) -> Change:
    """Sets a value of a line, by its keys and list positions joined with slashes."""

    def edit(entry: Any) -> None:
        *keys, last = (int(key) if key.isdecimal() else key for key in path.split("/"))
        for key in keys:
            entry = entry[key]
        entry[last] = value

    return line(number, edit)


def drop(number: int, key: str) -> Change:
    return line(number, lambda entry: entry.pop(key) and None)


def label(**keys: Any) -> Change:
    """A label of the first line, with other keys."""
    return put(1, "objects", [{k: v for k, v in {**FORKLIFT, **keys}.items() if v is not ...}])


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def lines_of(*numbers: int) -> Change:
    """frames.jsonl with some of its lines, in this order."""
    entries = frames()
    return text(FRAMES, "".join(json.dumps(entries[number - 1]) + "\n" for number in numbers))


SKEW = [[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
FRONT = "cameras/front"
SWEEP = "radars/radar front/0"
NAN_POINT = np.array([[np.nan, 0, 0, 1, 0], [5, 0, 0, 1, 0]], np.float32)

# fmt: off
DEFECTS = [
    # dataset.json
    Defect("dataset_not_json", text("dataset.json", "{"),
           "E0308", "dataset.json", 0, "not valid JSON", "one JSON object"),
    Defect("dataset_is_a_list", text("dataset.json", "[]"),
           "E0308", "dataset.json", 0, "not a JSON object: []", "key"),
    Defect("dataset_empty", text("dataset.json", ""),
           "E0308", "dataset.json", 0, "there is nothing", "one JSON object"),
    Defect("dataset_not_utf8", text("dataset.json", b'{"format": 1, "name": "\xe9"}'),
           "E0308", "dataset.json", 0, "utf-8", "UTF-8"),
    Defect("dataset_unknown_key", dataset(license="MIT"), "E0309", "dataset.json", 0, "'license'", "'licence'"),
    Defect("dataset_key_twice", text("dataset.json", '{"format": 1, "format": 1}'),
           "E0313", "dataset.json", 0, "'format' is there twice", "one of them"),
    Defect("dataset_no_format", text("dataset.json", "{}"),
           "E0310", "dataset.json", 0, "no key 'format'", "add 'format'"),
    Defect("dataset_other_format", dataset(format=2), "E0311", "dataset.json", 0, "format is 2", "reads format 1"),
    Defect("dataset_name_no_text", dataset(name=7), "E0311", "dataset.json", 0, "name is 7", "a text"),
    Defect("dataset_intensity", dataset(intensity="dB"),
           "E0311", "dataset.json", 0, "intensity is 'dB'", "rcs_dbsm, snr_db"),
    Defect("dataset_traffic", dataset(traffic="both"), "E0311", "dataset.json", 0, "traffic is 'both'", "right, left"),
    Defect("dataset_interval_zero", dataset(interval=0), "E0311", "dataset.json", 0, "interval is 0", "above 0"),
    Defect("dataset_interval_nan", dataset(interval=float("nan")),
           "E0311", "dataset.json", 0, "not finite", "leave out"),
    Defect("dataset_classes_text", dataset(classes="car"),
           "E0311", "dataset.json", 0, "classes is 'car'", '["car", ...]'),
    Defect("dataset_class_empty", dataset(classes=["car", "forklift", ""]),
           "E0311", "dataset.json", 0, "classes[2] is ''", "not empty"),
    Defect("dataset_class_twice", dataset(classes=["car", "forklift", "car"]),
           "E0313", "dataset.json", 0, "'car' is there twice", "one of them"),
    Defect("dataset_pcd_column", dataset(pcd={"radar": {"intensity": "snr", "velocity": "v_r", "speed": "v"}}),
           "E0309", "dataset.json", 0, "'speed' of pcd.radar", "x, y, z, intensity, velocity"),
    Defect("dataset_pcd_no_object", dataset(pcd="snr"), "E0311", "dataset.json", 0, "pcd is 'snr'", "radar"),
    # rigs
    Defect("no_rig", remove("rig.json"), "E0302", "rig.json", 0, "cannot read", "rig.json"),
    Defect("rig_not_json", text("rig.json", "{"), "E0211", "rig.json", 0, "JSON", ""),
    Defect("rig_unknown_key", camera(focus=1), "E0212", "rig.json", 0, "focus", ""),
    Defect("rig_focal_zero", camera(K=[[0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]]), "E0214", "rig.json", 0, "focal", ""),
    Defect("rig_skewed", camera(T_ego_camera=SKEW), "E0215", "rig.json", 0, "orthonormal", ""),
    Defect("rig_name_twice", camera(name="rear"), "E0216", "rig.json", 0, "rear", ""),
    Defect("rig_empty", text("rig.json", '{"cameras": [], "radars": []}'), "E0217", "rig.json", 0, "", ""),
    Defect("second_rig_absent", remove("rigs/high.json"),
           "E0302", FRAMES, 3, "no such rig: rigs/high.json", "correct its name"),
    Defect("second_rig_broken", text("rigs/high.json", "?"), "E0211", "rigs/high.json", 0, "JSON", ""),
    Defect("rig_outside", put(3, "rig", "../high.json"), "E0312", FRAMES, 3, "'../high.json'", "without .."),
    # lines
    Defect("no_frames", remove(FRAMES), "E0302", FRAMES, 0, "cannot read", "one frame a line"),
    Defect("frames_empty", text(FRAMES, ""), "E0311", FRAMES, 0, "there are no frames", "one frame a line"),
    Defect("line_not_json", line(2, lambda entry: "frame f1"),
           "E0308", FRAMES, 2, "not valid JSON", "one JSON object"),
    Defect("line_is_a_list", line(2, lambda entry: "[1]"), "E0308", FRAMES, 2, "not a JSON object", "key"),
    Defect("line_breaks_off", lambda folder: cut(FRAMES, len((folder / FRAMES).read_bytes()) - 20)(folder),
           "E0308", FRAMES, 3, "not valid JSON", "breaks off"),
    Defect("line_unknown_key", put(2, "camera", {}), "E0309", FRAMES, 2, "'camera'", "'cameras'"),
    Defect("line_key_twice", line(2, lambda entry: json.dumps(entry)[:-1] + ', "scene": "a"}'),
           "E0313", FRAMES, 2, "'scene' is there twice", "one of them"),
    Defect("no_frame_name", drop(2, "frame"), "E0310", FRAMES, 2, "no key 'frame'", "add 'frame'"),
    Defect("frame_name_number", put(2, "frame", 12), "E0311", FRAMES, 2, "frame is 12", "a text"),
    Defect("no_time", drop(2, "timestamp_ns"), "E0310", FRAMES, 2, "'timestamp_ns'", "add"),
    Defect("time_fraction", put(2, "timestamp_ns", 1.5e9), "E0314", FRAMES, 2, "1500000000.0", "whole nanoseconds"),
    Defect("time_negative", put(2, "timestamp_ns", -1), "E0314", FRAMES, 2, "timestamp_ns is -1", "from 0 on"),
    Defect("time_beyond_64_bits", put(2, "timestamp_ns", 2**63), "E0314", FRAMES, 2, "9223372036854775808", "64 bits"),
    Defect("frame_twice", put(2, "frame", "f0"), "E0313", FRAMES, 2, "first in line 1", "another name"),
    Defect("time_goes_back", put(2, "timestamp_ns", START_NS - STEP_NS),
           "E0314", FRAMES, 2, "is not after", "sort the lines"),
    Defect("time_stands_still", put(2, "timestamp_ns", START_NS),
           "E0314", FRAMES, 2, "is not after", "sort the lines"),
    Defect("lines_unsorted", lines_of(2, 1, 3), "E0314", FRAMES, 2, "is not after", "sort the lines"),
    Defect("scene_no_text", put(2, "scene", 3), "E0311", FRAMES, 2, "scene is 3", "a text"),
    # sensors of a line
    Defect("cameras_a_list", put(1, "cameras", []), "E0311", FRAMES, 1, "cameras is []", "an object"),
    Defect("camera_unknown", put(1, "cameras/back", {"file": "images/f0.jpg"}),
           "E0311", FRAMES, 1, "no camera 'back'", "front, rear"),
    Defect("camera_without_file", put(1, FRONT, {"timestamp_ns": START_NS}),
           "E0310", FRAMES, 1, "'file' of cameras.front", "add"),
    Defect("camera_a_text", put(1, FRONT, "images/f0.png"),
           "E0311", FRAMES, 1, "cameras.front is 'images/f0.png'", "an object"),
    Defect("camera_unknown_key", put(1, f"{FRONT}/timestamp", 1),
           "E0309", FRAMES, 1, "'timestamp' of cameras.front", "'timestamp_ns'"),
    Defect("image_of_another_format", put(1, f"{FRONT}/file", "images/f0.bmp"),
           "E0311", FRAMES, 1, "images/f0.bmp", ".jpg, .jpeg, .png"),
    Defect("path_absolute", put(1, f"{FRONT}/file", "/etc/f0.png"),
           "E0312", FRAMES, 1, "'/etc/f0.png'", "from the folder on"),
    Defect("path_leaves", put(1, f"{FRONT}/file", "images/../../f0.png"),
           "E0312", FRAMES, 1, "images/../../f0.png", "without .."),
    Defect("path_of_windows", put(1, f"{FRONT}/file", "images\\f0.png"), "E0312", FRAMES, 1, "f0.png", "slashes"),
    Defect("path_of_a_drive", put(1, f"{FRONT}/file", "C:/f0.png"),
           "E0312", FRAMES, 1, "C:/f0.png", "from the folder on"),
    Defect("path_with_a_null", put(1, f"{FRONT}/file", "a\0.png"), "E0311", FRAMES, 1, "cameras.front.file", "a text"),
    Defect("image_of_two_frames", put(2, f"{FRONT}/file", "images/f0.png"),
           "E0313", FRAMES, 2, "belongs to line 1", "its own moment", False),
    Defect("camera_of_another_clock", put(1, f"{FRONT}/timestamp_ns", 20_000_000),
           "E0314", FRAMES, 1, "cameras.front.timestamp_ns 20000000", "one clock", False),
    Defect("radars_not_lists", put(1, "radars/radar front", {"file": "radar/f0.npy"}),
           "E0311", FRAMES, 1, "radars.radar front", "a list of sweeps"),
    Defect("radar_unknown", put(1, "radars/rear", [{"file": "radar/f0.npy"}]),
           "E0311", FRAMES, 1, "no radar 'rear'", "radar front"),
    Defect("radar_file_kind", put(1, f"{SWEEP}/file", "radar/f0.bin"),
           "E0311", FRAMES, 1, "radar/f0.bin", ".npy, .csv, .pcd"),
    Defect("radar_time_fraction", put(1, f"{SWEEP}/timestamp_ns", 0.5),
           "E0314", FRAMES, 1, "[0].timestamp_ns is 0.5", "whole nanoseconds"),
    Defect("sweep_twice", put(1, "radars/radar front", [{"file": "radar/f0.npy", "timestamp_ns": START_NS}] * 2),
           "E0313", FRAMES, 1, "two sweeps", "correct its time"),
    Defect("sweep_pose_skewed", put(1, f"{SWEEP}/T_world_ego", SKEW), "E0311", FRAMES, 1, "orthonormal", "a rotation"),
    Defect("lidar_outside", put(1, "lidar/file", "../f0.npy"), "E0312", FRAMES, 1, "lidar.file", "without .."),
    # ego
    Defect("ego_a_list", put(1, "ego", pose(0)), "E0311", FRAMES, 1, "ego is", "an object"),
    Defect("ego_unknown_key", put(1, "ego/pose", pose(0)), "E0309", FRAMES, 1, "'pose' of ego", "T_world_ego, twist"),
    Defect("pose_of_three_rows", put(1, "ego/T_world_ego", pose(0)[:3]),
           "E0311", FRAMES, 1, "ego.T_world_ego", "4 x 4"),
    Defect("pose_nan", put(1, "ego/T_world_ego/0/3", float("nan")), "E0311", FRAMES, 1, "not finite", "leave out"),
    Defect("twist_of_two", put(1, "ego/twist", [8, 0]), "E0311", FRAMES, 1, "ego.twist is [8, 0]", "3 numbers"),
    Defect("twist_of_texts", put(1, "ego/twist", ["8", "0", "0"]), "E0311", FRAMES, 1, "ego.twist", "3 numbers"),
    # labels
    Defect("objects_no_list", put(1, "objects", {}), "E0305", FRAMES, 1, "objects is {}", "[] where nothing"),
    Defect("object_unknown_key", label(centre=[1, 2, 3]), "E0309", FRAMES, 1, "'centre' of objects[0]", "'center'"),
    Defect("object_without_size", label(size=...), "E0310", FRAMES, 1, "'size' of objects[0]", "add"),
    Defect("label_unknown", label(label="Forklift"), "E0305", FRAMES, 1, "'Forklift'", "car, forklift"),
    Defect("label_no_text", label(label=1), "E0311", FRAMES, 1, "objects[0].label is 1", "a text"),
    Defect("size_zero", label(size=[3, 0, 2]), "E0305", FRAMES, 1, "[3, 0, 2]", "above 0"),
    Defect("size_of_two", label(size=[3, 2]), "E0305", FRAMES, 1, "objects[0].size", "3 numbers"),
    Defect("center_nan", label(center=[1, float("nan"), 0]), "E0305", FRAMES, 1, "not finite", "leave out"),
    Defect("yaw_in_degrees", label(yaw=90), "E0305", FRAMES, 1, "yaw is 90", "radians"),
    Defect("yaw_a_list", label(yaw=[0.5]), "E0305", FRAMES, 1, "objects[0].yaw", "one number"),
    Defect("velocity_of_three", label(velocity=[1, 0, 0]), "E0305", FRAMES, 1, "velocity", "2 numbers"),
    Defect("occlusion_4", label(occlusion=4), "E0311", FRAMES, 1, "occlusion is 4", "0, 1, 2, 3"),
    Defect("track_number", label(track=7), "E0311", FRAMES, 1, "track is 7", "a text"),
    Defect("track_twice", put(1, "objects", [{**FORKLIFT, "track": "7"}] * 2),
           "E0313", FRAMES, 1, "of track '7'", "track of its own"),
    # sensor files
    Defect("image_absent", remove("images/f1.png"),
           "E0302", FRAMES, 2, "no such file: images/f1.png", "leave the reading out", False),
    Defect("radar_absent", remove("radar/f1.csv"), "E0302", FRAMES, 2, "radar/f1.csv", "leave the reading out", False),
    Defect("lidar_absent", remove("lidar/f0.npy"), "E0302", FRAMES, 1, "lidar/f0.npy", "leave the reading out", False),
    Defect("image_empty", text("images/f1.png", ""), "E0303", "images/f1.png", 0, "empty", "copy"),
    Defect("image_no_image", text("images/f1.png", "hello"), "E0303", "images/f1.png", 0, "not a JPEG or PNG", "copy"),
    Defect("png_truncated", cut("images/f1.png", 900), "E0303", "images/f1.png", 0, "breaks off after 900", "copy"),
    Defect("jpeg_truncated", cut("images/rear0.jpg", 900),
           "E0303", "images/rear0.jpg", 0, "breaks off after 900", "copy"),
    Defect("image_of_another_size", camera(width=128),
           "E0303", "images/f0.png", 0, "64 x 48, its rig says 128 x 48", "correct the rig"),
    Defect("npy_empty", text("lidar/f0.npy", ""), "E0304", "lidar/f0.npy", 0, "empty", "numpy.save"),
    Defect("npy_no_npy", text("lidar/f0.npy", "x,y,z"), "E0304", "lidar/f0.npy", 0, "not a .npy file", "numpy.save"),
    Defect("npy_broken_header", text("lidar/f0.npy", b"\x93NUMPY\x01\x00\x0b\x00{'descr': (\n"),
           "E0304", "lidar/f0.npy", 0, "not a .npy file", "numpy.save"),
    Defect("npy_columns", text("lidar/f0.npy", npy(RADAR)),
           "E0304", "lidar/f0.npy", 0, "shape (3, 5)", "(N, 4) float32"),
    Defect("npy_texts", text("lidar/f0.npy", npy(RADAR[:, :4].astype(str))),
           "E0304", "lidar/f0.npy", 0, "type <U", "float32"),
    Defect("npy_truncated", cut("lidar/f0.npy", 150),
           "E0304", "lidar/f0.npy", 0, "needs 48 bytes, the file holds 22", "again"),
    Defect("npy_nan", text("radar/f0.npy", npy(NAN_POINT)),
           "E0304", "radar/f0.npy", 0, "1 of 2 points", "leave them out", False),
    Defect("csv_empty", text("radar/f1.csv", ""), "E0304", "radar/f1.csv", 1, "empty", "x,y,z,intensity,velocity"),
    Defect("csv_header", text("radar/f1.csv", "x,y,z,rcs,velocity\n"),
           "E0304", "radar/f1.csv", 1, "no column intensity", "x,y,z,intensity,velocity"),
    Defect("csv_semicolons", text("radar/f1.csv", csv(RADAR).replace(",", ";")),
           "E0304", "radar/f1.csv", 1, "no column x", "x,y,z"),
    Defect("csv_short_row", text("radar/f1.csv", csv(RADAR) + "1,2,3,4\n"),
           "E0304", "radar/f1.csv", 5, "4 values under a header of 5", "separated by commas"),
    Defect("csv_words", text("radar/f1.csv", csv(RADAR) + "1,2,3,loud,0\n"),
           "E0304", "radar/f1.csv", 5, "loud", "numbers with points"),
    Defect("pcd_field", text("radar/f2.pcd", pcd(RADAR, "x y z rcs v_r")),
           "E0304", "radar/f2.pcd", 0, "no field snr", "PCD"),
    Defect("pcd_truncated", cut("radar/f2.pcd", 150), "E0304", "radar/f2.pcd", 0, "POINTS 3 needs 60 bytes", "PCD"),
    # splits
    Defect("split_unknown_name", text("splits/val.txt", "f2\nf9\n"),
           "E0315", "splits/val.txt", 2, "'f9' is neither a frame nor a scene", "correct"),
    Defect("split_name_twice", text("splits/val.txt", "f2\nb\n"),
           "E0315", "splits/val.txt", 2, "first by line 1", "one of them"),
    Defect("split_called_all", text("splits/all.txt", "f0\n"),
           "E0315", "splits/all.txt", 0, "called all", "another name"),
    Defect("split_empty", text("splits/val.txt", "\n"),
           "E0315", "splits/val.txt", 0, "names no frame", "name some", False),
    Defect("splits_overlap", text("splits/val.txt", "f1\nf2\n"),
           "E0315", "splits/val.txt", 0, "shared with the split 'train': 1, such as 'f1'", "one of the two", False),
]
# fmt: on


@pytest.fixture(params=DEFECTS, ids=lambda defect: defect.name)
def defect(request: pytest.FixtureRequest) -> Defect:
    return request.param


def test_there_are_enough_of_them() -> None:
    assert len(DEFECTS) >= 60 and len({defect.name for defect in DEFECTS}) == len(DEFECTS)


def test_a_defect_is_named_with_file_line_and_cure(defect: Defect, tmp_path: Path) -> None:
    folder = write_drive(tmp_path / "drive")
    defect.change(folder)
    matching = [
        problem
        for problem in problems(folder)
        if str(problem.error()).startswith(f"error[{defect.code}]")
        and (problem.file, problem.line) == (folder / defect.file, defect.line)
        and defect.what in problem.what
        and defect.fix in problem.fix
    ]
    assert len(matching) == 1, [str(problem.error()) for problem in problems(folder)]
    assert matching[0].fix


def test_the_reader_raises_what_it_cannot_read(defect: Defect, tmp_path: Path) -> None:
    folder = write_drive(tmp_path / "drive")
    defect.change(folder)

    def read() -> None:
        source = open_source(folder)
        assert source.splits
        for name in source.names:
            source[name]

    if not defect.raised:
        read_quietly(read)
        return
    with pytest.raises(Error) as info:
        read()
    where = str(folder / defect.file) + (f":{defect.line}" if defect.line else "")
    assert (info.value.code, info.value.where) == (defect.code, where)
    assert defect.what in info.value.what and defect.fix in info.value.fix


def read_quietly(read: Callable[[], None]) -> None:
    """Reads what only a check complains about: an absent file warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read()


def test_all_problems_are_found_in_one_go(tmp_path: Path) -> None:
    folder = write_drive(tmp_path / "drive")
    for change in (dataset(traffic="both"), remove("images/f1.png"), text("splits/val.txt", "f9\n"), camera(focus=1)):
        change(folder)
    lines = frames()
    lines[0]["objects"][0]["yaw"] = 90
    lines[0]["ego"]["twist"] = [1, 2]
    lines[2]["timestamp_ns"] = "now"
    (folder / FRAMES).write_text("\n".join(map(json.dumps, lines)))
    where = [(problem.file.name, problem.line, int(problem.code)) for problem in problems(folder)]
    assert where == [
        ("dataset.json", 0, 311),
        ("rig.json", 0, 212),
        (FRAMES, 3, 314),
        (FRAMES, 1, 311),
        (FRAMES, 1, 305),
        (FRAMES, 2, 302),
        ("val.txt", 1, 315),
        ("val.txt", 0, 315),
    ]


def test_sensor_files_need_not_be_read(tmp_path: Path) -> None:
    folder = write_drive(tmp_path / "drive")
    text("images/f0.png", "hello")(folder)
    remove("radar/f1.csv")(folder)
    assert [problem.line for problem in problems(folder, files=False)] == [2]
