"""Astyx HiRes2019: one camera, one 4D radar, one VLP-16 LiDAR, 3D boxes (Meyer & Kuschk, EuRAD 2019).

Its conventions end here. Point tables are plain text (as published) or gzipped; further columns are ignored. The ego
frame is the set's reference frame, which is the radar frame (x forward, y left, z up). Calibration is read from each
frame's own file, the ground plane with it: the LiDAR stands nearly level on the car, so the road is one plane of the
LiDAR's frame, whatever the mounting of the radar.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.frames import RadarSweep
from imkd_edge.rig import CameraCalibration, RadarCalibration, SensorRig, orthonormalised
from imkd_edge.sources.absences import is_absent
from imkd_edge.sources.base import Sample, Truth
from imkd_edge.sources.data_set import DataSetFolder
from imkd_edge.sources.files import (
    common_image_size,
    decode_image,
    image_size,
    read_bytes,
    read_json,
    read_splits,
    read_table,
    reason,
)
from imkd_edge.sources.geometry import inverse, rotation_of, transform, truth_of, yaw_of
from imkd_edge.sources.plane import Plane, fit_plane, transform_plane
from imkd_edge.sources.times import nominal_ns

CAMERA, RADAR, LIDAR = "camera_front", "radar_6455", "lidar_vlp16"
LABELS = "groundtruth_obj3d"
VELOCITY_PERIOD = 10.39  # m/s: the radar's velocities wrap around to [-5.12, 5.20]
FRAME_TIME_NS = 100_000_000  # nominal: the set publishes no times
PUBLISHED_SIZE = (2048, 618)  # px of the images
# The road z = a x + b y + c in the LiDAR frame and, for frames without its calibration, in the radar frame: constants
# of the set, on which the shipped models were trained: least squares through the bottom centres of labelled cars of
# splits/train.txt, which lie within 0.33 m RMS of it. `fit_ground`, which is robust, gives (0.0512, -0.0783, -1.6012)
# in the radar frame, at those cars 0.07 m RMS from it.
GROUND_OF_LIDAR: Plane = (0.014515, -0.010397, -1.718151)
GROUND_OF_RADAR: Plane = (0.0495, -0.0756, -1.602)
_SUFFIXES = (".txt", ".txt.gz")


class AstyxSource(DataSetFolder):
    """Frames of an Astyx HiRes2019 folder; arguments as of DataSetFolder.

    The folder has camera_front/, radar_6455/, calibration/, and optionally groundtruth_obj3d/, lidar_vlp16/, splits/.
    """

    kind = "astyx"
    intensity = "magnitude_db"
    traffic = "right"
    parts = f"{RADAR}/ and {CAMERA}/"

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether a folder looks like this set."""
        return (path / RADAR).is_dir() and (path / CAMERA).is_dir()

    def _frame_names(self) -> set[str]:
        names = {file.name.split(".")[0] for file in (self.path / RADAR).iterdir() if file.name.endswith(_SUFFIXES)}
        return names | {file.stem for file in (self.path / CAMERA).glob("*.jpg")}

    @cached_property
    def splits(self) -> dict[str, list[str]]:
        """Frame names by split, from splits/NAME.txt; empty where the folder has none."""
        return read_splits(self.path / "splits")

    def __getitem__(self, name: str) -> Sample:
        self._check(name, self.names)
        image_path = self.path / CAMERA / f"{name}.jpg"
        image = None if self._lacks(CAMERA, name, image_path) else read_bytes(image_path)
        size = self._common_size if image is None else image_size(image, image_path)
        rig, T_ego_lidar = self.calibration(name, size)
        timestamp_ns = nominal_ns(name, self.names, FRAME_TIME_NS)
        radar = None if self._lacks(RADAR, name, self._points_path(RADAR, name)) else self.radar_points(name)
        lidar = self.lidar_points(name, T_ego_lidar) if (self.path / LIDAR).is_dir() else None
        T_ego_radar = np.asarray(rig.radars[0].T_ego_radar)
        points = None if radar is None else transform(T_ego_radar, radar[:, :3].astype(np.float64))
        return Sample(
            name=name,
            timestamp_ns=timestamp_ns,
            rig=rig,
            frames={CAMERA: decode_image(image, image_path)} if self.images and image is not None else {},
            radar=[] if radar is None else [RadarSweep(RADAR, radar, timestamp_ns)],
            truth=self.truth(name, points, lidar),
            lidar=lidar,
            camera_timestamps_ns={} if image is None else {CAMERA: timestamp_ns},
            scene="astyx",
        )

    def image_files(self, name: str) -> dict[str, Path]:
        """The encoded image of each camera of a frame."""
        path = self.path / CAMERA / f"{name}.jpg"
        return {} if is_absent(path) else {CAMERA: path}

    @cached_property
    def _common_size(self) -> tuple[int, int]:
        """(width, height) px of the set's camera, for frames without an image."""
        return common_image_size(sorted((self.path / CAMERA).glob("*.jpg"))) or PUBLISHED_SIZE

    def _points_path(self, sensor: str, name: str) -> Path:
        paths = [self.path / sensor / (name + suffix) for suffix in _SUFFIXES]
        return next((path for path in paths if path.exists()), paths[0])

    def radar_points(self, name: str) -> np.ndarray:
        """(N, 5) float32: x, y, z m in the radar frame, magnitude dB, aliased radial velocity m/s (receding +)."""
        table = read_table(self._points_path(RADAR, name), ("X", "Y", "Z", "Mag", "V_r"))
        table[:, 4] = -table[:, 4]  # as published, positive when approaching
        return table.astype(np.float32)

    def lidar_points(self, name: str, T_ego_lidar: np.ndarray | None) -> np.ndarray | None:
        """(N, 4) float32: x, y, z m in the ego frame, reflectivity 0..255.

        None with lidar=False, uncalibrated or without the file.
        """
        if not self.lidar or T_ego_lidar is None:
            return None
        path = self._points_path(LIDAR, name)
        if self._lacks(LIDAR, name, path):
            return None
        table = read_table(path, ("X", "Y", "Z", "Reflectivity"))
        table[:, :3] = transform(T_ego_lidar, table[:, :3])
        return table[np.isfinite(table).all(1)].astype(np.float32)

    def calibration(self, name: str, size: tuple[int, int]) -> tuple[SensorRig, np.ndarray | None]:
        """The rig of one frame, for an image of size (width, height) px, and (4, 4) T_ego_lidar or None.

        The rig's ground plane is GROUND_OF_LIDAR seen from the ego frame; GROUND_OF_RADAR where the file does not
        calibrate the LiDAR.

        Raises: Error source_bad_calibration.
        """
        path = self.path / "calibration" / f"{name}.json"
        content = read_json(path, Code.source_bad_calibration)
        try:
            data = {sensor["sensor_uid"]: sensor["calib_data"] for sensor in content["sensors"]}
            K = _matrix(data[CAMERA]["K"], 3)
            camera, radar = (_matrix(data[uid]["T_to_ref_COS"], 4) for uid in (CAMERA, RADAR))
            T_ego_lidar = orthonormalised(_matrix(data[LIDAR]["T_to_ref_COS"], 4), LIDAR) if LIDAR in data else None
            rig = SensorRig(
                cameras=[CameraCalibration(name=CAMERA, width=size[0], height=size[1], K=K, T_ego_camera=camera)],
                radars=[RadarCalibration(name=RADAR, T_ego_radar=radar, velocity="aliased", period=VELOCITY_PERIOD)],
                ground_plane=_ground_plane(radar, T_ego_lidar),
            )
            rig.check()
        except (KeyError, TypeError, ValueError, OverflowError, Error) as fault:
            fix = "each frame needs K of the camera and a rigid T_to_ref_COS of every sensor"
            raise Error(Code.source_bad_calibration, reason(fault), str(path), fix) from None
        return rig, T_ego_lidar

    def labelled(self, name: str) -> bool:
        """Whether a frame has labels, without reading them."""
        return not is_absent(self.path / LABELS / f"{name}.json")

    def truth(self, name: str, radar: np.ndarray | None, lidar: np.ndarray | None) -> Truth | None:
        """Labelled boxes of a frame; None with labels=False or without its label file.

        Args:
            radar, lidar: (N, 3+) m in the ego frame, whose points are counted in each box; None is unknown.
        """
        if not self.labels or not (self.path / LABELS).is_dir():
            return None
        path = self.path / LABELS / f"{name}.json"
        if self._lacks("labels", name, path):
            return None
        content = read_json(path, Code.source_bad_label)
        try:
            objects = [_box(item) for item in content["objects"]]
        except (KeyError, TypeError, ValueError, OverflowError) as fault:
            fix = "correct the object or leave it out of the file"
            raise Error(Code.source_bad_label, reason(fault), str(path), fix) from None
        return truth_of(objects, radar, lidar)


def fit_ground(source: AstyxSource, names: Sequence[str]) -> tuple[Plane, Plane]:
    """The road in the LiDAR frame and in the radar frame: Huber's fit of the bottom centres of all labelled cars.

    Args:
        source: with labels.
        names: its frames, of which those without labels or calibrated LiDAR are left out; splits/train.txt for the
            constants above.
    """
    lidar, radar = [], []
    for name in names:
        rig, T_ego_lidar = source.calibration(name, PUBLISHED_SIZE)
        truth = source.truth(name, None, None)
        if truth is None or T_ego_lidar is None:
            continue
        cars = truth.boxes[[label == "car" for label in truth.labels]]
        bottoms = cars[:, :3] - np.array([0, 0, 0.5]) * cars[:, 5:6]
        lidar.append(transform(inverse(T_ego_lidar), bottoms))
        radar.append(transform(inverse(np.asarray(rig.radars[0].T_ego_radar)), bottoms))
    return fit_plane(np.concatenate(lidar)), fit_plane(np.concatenate(radar))


def _ground_plane(T_ego_radar: np.ndarray, T_ego_lidar: np.ndarray | None) -> Plane:
    if T_ego_lidar is None:
        return transform_plane(T_ego_radar, GROUND_OF_RADAR)
    return transform_plane(T_ego_lidar, GROUND_OF_LIDAR)


def _matrix(values: Any, rows: int) -> np.ndarray:
    matrix = np.array(values, np.float64)
    if matrix.shape != (rows, rows) or not np.isfinite(matrix).all():
        raise ValueError(f"not a {rows} x {rows} matrix of numbers: {values}")
    return matrix


def _box(item: dict[str, Any]) -> tuple[np.ndarray, str, int]:
    """Box (9,) with velocity nan, label and occlusion of one labelled object."""
    center, size = (np.array(item[key], np.float64) for key in ("center3d", "dimension3d"))
    if center.shape != (3,) or size.shape != (3,) or not np.isfinite([center, size]).all() or (size <= 0).any():
        raise ValueError(f"an object with center3d {item['center3d']} and dimension3d {item['dimension3d']}")
    label, occlusion = item["classname"], item["occlusion"]
    if not isinstance(label, str) or not label or occlusion not in (0, 1, 2, 3):
        raise ValueError(f"an object with classname {label!r} and occlusion {occlusion!r}")
    yaw = yaw_of(rotation_of(item["orientation_quat"]))
    return np.array([*center, *size, yaw, np.nan, np.nan]), label.lower(), int(occlusion)
