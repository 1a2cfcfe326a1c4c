"""Single files of View-of-Delft: calibrations, poses, point clouds, label lines and result lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.rig import CameraCalibration, orthonormalised
from imkd_edge.sources.files import COPY_AGAIN, read_bytes, reason
from imkd_edge.sources.geometry import inverse, transform


def read_calibration(path: Path, *keys: str) -> list[np.ndarray]:
    """(4, 4) matrices of a calibration file, whose lines are KEY: twelve numbers; raises Error source_bad_calibration.

    R0_rect is ignored, as in the devkit: the set has but one camera."""
    lines = read_bytes(path).decode("utf-8", "replace").splitlines()
    entries = {key.strip(): rest for key, _, rest in (line.partition(":") for line in lines)}
    try:
        return [np.vstack([np.array(entries[key].split(), np.float64).reshape(3, 4), [0, 0, 0, 1]]) for key in keys]
    except (KeyError, ValueError) as fault:
        what = f"missing {fault}" if isinstance(fault, KeyError) else f"not twelve numbers ({fault})"
        raise Error(Code.source_bad_calibration, what, str(path), COPY_AGAIN) from None


def read_pose(path: Path) -> np.ndarray | None:
    """(4, 4) T_odometry_camera of a pose file, one JSON object a line; None where it holds no odomToCamera.

    Published files are empty or lack it (View-of-Delft, issue 4). Raises: Error source_bad_calibration for a file that
    is not JSON, or whose odomToCamera is not a rigid 4 x 4.
    """
    data = read_bytes(path)
    try:
        entries = [json.loads(line) for line in data.splitlines() if line.strip()]
        if not all(isinstance(entry, dict) for entry in entries):
            raise ValueError("a line is not a JSON object")
        poses = [entry["odomToCamera"] for entry in entries if "odomToCamera" in entry]
        if not poses:
            return None
        T = np.array(poses[0], np.float64).reshape(4, 4)
        return orthonormalised(T, "odomToCamera")
    except (TypeError, ValueError, OverflowError, RecursionError, Error) as fault:
        fix = f"{COPY_AGAIN}, or empty the file: a frame needs no pose"
        raise Error(Code.source_bad_calibration, f"not a pose ({reason(fault)})", str(path), fix) from None


def read_points(path: Path, columns: int) -> np.ndarray:
    """(N, columns) float32 rows of a point file without a header; raises Error source_bad_points."""
    data = read_bytes(path)
    if not data or len(data) % (4 * columns):
        what = f"{len(data)} bytes are no rows of {columns} float32"
        raise Error(Code.source_bad_points, what, str(path), COPY_AGAIN)
    return np.frombuffer(data, "<f4").reshape(-1, columns)


def read_objects(path: Path, T_lidar_camera: np.ndarray) -> list[tuple[np.ndarray, str, int]]:
    """Box (9,) in the LiDAR frame with velocity nan, label and occlusion of every object of a label file.

    DontCare is no object. Raises: Error source_bad_label with the number of the line.
    """
    objects = []
    for number, line in enumerate(read_bytes(path).decode("utf-8", "replace").splitlines(), 1):
        try:
            words = line.split()
            if words and words[0] != "DontCare":
                objects.append(_object(words, T_lidar_camera))
        except ValueError as fault:
            fix = "correct the object or leave it out of the file"
            raise Error(Code.source_bad_label, f"line {number}: {fault}", str(path), fix) from None
    return objects


def _object(words: list[str], T_lidar_camera: np.ndarray) -> tuple[np.ndarray, str, int]:
    if len(words) not in (15, 16):  # the 16th is a score, which the set writes too
        raise ValueError(f"{len(words)} words instead of 15 or 16")
    occlusion = int(words[2])
    height, width, length, x, y, z, rotation = numbers = [float(word) for word in words[8:15]]
    if not np.isfinite(numbers).all() or min(height, width, length) <= 0 or occlusion not in (0, 1, 2, 3):
        raise ValueError(f"an object with size, location and rotation {words[8:15]} and occlusion {occlusion}")
    center = transform(T_lidar_camera, np.array([[x, y, z]]))[0] + [0, 0, height / 2]  # the label is its bottom centre
    box = np.array([*center, length, width, height, _wrap(-rotation - np.pi / 2), np.nan, np.nan])
    return box, words[0].lower(), occlusion


def result_line(
    camera: CameraCalibration, label: str, box: np.ndarray, rectangle: Sequence[float], score: float
) -> str:
    """A detection as a line of a result file: the inverse of `read_objects`.

    Args:
        label: class name as the set writes it, such as "Car".
        box: (7+,) x, y, z centre, length, width, height m, yaw rad in the ego frame.
        rectangle: left, top, right, bottom px of the box in the image.
    """
    x, y, z, length, width, height, yaw = (float(value) for value in box[:7])
    location = transform(inverse(np.asarray(camera.T_ego_camera)), np.array([[x, y, z - height / 2]]))[0]
    rotation = _wrap(-yaw - np.pi / 2)
    alpha = _wrap(rotation - np.arctan2(location[0], location[2]))
    numbers = [alpha, *rectangle, height, width, length, *location, rotation, score]
    return f"{label} 0 0 " + " ".join(f"{value:.6f}" for value in numbers)


def _wrap(angle: float) -> float:
    """The angle in [-pi, pi)."""
    return float(np.remainder(angle + np.pi, 2 * np.pi) - np.pi)
