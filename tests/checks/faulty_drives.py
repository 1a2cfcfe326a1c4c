"""Drive folders of the synthetic world, and faults that users make in theirs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.rig import SensorRig
from imkd_edge.sources.convert import convert
from imkd_edge.sources.synth import SynthSource, default_rig

Change = Callable[[Path], None]
SCENES, FRAMES = 3, 5


def write_drive(folder: Path, velocity: str = "compensated", period: float = 0.0) -> None:
    """Fifteen labelled frames at 8 m/s: two cameras, two radars of one kind of velocity, LiDAR, poses and twists."""
    whole = default_rig((96, 54))
    rig = SensorRig(
        cameras=[whole.cameras[0], whole.cameras[3]],
        radars=[whole.radars[0], whole.radars[3]],
        ground_plane=(0.0, 0.0, 0.0),
    )
    for index in range(2):
        rig.radars[index].velocity, rig.radars[index].period = velocity, period
    convert(SynthSource(scenes=SCENES, frames_per_scene=FRAMES, rig=rig, speed=8.0, lidar=True, sweeps=2), folder)
    for path in (folder / "lidar").rglob("*.npy"):  # a quarter of the points is enough, and read faster
        np.save(path, np.load(path)[::4])


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]


def in_lines(edit: Callable[[dict[str, Any]], None]) -> Change:
    """Edits every line of frames.jsonl."""

    def change(folder: Path) -> None:
        entries = lines_of(folder)
        for entry in entries:
            edit(entry)
        (folder / "frames.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))

    return change


def in_objects(edit: Callable[[dict[str, Any]], None]) -> Change:
    """Edits every object."""
    return in_lines(lambda entry: [edit(item) for item in entry["objects"]] and None)


def in_first(label: str, edit: Callable[[dict[str, Any]], None]) -> Change:
    """Edits the first object of a class."""

    def change(folder: Path) -> None:
        left = [True]

        def once(item: dict[str, Any]) -> None:
            if item["label"] == label and left:
                left.pop()
                edit(item)

        in_objects(once)(folder)

    return change


def in_rig(edit: Callable[[dict[str, Any]], None]) -> Change:
    """Edits rig.json."""

    def change(folder: Path) -> None:
        data = json.loads((folder / "rig.json").read_text())
        edit(data)
        (folder / "rig.json").write_text(json.dumps(data))

    return change


def in_points(edit: Callable[[np.ndarray], None], sensor: str = "radar", files: slice = slice(None)) -> Change:
    """Edits the point files of a kind of sensor."""

    def change(folder: Path) -> None:
        for path in sorted((folder / sensor).rglob("*.npy"))[files]:
            points = np.load(path)
            edit(points)
            np.save(path, points)

    return change


def kind(velocity: str, period: float = 0.0) -> Change:
    """What the rig says of the radars' velocities."""
    return in_rig(lambda data: [radar.update(velocity=velocity, period=period) for radar in data["radars"]] and None)


def without_motion(entry: dict[str, Any]) -> None:
    """Takes poses and twists out of a line."""
    entry.pop("ego")
    for sweeps in entry["radars"].values():
        for sweep in sweeps:
            sweep.pop("T_world_ego", None)


def in_millimetres(data: dict[str, Any]) -> None:
    """Writes the translations of the cameras in millimetres."""
    for camera in data["cameras"]:
        for row in camera["T_ego_camera"][:3]:
            row[3] *= 1000


def radar_in_millimetres(data: dict[str, Any]) -> None:
    """Writes the translation of the first radar in millimetres."""
    for row in data["radars"][0]["T_ego_radar"][:3]:
        row[3] *= 1000


def frozen(folder: Path) -> None:
    """The rear camera stands still for five frames."""
    images = sorted((folder / "images" / "CAM_BACK").glob("*.png"))
    for path in images[3:8]:
        shutil.copy(images[2], path)


def inverted(entry: dict[str, Any]) -> None:
    """Writes T_ego_world for T_world_ego."""
    entry["ego"]["T_world_ego"] = np.linalg.inv(entry["ego"]["T_world_ego"]).tolist()
