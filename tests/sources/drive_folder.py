"""A small drive folder written by hand after docs/guide/drive-folder.md, independently of the writer.

Three frames of two scenes: two cameras, one of them a fisheye, and a radar whose velocities are aliased. The second
frame has no camera "rear", the third no labels and a rig of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

START_NS = 1_700_000_000_000_000_000
STEP_NS = 500_000_000
DATASET = {
    "format": 1,
    "name": "yard",
    "licence": "CC0-1.0",
    "intensity": "snr_db",
    "classes": ["car", "forklift"],
    "traffic": "left",
    "interval": 0.5,
    "pcd": {"radar": {"intensity": "snr", "velocity": "v_r"}},
}
T_FRONT = [[0, 0, 1, 1.5], [-1, 0, 0, 0], [0, -1, 0, 1.4], [0, 0, 0, 1]]
T_REAR = [[0, 0, -1, -1.0], [1, 0, 0, 0], [0, -1, 0, 1.4], [0, 0, 0, 1]]
T_RADAR = [[1, 0, 0, 3.5], [0, 1, 0, 0.25], [0, 0, 1, 0.5], [0, 0, 0, 1]]
RADAR = np.array([[20, 1, 0, 12.5, -3.5], [8, -2, 0.25, 5, 0], [40, 5, 1, 30, 1.5]], np.float32)
LIDAR = np.array([[10, 0, 0.5, 40], [11.5, 0.25, 0.5, 80], [30, 9, 1, 20]], np.float32)
FORKLIFT = {"label": "forklift", "center": [23.5, 1.25, 1.0], "size": [3.0, 1.5, 2.0], "yaw": 0.5}


def rig(height: float = 1.4) -> dict[str, Any]:
    """The rig, with the cameras at a height in metres."""
    T_front, T_rear = ([*map(list, T)] for T in (T_FRONT, T_REAR))
    T_front[2][3] = T_rear[2][3] = height
    lens = {"width": 64, "height": 48, "K": [[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1]]}
    plain = {**lens, "distortion": "none", "coefficients": []}
    fisheye = {**lens, "distortion": "fisheye", "coefficients": [0.01, 0.0, 0.0, 0.0]}
    return {
        "cameras": [
            {"name": "front", "T_ego_camera": T_front, **plain},
            {"name": "rear", "T_ego_camera": T_rear, **fisheye},
        ],
        "radars": [{"name": "radar front", "T_ego_radar": T_RADAR, "velocity": "aliased", "period": 10.0}],
    }


def image(number: int) -> np.ndarray:
    """(48, 64, 3) uint8 RGB."""
    return np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8)


def pose(metres: float) -> list[list[float]]:
    """The vehicle's pose after driving along the world's y axis."""
    return [[0, -1, 0, 100], [1, 0, 0, metres], [0, 0, 1, 0], [0, 0, 0, 1]]


def frames() -> list[dict[str, Any]]:
    """The lines of frames.jsonl."""
    times = [START_NS, START_NS + STEP_NS, START_NS + 100 * STEP_NS]
    sweeps = [f"radar/f{i}.{ending}" for i, ending in enumerate(("npy", "csv", "pcd"))]
    car = {"label": "car", "center": [40.0, 5.0, 0.75], "size": [4, 1.75, 1.5], "yaw": -3.0, "velocity": [7.5, 0.25]}
    lines: list[dict[str, Any]] = [
        {
            "frame": f"f{i}",
            "scene": "aab"[i],
            "timestamp_ns": time,
            "cameras": {"front": {"file": f"images/f{i}.png", "timestamp_ns": time - 20_000_000}},
            "radars": {"radar front": [{"file": sweeps[i], "timestamp_ns": time - 10_000_000}]},
        }
        for i, time in enumerate(times)
    ]
    lines[0]["cameras"]["rear"] = {"file": "images/rear0.jpg"}
    lines[0]["lidar"] = {"file": "lidar/f0.npy", "timestamp_ns": START_NS}
    lines[0]["ego"] = {"T_world_ego": pose(0), "twist": [8, 0, 0.125]}
    lines[0]["objects"] = [{**FORKLIFT, "track": "7", "occlusion": 1}, car]
    lines[1]["objects"] = []
    lines[1]["ego"] = {"T_world_ego": pose(4)}
    lines[1]["radars"]["radar front"].append(
        {"file": "radar/f0.npy", "timestamp_ns": START_NS - 10_000_000, "T_world_ego": pose(0)}
    )
    lines[2]["rig"] = "rigs/high.json"
    return lines


def write_frames(folder: Path, lines: list[dict[str, Any]]) -> None:
    """Writes frames.jsonl."""
    (folder / "frames.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def pcd(points: np.ndarray, names: str = "x y z snr v_r", extra: bytes = b"") -> bytes:
    """A binary PCD file of float32 fields."""
    count = len(names.split())
    header = ["VERSION 0.7", f"FIELDS {names}", "SIZE" + " 4" * count, "TYPE" + " F" * count, "COUNT" + " 1" * count]
    header += [f"WIDTH {len(points)}", "HEIGHT 1", f"POINTS {len(points)}", "DATA binary"]
    return ("\n".join(header) + "\n").encode() + points.astype("<f4").tobytes() + extra


def csv(points: np.ndarray) -> str:
    """A CSV file of radar points."""
    rows = [",".join(repr(float(value)) for value in row) for row in points]
    return "\n".join(["x,y,z,intensity,velocity", *rows]) + "\n"


def write_drive(folder: Path) -> Path:
    """Writes the whole folder."""
    for name in ("images", "radar", "lidar", "rigs", "splits"):
        (folder / name).mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(DATASET))
    (folder / "rig.json").write_text(json.dumps(rig()))
    (folder / "rigs" / "high.json").write_text(json.dumps(rig(1.9)))
    for i in range(3):
        cv2.imwrite(str(folder / f"images/f{i}.png"), image(i)[..., ::-1])
    cv2.imwrite(str(folder / "images/rear0.jpg"), image(9)[..., ::-1])
    np.save(folder / "radar/f0.npy", RADAR)
    (folder / "radar/f1.csv").write_text(csv(RADAR))
    (folder / "radar/f2.pcd").write_bytes(pcd(RADAR))
    np.save(folder / "lidar/f0.npy", LIDAR)
    write_frames(folder, frames())
    (folder / "splits/train.txt").write_text("a\n")
    (folder / "splits/val.txt").write_text("f2\n")
    return folder
