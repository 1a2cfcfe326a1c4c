"""A small View-of-Delft folder written by hand after the set's documents, independently of the reader.

Five frames: two of one recording, two of the next, one of the test split. The vehicle drives a bend. Camera and radar
are tilted against the LiDAR, a little differently in each frame.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
from pyquaternion import Quaternion

NAMES = ["00542", "00543", "00544", "00545", "02540"]
SPLITS = {"train": NAMES[:2], "val": NAMES[2:4], "train_val": NAMES[:4], "test": NAMES[4:], "full": NAMES}
WIDTH, HEIGHT = 1936, 1216
P2 = np.array([[1495.468642, 0, 961.272442, 0], [0, 1495.468642, 624.89592, 0], [0, 0, 1, 0]])
# x right, y down, z ahead of a camera that is not tilted
FROM_CAMERA_AXES = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]])
ORIGIN = [52.0, 4.3, 1.5]  # of the odometry

# class, x, y, z of the bottom centre in the LiDAR frame, length, width, height, yaw, occlusion
OBJECTS = [
    ("Car", 12.0, 1.2, -1.75, 4.3, 1.8, 1.5, 0.1, 0),
    ("Car", 28.0, 9.0, -1.7, 4.0, 1.7, 1.6, -2.9, 1),
    ("Pedestrian", 9.0, -2.0, -1.8, 0.7, 0.6, 1.75, 1.6, 0),
    ("Cyclist", 20.0, -0.5, -1.72, 1.9, 0.7, 1.8, 3.1, 2),
    ("bicycle_rack", 15.0, -6.0, -1.78, 4.0, 1.0, 1.1, 0.8, 0),
    ("rider", 20.0, -0.5, -1.4, 0.8, 0.6, 1.4, 3.1, 2),
]


def rigid(rotation: np.ndarray, translation: list[float]) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation, translation
    return T


def calibration(frame: int) -> tuple[np.ndarray, np.ndarray]:
    """T_camera_lidar, T_camera_radar: the camera looks up by 6.5 degrees, 1.5 m ahead of the LiDAR, 0.4 m below it."""
    tilt = Quaternion(axis=[0, 1, 0], degrees=-6.5 - 0.1 * frame) * Quaternion(axis=[0, 0, 1], degrees=0.5)
    T_lidar_camera = rigid(tilt.rotation_matrix @ FROM_CAMERA_AXES.T, [1.5, 0.05, -0.4])
    turn = Quaternion(axis=[0, 0, 1], degrees=0.6 + 0.2 * frame) * Quaternion(axis=[0, 1, 0], degrees=-0.7)
    T_camera_lidar = np.linalg.inv(T_lidar_camera)
    return T_camera_lidar, T_camera_lidar @ rigid(turn.rotation_matrix, [2.5, 0.04, -1.18])


def pose(frame: int) -> np.ndarray:
    """T_odometry_camera."""
    turn = Quaternion(axis=[0, 0, 1], radians=0.7 + 0.03 * frame)
    return rigid(
        turn.rotation_matrix @ FROM_CAMERA_AXES.T, [ORIGIN[0] + 0.8 * frame, ORIGIN[1] + 0.1 * frame**2, ORIGIN[2]]
    )


def label_line(T_camera_lidar: np.ndarray, item: tuple) -> str:
    """A line of an object as in the documents, with the score of the published files."""
    name, x, y, z, length, width, height, yaw, occlusion = item
    corners = [
        [x + np.cos(yaw) * a - np.sin(yaw) * b, y + np.sin(yaw) * a + np.cos(yaw) * b, z + c, 1]
        for a in (-length / 2, length / 2)
        for b in (-width / 2, width / 2)
        for c in (0, height)
    ]
    u, v, w = P2 @ T_camera_lidar @ np.array(corners).T
    assert (w > 0).all(), "these objects stand before the camera"
    left, right = np.clip([(u / w).min(), (u / w).max()], 0, WIDTH - 1)
    top, bottom = np.clip([(v / w).min(), (v / w).max()], 0, HEIGHT - 1)
    location = (T_camera_lidar @ [x, y, z, 1])[:3]
    rotation = (-(yaw + np.pi / 2) + np.pi) % (2 * np.pi) - np.pi  # about -z of the LiDAR, 0 to the right
    alpha = rotation - np.arctan2(location[0], location[2])
    numbers = [alpha, left, top, right, bottom, height, width, length, *location, rotation]
    return f"{name} 0 {occlusion} " + " ".join(map(repr, map(float, numbers))) + " 1\n"


def radar_rows(frame: int, scans: int) -> np.ndarray:
    """(N, 7) float32: x, y, z, RCS, v_r, v_r_compensated, time.

    Each object returns twice in each scan, the road at random.
    """
    T_camera_lidar, T_camera_radar = calibration(frame)
    T_radar_lidar = np.linalg.inv(T_camera_radar) @ T_camera_lidar
    rng = np.random.default_rng([frame, scans])
    rows = []
    for scan in range(scans):
        for _, x, y, z, length, _, height, yaw, _ in OBJECTS:
            for share in (-0.3, 0.3):
                point = [x + share * length * np.cos(yaw), y + share * length * np.sin(yaw), z + height / 2, 1]
                rows.append([*(T_radar_lidar @ point)[:3], rng.uniform(-10, 20), 0, rng.normal(0, 2), -scan])
        for x, y in rng.uniform([40, -20], [80, 20], (9, 2)):
            rows.append([x, y, rng.uniform(-1, 2), rng.uniform(-30, 0), 0, 0, -scan])
    table = np.array(rows)
    table[:, 4] = table[:, 5] - 7.0 * table[:, 0] / np.linalg.norm(table[:, :3], axis=1)  # ego at 7 m/s
    return table.astype("<f4")


def lidar_rows(frame: int) -> np.ndarray:
    """(N, 4) float32: x, y, z, reflectance 0..255. Eight returns within each object, the road around."""
    rng = np.random.default_rng([frame, 64])
    rows = [
        [x, y, z + height * share, 120]
        for _, x, y, z, _, _, height, *_ in OBJECTS
        for share in np.linspace(0.1, 0.9, 8)
    ]
    rows += [[x, y, -1.95, reflectance] for x, y, reflectance in rng.uniform([-40, -40, 0], [40, 40, 255], (300, 3))]
    return np.array(rows, "<f4")


def calibration_text(T_camera_sensor: np.ndarray) -> str:
    """Lines in the published order, on which the devkit relies."""
    rows = {
        **{f"P{i}": P2 for i in range(4)},
        "R0_rect": np.eye(3),
        "Tr_velo_to_cam": T_camera_sensor[:3],
        "Tr_imu_to_velo": np.eye(4)[:3],
    }
    return "".join(f"{key}: {' '.join(f'{value:.9g}' for value in matrix.ravel())}\n" for key, matrix in rows.items())


@cache
def image(frame: int) -> bytes:
    """An orange JPEG, darker to one side, that moves from frame to frame."""
    shade = np.roll(np.linspace(-19, 19, WIDTH), 8 * frame)[:, None]
    pixels = np.broadcast_to((20, 120, 220) + shade, (HEIGHT, WIDTH, 3)).astype(np.uint8)  # in OpenCV's order
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def write_vod(root: Path, scans: tuple[int, ...] = (1, 5)) -> Path:
    """The folder, with radar/ for one scan and radar_5frames/ for five."""
    for split, names in SPLITS.items():
        write(root / "lidar" / "ImageSets" / f"{split}.txt", "".join(f"{name}\n" for name in names))
    for frame, name in enumerate(NAMES):
        lidar = root / "lidar" / "training"
        T_camera_lidar, T_camera_radar = calibration(frame)
        write(lidar / "image_2" / f"{name}.jpg", image(frame))
        write(lidar / "velodyne" / f"{name}.bin", lidar_rows(frame).tobytes())
        write(lidar / "calib" / f"{name}.txt", calibration_text(T_camera_lidar))
        transforms = {key: pose(frame).ravel().tolist() for key in ("odomToCamera", "mapToCamera", "UTMToCamera")}
        write(lidar / "pose" / f"{name}.json", "\n".join(json.dumps({key: value}) for key, value in transforms.items()))
        if name not in SPLITS["test"]:
            write(lidar / "label_2" / f"{name}.txt", "".join(label_line(T_camera_lidar, item) for item in OBJECTS))
        for count in scans:
            radar = root / ("radar" if count == 1 else f"radar_{count}frames") / "training"
            write(radar / "calib" / f"{name}.txt", calibration_text(T_camera_radar))
            write(radar / "velodyne" / f"{name}.bin", radar_rows(frame, count).tobytes())
    return root


def devkit() -> ModuleType:
    """vod-tudelft with an empty module for k3d, which only its plots need."""
    if find_spec("k3d") is None:
        sys.modules["k3d"] = ModuleType("k3d")
    try:
        import vod
        import vod.visualization.helpers
    finally:
        sys.modules.pop("k3d", None)
    return vod
