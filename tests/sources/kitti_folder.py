"""A small KITTI folder written by hand after the set's readme: three frames of a camera that stands beside camera 0."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

NAMES = ["000000", "000001", "000002"]
# x right, y down, z ahead from x forward, y left, z up; camera 0 stands 0.27 m ahead of the LiDAR and 0.08 m below it
TR = "0 -1 0 0 0 0 -1 -0.08 1 0 0 -0.27"
P2 = "700 0 320 42 0 700 180 0 0 0 1 0"  # camera 2 stands 0.06 m left of camera 0
CALIBRATION = f"P0: {P2}\nP2: {P2}\nR0_rect: 1 0 0 0 1 0 0 0 1\nTr_velo_to_cam: {TR}\n"
# A car 20 m ahead of camera 0 and 3 m to its right, on the ground 1.6 m below, that faces along the camera's x axis.
CAR = "Car 0.00 1 0.15 300 150 400 250 1.5 1.8 4.2 3.0 1.6 20.0 0.0"
PEDESTRIAN = "Pedestrian 0.00 3 0.15 300 150 400 250 1.75 0.5 0.75 -2.0 1.6 8.0 -1.5707963267948966"
IGNORED = "DontCare -1 -1 -10 500 150 550 180 -1 -1 -1 -1000 -1000 -1000 -10"


def write_kitti(root: Path, inner: str = "training") -> Path:
    """The folder; frame 000002 has no label file."""
    folder = root / inner
    for name in ("image_2", "calib", "label_2", "velodyne"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(3)
    for name in NAMES:
        cv2.imwrite(str(folder / "image_2" / f"{name}.png"), rng.integers(0, 255, (360, 640, 3), np.uint8))
        (folder / "calib" / f"{name}.txt").write_text(CALIBRATION)
        points = np.array([[20.27, -3.0, -0.9, 0.5], [5, 5, 5, 1.0]], "<f4")
        (folder / "velodyne" / f"{name}.bin").write_bytes(points.tobytes())
    for name in NAMES[:2]:
        (folder / "label_2" / f"{name}.txt").write_text(f"{CAR}\n{PEDESTRIAN}\n{IGNORED}\n")
    (root / "ImageSets").mkdir()
    (root / "ImageSets" / "train.txt").write_text("000000\n000001\n")
    return root
