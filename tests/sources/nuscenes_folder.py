"""A small nuScenes v1.0 folder written by hand.

One scene of three key frames: a moving vehicle, two cameras, a LiDAR, a radar with sweeps.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import cv2
import numpy as np
from pyquaternion import Quaternion

START_US = 1_600_000_000_000_000
STEP_US = 500_000  # between key frames
FIELDS = "x y z dyn_prop id rcs vx vy vx_comp vy_comp is_quality_valid ambig_state x_rms y_rms"
FIELDS += " invalid_state pdh0 vx_rms vy_rms"
SIZES = "4 4 4 1 2 4 4 4 4 4 1 1 1 1 1 1 1 1"
TYPES = "F F F I I F F F F F I I I I I I I I"
POINT = np.dtype(
    [(n, {"F": "<f", "I": "<i"}[t] + s) for n, s, t in zip(FIELDS.split(), SIZES.split(), TYPES.split(), strict=True)]
)
SENSORS = {  # channel: modality, translation, rotation, delay in us
    "CAM_FRONT": ("camera", [1.7, 0.0, 1.5], Quaternion([0.5, -0.5, 0.5, -0.5]), -35_000),
    "CAM_BACK": ("camera", [0.0, 0.1, 1.6], Quaternion([0.5, -0.5, -0.5, 0.5]), -10_000),
    "LIDAR_TOP": ("lidar", [0.9, 0.0, 1.8], Quaternion(axis=[0, 0, 1], degrees=-90), 0),
    "RADAR_FRONT": ("radar", [3.4, 0.0, 0.5], Quaternion(axis=[0, 0, 1], degrees=2), 15_000),
}
K = [[1000.0, 0.0, 319.5], [0.0, 1000.0, 179.5], [0.0, 0.0, 1.0]]
CATEGORIES = ["vehicle.car", "human.pedestrian.adult", "animal"]
ANNOTATED = ([0, 1, 2], [0, 2], [1])  # key frames of each instance


def pose(time_us: int) -> tuple[list[float], Quaternion]:
    """The vehicle's pose: a bend at 8 m/s, slightly pitched."""
    t = (time_us - START_US) * 1e-6
    turn = Quaternion(axis=[0, 0, 1], radians=0.7 + 0.2 * t) * Quaternion(axis=[0, 1, 0], degrees=1.5)
    return [400 + 8 * t, 1100 + t * t, 0.0], turn


def radar_rows(seed: int, count: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = np.zeros(count, POINT)
    points["x"], points["y"] = rng.uniform(3, 80, count), rng.uniform(-20, 20, count)
    points["rcs"] = rng.uniform(-5, 30, count)
    points["vx_comp"], points["vy_comp"] = rng.normal(0, 5, (2, count))
    points["ambig_state"], points["dyn_prop"] = 3, 1
    for row, (field, value) in enumerate(
        [("ambig_state", 2), ("invalid_state", 3), ("invalid_state", 4), ("dyn_prop", 7)]
    ):
        points[field][row : row + 1] = value
    return points


def pcd(points: np.ndarray, padding: int = 43) -> bytes:
    count = len(points)
    lines = [
        "# .PCD v0.7 - Point Cloud Data file format",
        "VERSION 0.7",
        f"FIELDS {FIELDS}",
        f"SIZE {SIZES}",
        f"TYPE {TYPES}",
    ]
    lines += [
        "COUNT" + " 1" * 18,
        f"WIDTH {count}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {count}",
        "DATA binary",
    ]
    return ("\n".join(lines) + "\n").encode() + points.tobytes() + bytes(padding)


def write_nuscenes(root: Path) -> Path:
    """The folder, with version v1.0-mini and the scene name scene-0061."""
    tables: dict[str, list[dict]] = {"sample_data": [], "ego_pose": [], **_sensors(), **_story()}
    for channel, (modality, *_, delay) in SENSORS.items():
        radar = modality == "radar"  # twice as often, and from before the first key frame
        rows = [_reading(root, tables, channel, modality, step, delay) for step in range(-2 * radar, 5, 2 - radar)]
        for one, two in itertools.pairwise(rows):
            one["next"], two["prev"] = two["token"], one["token"]
        tables["sample_data"] += rows
    (root / "maps").mkdir(exist_ok=True)
    cv2.imwrite(str(root / "maps" / "none.png"), np.zeros((8, 8), np.uint8))  # the devkit needs one
    for name, rows in tables.items():
        path = root / "v1.0-mini" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows))
    return root


def _sensors() -> dict[str, list[dict]]:
    tables: dict[str, list[dict]] = {"sensor": [], "calibrated_sensor": []}
    for channel, (modality, translation, rotation, _) in SENSORS.items():
        tables["sensor"].append({"token": f"s-{channel}", "channel": channel, "modality": modality})
        mounting = {"translation": translation, "rotation": list(rotation)}
        row = {"token": f"c-{channel}", "sensor_token": f"s-{channel}", **mounting}
        tables["calibrated_sensor"].append({**row, "camera_intrinsic": K if modality == "camera" else []})
    return tables


def _story() -> dict[str, list[dict]]:
    """Tables of the scene, its samples and its objects."""
    samples, scene = [], {"token": "scene", "name": "scene-0061", "description": "", "log_token": "log"}
    for i in range(3):
        links = {"prev": f"k{i - 1}" if i else "", "next": f"k{i + 1}" if i < 2 else ""}
        samples.append({"token": f"k{i}", "timestamp": START_US + i * STEP_US, "scene_token": "scene", **links})
    instances = []
    for i, frames in enumerate(ANNOTATED):
        ends = {"first_annotation_token": f"a{i}-{frames[0]}", "last_annotation_token": f"a{i}-{frames[-1]}"}
        instances.append({"token": f"i{i}", "category_token": f"cat{i}", "nbr_annotations": len(frames), **ends})
    levels = enumerate(("v0-40", "v40-60", "v60-80", "v80-100"), 1)
    log = {"token": "log", "logfile": "", "vehicle": "", "date_captured": "2020-09-13", "location": "nowhere"}
    floor = {"token": "map", "log_tokens": ["log"], "category": "semantic_prior", "filename": "maps/none.png"}
    return {
        "scene": [{**scene, "nbr_samples": 3, "first_sample_token": "k0", "last_sample_token": "k2"}],
        "sample": samples,
        "sample_annotation": [row for i, frames in enumerate(ANNOTATED) for row in _annotations(i, frames)],
        "instance": instances,
        "category": [{"token": f"cat{i}", "name": n, "description": "", "index": i} for i, n in enumerate(CATEGORIES)],
        "visibility": [{"token": str(i), "level": level, "description": ""} for i, level in levels],
        "attribute": [{"token": "moving", "name": "vehicle.moving", "description": ""}],
        "log": [log],
        "map": [floor],
    }


def _reading(root: Path, tables: dict, channel: str, modality: str, step: int, delay: int) -> dict:
    """One file of a sensor at `step` half key-frame intervals, with its rows."""
    time, key = START_US + step * STEP_US // 2 + delay, step >= 0 and step % 2 == 0
    token, ending = f"{channel}-{step}", {"camera": "jpg", "lidar": "pcd.bin", "radar": "pcd"}[modality]
    path = root / ("samples" if key else "sweeps") / channel / f"made__{channel}__{time}.{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if modality == "camera":
        shade = np.roll(np.linspace(80, 100, 640), 8 * step)[:, None]  # it moves from frame to frame
        cv2.imwrite(str(path), np.broadcast_to(shade, (360, 640, 3)).astype(np.uint8))
    else:
        rng = np.random.default_rng(step + 100)
        cloud = np.c_[rng.uniform(-30, 30, (50, 3)), rng.integers(0, 256, 50), np.zeros(50)].astype(np.float32)
        path.write_bytes(pcd(radar_rows(step + 10)) if modality == "radar" else cloud.tobytes())
    translation, rotation = pose(time)
    tables["ego_pose"].append(
        {"token": token, "timestamp": time, "translation": translation, "rotation": list(rotation)}
    )
    width, height = (640, 360) if modality == "camera" else (0, 0)
    return {
        "token": token,
        "sample_token": f"k{min(max(step, 0) // 2, 2)}",
        "ego_pose_token": token,
        "calibrated_sensor_token": f"c-{channel}",
        "timestamp": time,
        "fileformat": ending.split(".")[0],
        "is_key_frame": key,
        "filename": str(path.relative_to(root)),
        "prev": "",
        "next": "",
        "width": width,
        "height": height,
    }


def _annotations(instance: int, frames: list[int]) -> list[dict]:
    rng = np.random.default_rng(instance)
    return [
        {
            "token": f"a{instance}-{frame}",
            "sample_token": f"k{frame}",
            "instance_token": f"i{instance}",
            "translation": [420 + 3.0 * instance + 2.5 * frame, 1115 + 0.5 * frame, 0.8],
            "size": rng.uniform(1, 5, 3).tolist(),
            "rotation": list(Quaternion(axis=[0, 0, 1], radians=0.3 + instance + 0.05 * frame)),
            "num_lidar_pts": 5 + frame,
            "num_radar_pts": frame,
            "visibility_token": str(4 - frame),
            "attribute_tokens": ["moving"] if instance == 0 else [],
            "prev": f"a{instance}-{frames[i - 1]}" if i else "",
            "next": f"a{instance}-{frames[i + 1]}" if i + 1 < len(frames) else "",
        }
        for i, frame in enumerate(frames)
    ]
