"""What a word is that no reader knows, and what to give instead."""

from __future__ import annotations

import os
from pathlib import Path

from imkd_edge.errors import Code, Error

_ANY = "give a drive folder, a recording, a data set's folder, or synth for the synthetic world"
_ROS_1 = "convert it to ROS 2 (rosbags-convert), or install a package that reads it (entry point imkd_edge.sources)"
_VIDEO = "give a folder with it, named as its camera, and a rig.json (docs/guide/recordings.md), or a drive folder"
_ENDINGS = {  # ending -> what such a file is, what to do
    ".bag": ("a ROS 1 bag, and no reader for it is installed", _ROS_1),
    ".mp4": ("a video, which has neither calibration nor radar", _VIDEO),
    ".avi": ("a video, which has neither calibration nor radar", _VIDEO),
    ".mkv": ("a video, which has neither calibration nor radar", _VIDEO),
    ".jpg": ("one image", "give the folder of the recording; a drive folder may have a single frame"),
    ".jpeg": ("one image", "give the folder of the recording; a drive folder may have a single frame"),
    ".png": ("one image", "give the folder of the recording; a drive folder may have a single frame"),
    ".pcd": ("one point cloud", "give the folder of the recording; a drive folder may have a single frame"),
    ".npy": ("one array", "give the folder of the recording; a drive folder may have a single frame"),
    ".csv": ("one table", "give the folder of the recording; a drive folder may have a single frame"),
    ".zip": ("an archive", "unpack it and give its folder"),
    ".tar": ("an archive", "unpack it and give its folder"),
    ".gz": ("an archive", "unpack it and give its folder"),
    ".tgz": ("an archive", "unpack it and give its folder"),
    ".pt": ("a checkpoint of a training, not data", _ANY),
    ".onnx": ("a network, not data", _ANY),
    ".toml": ("a training's config, not data", f"write it before --data, and {_ANY}"),
}
_NAMES = {  # file of a drive folder -> what it is
    "rig.json": "the rig of a vehicle: it says where sensors are, not what they measured",
    "dataset.json": "a file of a drive folder",
    "frames.jsonl": "a file of a drive folder",
}
_KNOWN = (
    "known are a drive folder (frames.jsonl, rig.json), recordings (.mcap, ROS 2 bags), Astyx HiRes2019 "
    "(camera_front/, radar_6455/), nuScenes and TruckScenes (v1.0-*/sample.json), View-of-Delft (lidar/, radar/), "
    "KITTI (image_2/, calib/); or give synth"
)


def explain(name: str) -> Error:
    """The error for a word that no reader knows: it says what the word is."""
    if os.path.isdir(name):
        return _folder(Path(name))
    path = Path(name)
    if "://" in name:
        what = "an address, and sources are read from disk"
        return Error(Code.source_unknown, what, name, f"download it, then {_ANY}")
    if os.path.isfile(name):
        if path.name in _NAMES:
            fix = f"give its folder: {path.parent}" if path.name != "rig.json" else f"{_ANY}; a rig goes to --rig"
            return Error(Code.source_unknown, _NAMES[path.name], name, fix)
        if path.suffix == ".json" and _is_rig(path):
            return Error(Code.source_unknown, _NAMES["rig.json"], name, f"{_ANY}; a rig goes to --rig")
        unknown = "a file, and no reader for its kind is installed", _ANY
        what, fix = _ENDINGS.get(path.suffix.lower(), unknown)
        return Error(Code.source_unknown, what, name, fix)
    from imkd_edge.bundle import shipped

    if name in shipped():
        return _bundle(name)
    return Error(Code.source_missing_file, "no such file or folder", name, _ANY)


def _is_rig(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            return '"T_ego_' in file.read(20_000)
    except (OSError, UnicodeDecodeError):
        return False


def _bundle(name: str) -> Error:
    fix = f"{_ANY}; a bundle goes to --bundle"
    return Error(Code.source_unknown, "a bundle, which is a model and not data", name, fix)


def _folder(path: Path) -> Error:
    """The error for a folder that no reader knows."""
    if (path / "manifest.json").is_file():
        return _bundle(str(path))
    if not any(path.iterdir()):
        return Error(Code.source_unknown, "the folder is empty", str(path), _ANY)
    if (path / "rig.json").is_file():
        fix = "write frames.jsonl beside it, one frame a line: docs/guide/drive-folder.md"
        return Error(Code.source_unknown, "a folder with a rig and without frames", str(path), fix)
    inner = [folder.name for folder in sorted(path.iterdir()) if (folder / "frames.jsonl").is_file()]
    if inner:
        what = f"a folder of {len(inner)} drive folders"
        return Error(Code.source_unknown, what, str(path), f"give one of them, such as {path / inner[0]}")
    return Error(Code.source_unknown, "no reader knows this folder", str(path), _KNOWN)
