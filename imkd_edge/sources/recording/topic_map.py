"""The topic map: which topic of a recording is which sensor (docs/guide/recordings.md), as TOML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.sources.files import read_bytes
from imkd_edge.sources.folder.format import INTENSITIES, SIDES
from imkd_edge.sources.folder.values import LARGEST
from imkd_edge.sources.recording.container import import_library

VERSION = 1
ANGLES = ("rad", "deg")
VELOCITIES = ("raw", "compensated", "aliased")
TF = "tf"  # as the odometry: poses come from TF


@dataclass(frozen=True)
class CameraTopic:
    """A camera; what is empty comes from the messages."""

    topic: str
    info: str = ""  # topic of its camera_info
    frame: str = ""  # of TF, instead of the messages' own
    optical: bool | None = None  # whether that frame is optical; None: TF decides
    rectified: bool = False
    bits: int = 16  # of a 16-bit image that carry data
    T_ego_camera: Any = None  # (4, 4) mounting, instead of TF


@dataclass(frozen=True)
class RadarTopic:
    """A radar; what is empty comes from the messages."""

    topic: str
    velocity: str = "raw"  # one of VELOCITIES
    period: float = 0.0  # m/s, of an aliased velocity
    sign: int = 1  # -1: the driver's velocity is positive when approaching
    velocity_field: str = ""
    intensity_field: str = ""
    velocity_scale: float = 1.0  # m/s of 1 in the velocity's field
    angle: str = "rad"  # unit of azimuth and elevation, one of ANGLES
    frame: str = ""
    T_ego_radar: Any = None


@dataclass(frozen=True)
class TopicMap:
    """Which topics are read, and how frames are made of them."""

    cameras: dict[str, CameraTopic] = field(default_factory=dict)
    radars: dict[str, RadarTopic] = field(default_factory=dict)
    lidar: str = ""  # topic
    odometry: str = ""  # topic, or "tf"; empty: the ego motion is unknown
    ego_frame: str = "base_link"
    world_frame: str = ""  # of TF's poses; empty: the nearest in which the vehicle moves
    trigger: str = ""  # sensor whose messages make the frames; empty: the first camera, else the first radar
    interval: float = 0.0  # s between frames; 0: every message of the trigger
    tolerance: float = 0.05  # s between a frame and an image that belongs to it
    max_age: float = 0.5  # s of radar sweeps in a frame
    clock: str = "stamp"  # or "log": when a message was recorded
    intensity: str = ""  # of the radars: one of INTENSITIES
    traffic: str = ""  # one of SIDES
    ground_plane: Any = None  # z = a x + b y + c in the ego frame: [a, b, c]


def read_map(path: Path) -> TopicMap:
    """A topic map's file.

    Raises: Error source_missing_file, source_syntax, source_unknown_key, source_missing_key, source_bad_value.
    """
    data = read_bytes(path, "write it with imkd-edge inspect RECORDING --map FILE")
    try:
        import tomllib
    except ImportError:  # Python 3.10
        tomllib = import_library("tomli", path)  # type: ignore[assignment]
    try:
        document = tomllib.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as fault:  # a number of 5000 digits is no TOMLDecodeError
        raise Error(Code.source_syntax, f"not valid TOML ({fault})", str(path), "correct the line") from None
    return map_of(document, path)


def map_of(document: Mapping[str, Any], path: Path) -> TopicMap:
    """A topic map of parsed TOML; raises as `read_map`."""
    values = {key: value for key, value in document.items() if key not in ("format", "cameras", "radars")}
    if document.get("format", VERSION) != VERSION:
        raise _bad(path, "format", document["format"], f"this version reads format {VERSION}")
    cameras = _sensors(document.get("cameras", {}), CameraTopic, "cameras", path)
    radars = _sensors(document.get("radars", {}), RadarTopic, "radars", path)
    result = _build(TopicMap, values, "", path, cameras=cameras, radars=radars)
    _check(result, path)
    return result


def _sensors(entries: Any, kind: type, where: str, path: Path) -> dict[str, Any]:
    if not isinstance(entries, Mapping):
        raise _bad(path, where, entries, f"write [{where}.NAME] and its keys")
    return {name: _build(kind, values, f"{where}.{name}.", path) for name, values in entries.items()}


def _build(kind: type, values: Any, where: str, path: Path, **more: Any) -> Any:
    """A dataclass of a table whose values have the types of its fields."""
    if not isinstance(values, Mapping):
        raise _bad(path, where.rstrip("."), values, "write a table")
    known = {each.name: each for each in fields(kind) if each.name not in more}
    for key, value in values.items():
        if key not in known:
            fix = f"known are {', '.join(known)}"
            raise Error(Code.source_unknown_key, f"there is no key {where}{key}", str(path), fix)
        if problem := _problem(key, value, known[key].default):
            raise _bad(path, where + key, value, problem)
    if "topic" in known and "topic" not in values:
        raise Error(Code.source_missing_key, f"{where}topic is missing", str(path), "name the sensor's topic")
    return kind(**values, **more)


def _problem(key: str, value: Any, default: Any) -> str:
    """Why a value does not suit its key; empty where it does."""
    shape = {"T_ego_camera": (4, 4), "T_ego_radar": (4, 4), "ground_plane": (3,)}.get(key)
    if shape is not None:
        try:
            suits = np.asarray(value, np.float64).shape == shape
        except (TypeError, ValueError, OverflowError):
            suits = False
        return "" if suits else f"write {' x '.join(map(str, shape))} numbers"
    if isinstance(default, bool) or key == "optical":
        return "" if isinstance(value, bool) else "write true or false"
    if isinstance(default, (int, float)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        whole = isinstance(default, float) or isinstance(value, int)
        return "" if number and whole and abs(value) < LARGEST else "write a number"
    return "" if isinstance(value, str) else "write text in quotation marks"


def _check(value: TopicMap, path: Path) -> None:
    if not value.cameras and not value.radars:
        raise Error(Code.source_missing_key, "it names no camera and no radar", str(path), "add [cameras.NAME]")
    choices: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("clock", value.clock, ("stamp", "log")),
        ("intensity", value.intensity, ("", *INTENSITIES)),
        ("traffic", value.traffic, ("", *SIDES)),
        ("trigger", value.trigger, ("", *value.cameras, *value.radars)),
    ]
    for name, radar in value.radars.items():
        choices.append((f"radars.{name}.velocity", radar.velocity, VELOCITIES))
        choices.append((f"radars.{name}.sign", radar.sign, (1, -1)))
        choices.append((f"radars.{name}.angle", radar.angle, ANGLES))
        if not 0 < radar.velocity_scale <= 1000:
            raise _bad(path, f"radars.{name}.velocity_scale", radar.velocity_scale, "above 0, such as 0.27778 for km/h")
    for where, entry, allowed in choices:
        if entry not in allowed:
            raise _bad(path, where, entry, f"one of {', '.join(str(each) for each in allowed if each != '')}")
    for name, camera in value.cameras.items():
        if not 8 <= camera.bits <= 16:
            raise _bad(path, f"cameras.{name}.bits", camera.bits, "8 to 16")
    for key in ("interval", "tolerance", "max_age"):
        if not 0 <= getattr(value, key) <= 3600:
            raise _bad(path, key, getattr(value, key), "seconds, 0 to 3600")
    both = sorted(set(value.cameras) & set(value.radars))
    if both:
        what = f"{both[0]!r} is a camera and a radar"
        raise Error(Code.source_duplicate, what, str(path), "give every sensor a name of its own")


def _bad(path: Path, key: str, value: Any, fix: str) -> Error:
    return Error(Code.source_bad_value, f"{key} is {str(value)[:60]!r}", str(path), fix)


def with_options(topic_map: TopicMap, interval: float | None, trigger: str | None, path: Path) -> TopicMap:
    """The map with the reader's options instead of its own; raises Error source_bad_value."""
    changes: dict[str, Any] = {} if interval is None else {"interval": interval}
    if trigger is not None:
        changes["trigger"] = trigger
    result = replace(topic_map, **changes)
    _check(result, path)
    return result


def write_map(topic_map: TopicMap, comments: Mapping[str, str] | None = None) -> str:
    """The text of a topic map.

    Args:
        topic_map: what to write.
        comments: key, such as radars.front.sign -> what stands above it.
    """
    comments = comments or {}
    lines = [f"format = {VERSION}", *_lines(topic_map, TopicMap(), "", comments)]
    for room, kind in (("cameras", CameraTopic), ("radars", RadarTopic)):
        for name, sensor in getattr(topic_map, room).items():
            lines += ["", f"[{room}.{_key(name)}]"]
            lines += _lines(sensor, kind(topic=""), f"{room}.{name}.", comments)
    return "\n".join(lines) + "\n"


_ALWAYS = ("ego_frame", "odometry", "trigger", "interval", "max_age", "intensity", "velocity", "sign")


def _lines(value: Any, default: Any, where: str, comments: Mapping[str, str]) -> list[str]:
    lines = []
    for each in fields(value):
        entry = getattr(value, each.name)
        if each.name in ("cameras", "radars") or entry is None:
            continue
        if entry == getattr(default, each.name) and each.name not in _ALWAYS and where + each.name not in comments:
            continue
        if comment := comments.get(where + each.name):
            lines += [f"# {line}" for line in comment.splitlines()]
        lines.append(f"{each.name} = {json.dumps(np.asarray(entry).tolist(), ensure_ascii=False)}")
    return lines


def _key(name: str) -> str:
    """A bare key of TOML, or a quoted one."""
    bare = name.replace("_", "").replace("-", "")
    return name if bare.isascii() and bare.isalnum() else json.dumps(name, ensure_ascii=False)
