"""KITTI's object detection folders, and own data in this layout: one camera, a LiDAR, 3D boxes, no radar.

Layout and conventions (Geiger et al., CVPR 2012, devkit_object/readme.txt) end here: label lines give the bottom centre
in the rectified camera frame (x right, y down, z ahead) and rotation_y about its y axis. The ego frame is the LiDAR's
(x forward, y left, z up).
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.rig import CameraCalibration, SensorRig, orthonormalised
from imkd_edge.sources.absences import is_absent
from imkd_edge.sources.base import Sample, Truth
from imkd_edge.sources.data_set import DataSetFolder
from imkd_edge.sources.files import (
    COPY_AGAIN,
    common_image_size,
    decode_image,
    image_size,
    read_bytes,
    read_splits,
    reason,
)
from imkd_edge.sources.geometry import inverse, transform, truth_of
from imkd_edge.sources.times import nominal_ns

CAMERA = "image_2"
FRAME_TIME_NS = 100_000_000  # nominal: the LiDAR turns at 10 Hz, and the set publishes no times
PUBLISHED_SIZE = (1242, 375)  # px of most images
REFLECTANCE = 255.0  # of Sample.lidar for KITTI's 1.0
_UNKNOWN_OCCLUSION = 3


class KittiSource(DataSetFolder):
    """Frames of a KITTI folder; arguments as of DataSetFolder.

    The folder has image_2/, calib/ and optionally label_2/, velodyne/, or training/ that holds them; ImageSets/ beside
    or in it names splits.
    """

    kind = "kitti"
    traffic = "right"
    parts = f"{CAMERA}/ and calib/"

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether a folder looks like this set."""
        return any(_is_root(root) for root in _roots(path))

    def _frame_names(self) -> set[str]:
        self._root = next(root for root in _roots(self.path) if _is_root(root))
        return {file.stem for file in (self._root / "calib").glob("*.txt")}

    @cached_property
    def splits(self) -> dict[str, list[str]]:
        """Names of frames that are there by split, from ImageSets/NAME.txt."""
        folders = [self.path / "ImageSets", self._root / "ImageSets"]
        splits = read_splits(next((folder for folder in folders if folder.is_dir()), folders[0]))
        known = set(self.names)
        return {split: [name for name in names if name in known] for split, names in splits.items()}

    def image_files(self, name: str) -> dict[str, Path]:
        """The encoded image of each camera of a frame."""
        files = [self._root / CAMERA / f"{name}{suffix}" for suffix in (".png", ".jpg")]
        file = next((file for file in files if not is_absent(file)), None)
        return {CAMERA: file} if file else {}

    def labelled(self, name: str) -> bool:
        """Whether a frame has labels, without reading them."""
        return not is_absent(self._root / "label_2" / f"{name}.txt")

    def __getitem__(self, name: str) -> Sample:
        self._check(name, self.names)
        path = self.image_files(name).get(CAMERA)
        if path is None:
            self._absences.add(CAMERA, name, self._root / CAMERA / f"{name}.png")
        image = read_bytes(path) if path else b""
        rig, T_ego_rectified = self.calibration(name, image_size(image, path) if path else self._common_size)
        timestamp_ns = nominal_ns(name, self.names, FRAME_TIME_NS)
        lidar = self.lidar_points(name)
        return Sample(
            name=name,
            timestamp_ns=timestamp_ns,
            rig=rig,
            frames={CAMERA: decode_image(image, path)} if self.images and path else {},
            radar=[],
            truth=self.truth(name, T_ego_rectified, lidar),
            lidar=lidar,
            camera_timestamps_ns={CAMERA: timestamp_ns} if path else {},
            scene="kitti",
        )

    @cached_property
    def _common_size(self) -> tuple[int, int]:
        files = [path for name in self.names for path in self.image_files(name).values()]
        return common_image_size(files) or PUBLISHED_SIZE

    def calibration(self, name: str, size: tuple[int, int]) -> tuple[SensorRig, np.ndarray]:
        """The rig of one frame for an image of size (width, height) px, and (4, 4) T_ego_rectified of its labels.

        P2 = K [I | t]: camera 2 stands at -t in the rectified frame. Raises: Error source_bad_calibration.
        """
        path = self._root / "calib" / f"{name}.txt"
        lines = read_bytes(path).decode("utf-8", "replace").splitlines()
        entries = {key.strip(): rest.split() for key, _, rest in (line.partition(":") for line in lines)}
        try:
            P2 = np.array(entries["P2"], np.float64).reshape(3, 4)
            T_rectified_ego = _transform(entries["Tr_velo_to_cam"], 4, "Tr_velo_to_cam")
            if "R0_rect" in entries:
                T_rectified_ego = _transform(entries["R0_rect"], 3, "R0_rect") @ T_rectified_ego
            T_camera_rectified = np.eye(4)
            T_camera_rectified[:3, 3] = np.linalg.solve(P2[:, :3], P2[:, 3])
            T_ego_camera = inverse(T_camera_rectified @ T_rectified_ego)
            width, height = size
            camera = CameraCalibration(name=CAMERA, width=width, height=height, K=P2[:, :3], T_ego_camera=T_ego_camera)
            rig = SensorRig(cameras=[camera], radars=[])
            rig.check()
        except (KeyError, ValueError, np.linalg.LinAlgError, Error) as fault:
            fix = f"a file needs P2 and a rigid Tr_velo_to_cam: {COPY_AGAIN}"
            raise Error(Code.source_bad_calibration, reason(fault), str(path), fix) from None
        return rig, inverse(T_rectified_ego)

    def lidar_points(self, name: str) -> np.ndarray | None:
        """(N, 4) float32: x, y, z m in the ego frame, reflectance 0..255; None with lidar=False or without the file."""
        folder = self._root / "velodyne"
        if not self.lidar or not folder.is_dir():
            return None
        path = folder / f"{name}.bin"
        if self._lacks("LiDAR", name, path):
            return None
        data = read_bytes(path)
        if not data or len(data) % 16:
            raise Error(Code.source_bad_points, f"{len(data)} bytes are no rows of four float32", str(path), COPY_AGAIN)
        points = np.frombuffer(data, "<f4").reshape(-1, 4) * np.array([1, 1, 1, REFLECTANCE], np.float32)
        return points[np.isfinite(points).all(1)]

    def truth(self, name: str, T_ego_rectified: np.ndarray, lidar: np.ndarray | None) -> Truth | None:
        """Labelled boxes of a frame; None with labels=False or without its label file."""
        folder = self._root / "label_2"
        if not self.labels or not folder.is_dir():
            return None
        path, objects = folder / f"{name}.txt", []
        if self._lacks("labels", name, path):
            return None
        for number, line in enumerate(read_bytes(path).decode("utf-8", "replace").splitlines(), 1):
            try:
                words = line.split()
                if words and words[0] != "DontCare":
                    objects.append(_object(words, T_ego_rectified))
            except (ValueError, OverflowError) as fault:
                fix = "correct the object or leave it out of the file"
                raise Error(Code.source_bad_label, str(fault), f"{path}:{number}", fix) from None
        return truth_of(objects, None, lidar)


def _roots(path: Path) -> tuple[Path, Path]:
    return path, path / "training"


def _is_root(path: Path) -> bool:
    return (path / CAMERA).is_dir() and (path / "calib").is_dir()


def _transform(words: list[str], columns: int, name: str) -> np.ndarray:
    """(4, 4) of the words of a 3 x columns matrix."""
    T = np.eye(4)
    T[:3, :columns] = np.array(words, np.float64).reshape(3, columns)
    return orthonormalised(T, name)


def _object(words: list[str], T_ego_rectified: np.ndarray) -> tuple[np.ndarray, str, int]:
    if len(words) not in (15, 16):  # the 16th is a score
        raise ValueError(f"{len(words)} words instead of 15 or 16")
    occlusion = int(float(words[2]))
    height, width, length, x, y, z, rotation = numbers = [float(word) for word in words[8:15]]
    if not np.isfinite(numbers).all() or min(height, width, length) <= 0 or occlusion not in (-1, 0, 1, 2, 3):
        raise ValueError(f"an object with size, location and rotation {words[8:15]} and occlusion {occlusion}")
    center = transform(T_ego_rectified, np.array([[x, y - height / 2, z]]))[0]
    heading = T_ego_rectified[:3, :3] @ [np.cos(rotation), 0, -np.sin(rotation)]
    yaw = np.arctan2(heading[1], heading[0])
    box = np.array([*center, length, width, height, yaw, np.nan, np.nan])
    return box, words[0].lower(), -1 if occlusion == _UNKNOWN_OCCLUSION else occlusion
