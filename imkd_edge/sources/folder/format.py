"""The drive folder's format: names of its files, its keys and what they hold (docs/guide/drive-folder.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.frames import Ego
from imkd_edge.rig import SensorRig
from imkd_edge.sources.files import read_bytes
from imkd_edge.sources.folder.problem import Report, problem_of
from imkd_edge.sources.folder.values import Values, shown
from imkd_edge.sources.nuscenes.labels import RACK

VERSION = 1
DATASET, RIG, FRAMES = "dataset.json", "rig.json", "frames.jsonl"
RIGS, SPLITS, IMAGES, RADAR, LIDAR = "rigs", "splits", "images", "radar", "lidar"  # folders
PART = ".part"  # ending of frames.jsonl while it is being written

IMAGE_FILES = (".jpg", ".jpeg", ".png")
POINT_FILES = (".npy", ".csv", ".pcd")
RIG_FILES = (".json",)
RADAR_COLUMNS = ("x", "y", "z", "intensity", "velocity")
LIDAR_COLUMNS = ("x", "y", "z", "intensity")
INTENSITIES = ("rcs_dbsm", "snr_db", "magnitude_db")
SIDES = ("right", "left")  # of the road that traffic keeps to

DATASET_KEYS = ("format", "name", "licence", "intensity", "classes", "traffic", "interval", "pcd")
FRAME_KEYS = ("frame", "scene", "timestamp_ns", "rig", "cameras", "radars", "lidar", "ego", "objects")
READING_KEYS = ("file", "timestamp_ns", "T_world_ego")
EGO_KEYS = ("T_world_ego", "twist")
OBJECT_KEYS = ("label", "center", "size", "yaw", "velocity", "track", "occlusion", "score")
_LARGEST_ANGLE = 2 * np.pi  # rad; beyond, it is in degrees


@dataclass(frozen=True)
class Dataset:
    """dataset.json."""

    name: str = ""
    licence: str = ""
    intensity: str = ""  # of the radars, one of INTENSITIES; empty: unknown
    classes: tuple[str, ...] = ()  # that labels may have; empty: any
    traffic: str = ""  # one of SIDES; empty: unknown
    interval: float | None = None  # s between key frames
    pcd: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # sensor, radar or lidar -> column -> field


@dataclass(frozen=True)
class Reading:
    """A file of a sensor."""

    file: str  # path in the folder
    timestamp_ns: int | None = None  # None: the frame's
    T_world_ego: np.ndarray | None = None  # (4, 4) ego pose at that time


@dataclass(frozen=True)
class Labels:
    """The objects of one frame."""

    objects: list[tuple[np.ndarray, str, int]]  # box (9,) as in Truth, label, occlusion
    tracks: list[str | None]


@dataclass(frozen=True)
class Frame:
    """A line of frames.jsonl."""

    name: str
    scene: str
    timestamp_ns: int
    rig: str = RIG
    cameras: dict[str, Reading] = field(default_factory=dict)
    radars: dict[str, list[Reading]] = field(default_factory=dict)
    lidar: Reading | None = None
    ego: Ego | None = None
    labels: Labels | None = None  # None: not labelled, or not read


def read_dataset(path: Path, report: Report) -> Dataset:
    """dataset.json, which may be absent."""
    if not path.exists():
        return Dataset()
    values = Values(report, path)
    data = values.document(read_bytes(path))
    if data is None:
        return Dataset()
    values.object(data, "", DATASET_KEYS, ("format",))
    if data.get("format", VERSION) != VERSION:
        fix = f"this version reads format {VERSION}: convert the folder again, or update imkd-edge"
        values.fault(Code.source_bad_value, f"format is {shown(data['format'])}", fix)
    interval = values.numbers(data["interval"], (), "interval") if "interval" in data else None
    if interval is not None and interval <= 0:
        values.fault(Code.source_bad_value, f"interval is {data['interval']}", "write seconds above 0")
    return Dataset(
        name=(values.text(data["name"], "name") or "") if "name" in data else "",
        licence=(values.text(data["licence"], "licence") or "") if "licence" in data else "",
        intensity=(values.choice(data["intensity"], "intensity", INTENSITIES) or "") if "intensity" in data else "",
        classes=_classes(data.get("classes", []), values),
        traffic=(values.choice(data["traffic"], "traffic", SIDES) or "") if "traffic" in data else "",
        interval=None if interval is None else float(interval),
        pcd=_pcd_fields(data.get("pcd", {}), values),
    )


def _classes(value: Any, values: Values) -> tuple[str, ...]:
    if not isinstance(value, list):
        values.fault(Code.source_bad_value, f"classes is {shown(value)}", 'write ["car", ...]')
        return ()
    names = [name for i, entry in enumerate(value) if (name := values.text(entry, f"classes[{i}]"))]
    for name in sorted({name for name in names if names.count(name) > 1}):
        values.fault(Code.source_duplicate, f"the class {name!r} is there twice", "leave one of them out")
    return tuple(dict.fromkeys(names))


def _pcd_fields(value: Any, values: Values) -> dict[str, dict[str, str]]:
    maps = value if isinstance(value, dict) else {}
    if maps is not value:
        values.fault(Code.source_bad_value, f"pcd is {shown(value)}", 'write {"radar": {"intensity": "rcs", ...}}')
    result = {}
    for sensor, columns in maps.items():
        known = LIDAR_COLUMNS if sensor == LIDAR else RADAR_COLUMNS
        columns = values.object(columns, f"pcd.{sensor}", known)
        names = {column: values.text(name, f"pcd.{sensor}.{column}") for column, name in columns.items()}
        result[sensor] = {column: name for column, name in names.items() if name}
    return result


def read_rig(path: Path, report: Report) -> SensorRig | None:
    """A checked rig; None where it is not one."""
    try:
        rig = SensorRig.from_json(read_bytes(path, "write it as imkd-edge's rig.json").decode("utf-8", "replace"))
        rig.check()
    except Error as fault:
        report(problem_of(fault, path))
        return None
    return rig


def parse_frame(text: bytes, values: Values, classes: tuple[str, ...], labels: bool = True) -> Frame | None:
    """A line of frames.jsonl.

    Args:
        text: the line.
        values: reports its faults.
        classes: that labels may have; empty: any.
        labels: False ignores the objects.
    Returns:
        The frame, without what is faulty; None where it has no name or no time.
    """
    data = values.document(text)
    if data is None:
        return None
    values.object(data, "", FRAME_KEYS, ("frame", "timestamp_ns"))
    name = values.text(data["frame"], "frame") if "frame" in data else None
    time = values.time(data["timestamp_ns"], "timestamp_ns") if "timestamp_ns" in data else None
    if name is None or time is None:
        return None
    objects = data.get("objects") if labels else None
    return Frame(
        name=name,
        scene=(values.text(data["scene"], "scene") or "") if "scene" in data else "",
        timestamp_ns=time,
        rig=(values.path(data["rig"], "rig", RIG_FILES) or RIG) if "rig" in data else RIG,
        cameras=_cameras(data.get("cameras", {}), values),
        radars=_radars(data.get("radars", {}), values),
        lidar=_reading(data["lidar"], values, "lidar", POINT_FILES) if "lidar" in data else None,
        ego=_ego(data["ego"], values) if "ego" in data else None,
        labels=None if objects is None else _labels(objects, values, classes),
    )


def _cameras(value: Any, values: Values) -> dict[str, Reading]:
    entries = values.object(value, "cameras", value if isinstance(value, dict) else ())
    readings = {name: _reading(entry, values, f"cameras.{name}", IMAGE_FILES) for name, entry in entries.items()}
    return {name: reading for name, reading in readings.items() if reading}


def _radars(value: Any, values: Values) -> dict[str, list[Reading]]:
    result = {}
    for name, entries in values.object(value, "radars", value if isinstance(value, dict) else ()).items():
        where = f"radars.{name}"
        if not isinstance(entries, list):
            values.fault(Code.source_bad_value, f"{where} is {shown(entries)}", "write a list of sweeps: [{...}, ...]")
            continue
        sweeps = [_reading(entry, values, f"{where}[{i}]", POINT_FILES) for i, entry in enumerate(entries)]
        result[name] = [sweep for sweep in sweeps if sweep]
        times = [sweep.timestamp_ns for sweep in result[name]]
        for time in sorted({time for time in times if time is not None and times.count(time) > 1}):
            fix = "leave one of them out, or correct its time"
            values.fault(Code.source_duplicate, f"{where} has two sweeps at {time}", fix)
    return result


def _reading(value: Any, values: Values, where: str, endings: tuple[str, ...]) -> Reading | None:
    entry = values.object(value, where, READING_KEYS, ("file",))
    file = values.path(entry["file"], f"{where}.file", endings) if "file" in entry else None
    time = values.time(entry["timestamp_ns"], f"{where}.timestamp_ns") if "timestamp_ns" in entry else None
    pose = values.pose(entry["T_world_ego"], f"{where}.T_world_ego") if "T_world_ego" in entry else None
    return None if file is None else Reading(file, time, pose)


def _ego(value: Any, values: Values) -> Ego | None:
    entry = values.object(value, "ego", EGO_KEYS)
    T = values.pose(entry["T_world_ego"], "ego.T_world_ego") if "T_world_ego" in entry else None
    twist = values.numbers(entry["twist"], (3,), "ego.twist") if "twist" in entry else None
    return None if T is None and twist is None else Ego(T_world_ego=T, twist=twist)


def _labels(value: Any, values: Values, classes: tuple[str, ...]) -> Labels:
    if not isinstance(value, list):
        fix = "write a list, [] where nothing is there; leave it out of a frame that is not labelled"
        values.fault(Code.source_bad_label, f"objects is {shown(value)}", fix)
        return Labels([], [])
    objects, tracks = [], []
    for i, entry in enumerate(value):
        item = _object(entry, values, f"objects[{i}]", classes)
        if item:
            objects.append(item[0])
            tracks.append(item[1])
    named = [track for track in tracks if track is not None]
    for track in sorted({track for track in named if named.count(track) > 1}):
        fix = "give each object of a frame a track of its own"
        values.fault(Code.source_duplicate, f"two objects are of track {track!r}", fix)
    return Labels(objects, tracks)


def _object(
    value: Any, values: Values, where: str, classes: tuple[str, ...]
) -> tuple[tuple[np.ndarray, str, int], str | None] | None:
    """Box, label and occlusion, and the track; None where one of them is faulty."""
    before, code = values.faults, Code.source_bad_label
    entry = values.object(value, where, OBJECT_KEYS, ("label", "center", "size", "yaw"))
    label = values.text(entry["label"], f"{where}.label") if "label" in entry else None
    if label is not None and classes and label not in (*classes, RACK):
        fix = f"dataset.json has the classes {', '.join(classes)}: correct the label, or add its class"
        values.fault(code, f"{where}.label is {label!r}, which is no class", fix)
    box = np.full(9, np.nan)
    for key, at, shape in (("center", slice(0, 3), (3,)), ("size", slice(3, 6), (3,)), ("yaw", 6, ())):
        numbers = values.numbers(entry[key], shape, f"{where}.{key}", code) if key in entry else None
        box[at] = np.nan if numbers is None else numbers
    if "velocity" in entry:
        velocity = values.numbers(entry["velocity"], (2,), f"{where}.velocity", code)
        box[7:] = np.nan if velocity is None else velocity
    if (box[3:6] <= 0).any():
        fix = "write length, width, height above 0, in metres"
        values.fault(code, f"{where}.size is {shown(entry['size'])}", fix)
    if abs(box[6]) > _LARGEST_ANGLE:
        values.fault(code, f"{where}.yaw is {box[6]:g}", "write radians, from -pi to pi")
    occlusion = values.choice(entry["occlusion"], f"{where}.occlusion", range(4)) if "occlusion" in entry else -1
    if "score" in entry:  # of a network that wrote the label; a label counts whatever its score
        values.numbers(entry["score"], (), f"{where}.score", code)
    track = values.text(entry["track"], f"{where}.track") if "track" in entry else None
    if values.faults > before or label is None:
        return None
    return (box, label, int(occlusion)), track
