"""Reader of View-of-Delft folders. Calibration is read from each frame's own files."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import CameraCalibration, RadarCalibration, SensorRig, orthonormalised
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
from imkd_edge.sources.plane import Plane
from imkd_edge.sources.times import nominal_ns
from imkd_edge.sources.vod.formats import read_calibration, read_objects, read_points, read_pose

CAMERA, RADAR = "camera_front", "radar_front"
RADAR_FOLDERS = {  # by scans: as shipped, as documented
    1: ("radar",),
    3: ("radar_3frames", "radar_3_scans"),
    5: ("radar_5frames", "radar_5_scans"),
}
VELOCITY_FIELDS = {"raw": 4, "compensated": 5}  # column of v_r, v_r_compensated; both positive when receding
FRAME_TIME_NS = 100_000_000  # nominal, the LiDAR leads at 10 Hz: the set publishes no times
SCENES = {  # recording delft_N -> its first frame
    1: 0, 2: 544, 3: 1312, 4: 1803, 6: 2200, 7: 2532, 8: 2798, 9: 3277, 10: 3575, 11: 3610, 12: 4049, 13: 4387,
    14: 4652, 16: 6334, 18: 6571, 19: 6759, 20: 7543, 21: 7900, 22: 8198, 23: 8481, 24: 8749, 25: 9096, 26: 9518,
    27: 9776,
}  # fmt: skip
PUBLISHED_SIZE = (1936, 1216)  # px of the images
# The road z = a x + b y + c in the LiDAR frame. The published poses (odomToCamera of 00549, 01047 and 01201) hold the
# camera 1.2994 m above the plane of the odometry and always equally tilted; with Tr_velo_to_cam the LiDAR then stands
# 1.650 m above that plane and level within 0.1 degrees. That the plane is the road is an assumption, under which the
# radar, behind the bumper, stands at 0.50 m.
GROUND: Plane = (0.0, 0.0, -1.65)
_SUBSETS = ("training", "testing")  # folders of frames


class VodSource(DataSetFolder):
    """Frames of a View-of-Delft folder; further arguments as of DataSetFolder.

    The folder has lidar/ and radar/, radar_3frames/ or radar_5frames/, each with training/{calib,velodyne}; lidar/ also
    training/{image_2,label_2,pose} and ImageSets/, of which velodyne, label_2 and pose are optional.

    Args:
        scans: 1, 3 or 5 accumulated radar scans, as the set ships them: one sweep, in the frame of the newest.
        velocity: "compensated" for ego motion, or "raw"; several scans have a common frame, which only the former fits.
    Raises:
        Error source_missing_file: no such scans; spec_bad_value: scans or velocity that the set does not have.
    """

    kind = "vod"
    intensity = "rcs_dbsm"
    traffic = "right"
    parts = "lidar/training/calib/ and radar*/"

    def __init__(
        self,
        path: str | Path,
        frames: Sequence[str] | None = None,
        scans: int = 5,
        velocity: str = "compensated",
        images: bool = True,
        lidar: bool = True,
        labels: bool = True,
    ):
        self.scans, self.velocity = scans, velocity
        super().__init__(path, frames, images, lidar, labels)

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether a folder looks like this set."""
        radars = [path / name for names in RADAR_FOLDERS.values() for name in names]
        return (path / "lidar" / "training" / "calib").is_dir() and any(radar.is_dir() for radar in radars)

    def _frame_names(self) -> dict[str, str]:
        """Frame -> the folder of frames that it is in."""
        scans, velocity = self.scans, self.velocity
        if scans not in RADAR_FOLDERS or velocity not in VELOCITY_FIELDS or (velocity == "raw" and scans > 1):
            what = f"no radar clouds of {scans} scans with {velocity} velocity"
            fix = "give scans 1, 3 or 5; velocity raw goes with scans=1 only"
            raise Error(Code.spec_bad_value, what, str(self.path), fix)
        folders = [self.path / name for name in RADAR_FOLDERS[scans]]
        self.radar_folder = next((folder for folder in folders if folder.is_dir()), folders[0])
        if not self.radar_folder.is_dir():
            fix = "copy it too, or open with scans=1, 3 or 5"
            raise Error(Code.source_missing_file, "no such folder", str(self.radar_folder), fix)
        self._subset = {name: subset for subset in reversed(_SUBSETS) for name in self._frames(subset)}
        return self._subset

    def _frames(self, subset: str) -> set[str]:
        images, clouds = self.path / "lidar" / subset / "image_2", self.radar_folder / subset / "velodyne"
        return {file.stem for file in (*images.glob("*.jpg"), *images.glob("*.png"), *clouds.glob("*.bin"))}

    @cached_property
    def splits(self) -> dict[str, list[str]]:
        """Frame names by split, from ImageSets/NAME.txt; empty where the folder has none."""
        folders = [folder / "ImageSets" for folder in (self.path / "lidar", self.radar_folder)]
        return read_splits(next((folder for folder in folders if folder.is_dir()), folders[0]))

    @property
    def label_folder(self) -> Path:
        """The folder of label files."""
        return self.path / "lidar" / "training" / "label_2"

    def __getitem__(self, name: str) -> Sample:
        self._check(name, self.names)
        image_path = self._image_path(name)
        if image_path is None:
            self._absences.add(CAMERA, name, self._image_folder(name) / f"{name}.jpg")
        image = read_bytes(image_path) if image_path else b""
        rig = self.calibration(name, image_size(image, image_path) if image_path else self._common_size)
        timestamp_ns = nominal_ns(name, self.names, FRAME_TIME_NS)
        T_lidar_camera = np.asarray(rig.cameras[0].T_ego_camera)
        T_world_ego = self.pose(name, T_lidar_camera)
        radar = self.sweep(name, timestamp_ns, T_world_ego)
        lidar = self.lidar_points(name)
        T_ego_radar = np.asarray(rig.radars[0].T_ego_radar)
        points = [transform(T_ego_radar, sweep.points[:, :3].astype(np.float64)) for sweep in radar]
        return Sample(
            name=name,
            timestamp_ns=timestamp_ns,
            rig=rig,
            frames={CAMERA: decode_image(image, image_path)} if self.images and image_path else {},
            radar=radar,
            ego=None if T_world_ego is None else Ego(T_world_ego=T_world_ego),
            truth=self.truth(name, T_lidar_camera, np.concatenate(points) if points else None, lidar),
            lidar=lidar,
            camera_timestamps_ns={CAMERA: timestamp_ns} if image_path else {},
            scene=_scene(name),
        )

    def image_files(self, name: str) -> dict[str, Path]:
        """The encoded image of each camera of a frame."""
        path = self._image_path(name)
        return {CAMERA: path} if path else {}

    def _image_folder(self, name: str) -> Path:
        return self.path / "lidar" / self._subset[name] / "image_2"

    def _image_path(self, name: str) -> Path | None:
        """The image of a frame; None where it has none."""
        files = [self._image_folder(name) / f"{name}{suffix}" for suffix in (".jpg", ".png")]
        return next((file for file in files if not is_absent(file)), None)

    @cached_property
    def _common_size(self) -> tuple[int, int]:
        """(width, height) px of the set's camera, for frames without an image."""
        files = [path for name in sorted(self._subset) if (path := self._image_path(name))]
        return common_image_size(files) or PUBLISHED_SIZE

    # ---- calibration and poses ----
    def rig(self, name: str) -> SensorRig:
        """The rig of one frame, without reading the rest of it."""
        path = self._image_path(name)
        return self.calibration(name, image_size(read_bytes(path), path) if path else self._common_size)

    def calibration(self, name: str, size: tuple[int, int]) -> SensorRig:
        """The rig of one frame, for an image of size (width, height) px; raises Error source_bad_calibration."""
        file = Path(self._subset[name]) / "calib" / f"{name}.txt"
        paths = [folder / file for folder in (self.path / "lidar", self.radar_folder)]
        P2, T_camera_lidar = read_calibration(paths[0], "P2", "Tr_velo_to_cam")
        [T_camera_radar] = read_calibration(paths[1], "Tr_velo_to_cam")
        where, (width, height) = paths[0], size
        try:
            if P2[:3, 3].any():
                raise ValueError("P2 has an offset: its camera is not the labels'")
            T_ego_camera, K = inverse(orthonormalised(T_camera_lidar, "Tr_velo_to_cam")), P2[:3, :3]
            camera = CameraCalibration(name=CAMERA, width=width, height=height, K=K, T_ego_camera=T_ego_camera)
            SensorRig(cameras=[camera], radars=[]).check()
            where = paths[1]
            T_camera_radar = orthonormalised(T_camera_radar, "Tr_velo_to_cam")
            radar = RadarCalibration(name=RADAR, T_ego_radar=T_ego_camera @ T_camera_radar, velocity=self.velocity)
            rig = SensorRig(cameras=[camera], radars=[radar], ground_plane=GROUND)
            rig.check()
        except (ValueError, Error) as fault:
            fix = "each file needs P2 and a rigid Tr_velo_to_cam"
            raise Error(Code.source_bad_calibration, reason(fault), str(where), fix) from None
        return rig

    def pose(self, name: str, T_lidar_camera: np.ndarray) -> np.ndarray | None:
        """(4, 4) T_odometry_ego of one frame; None where it has no pose. Each recording has its own odometry."""
        folder = self.path / "lidar" / self._subset[name] / "pose"
        if not folder.is_dir():
            return None
        path = folder / f"{name}.json"
        if self._lacks("pose", name, path):
            return None
        T_odometry_camera = read_pose(path)
        if T_odometry_camera is None:
            self._absences.add("pose", name, path, "the pose file is empty or lacks odomToCamera")
            return None
        return T_odometry_camera @ inverse(T_lidar_camera)

    # ---- points ----
    def sweep(self, name: str, timestamp_ns: int, T_world_ego: np.ndarray | None) -> list[RadarSweep]:
        """The radar cloud of one frame as one sweep, points of the newest scan first; [] without its file.

        The set ships the older scans moved by the ego motion into the radar frame of the newest: a sweep has one time,
        and that of the frame in which the points lie is the newest's. Points of moving objects stay where they were.
        """
        path = self.radar_folder / self._subset[name] / "velodyne" / f"{name}.bin"
        if self._lacks(RADAR, name, path):
            return []
        table = read_points(path, 7)  # x, y, z, RCS, v_r, v_r_compensated, time: 0 for the newest scan, then -1, -2 ...
        scans = table[:, 6]
        unknown = ~np.isin(scans, -np.arange(self.scans))
        if unknown.any():
            what = f"a point of scan {scans[unknown][0]:g} in a cloud of {self.scans} scans"
            raise Error(Code.source_bad_points, what, str(path), COPY_AGAIN)
        newest_first = np.argsort(-scans, kind="stable")
        points = table[newest_first][:, [0, 1, 2, 3, VELOCITY_FIELDS[self.velocity]]]
        return [RadarSweep(RADAR, points, timestamp_ns, T_world_ego)]

    def lidar_points(self, name: str) -> np.ndarray | None:
        """(N, 4) float32: x, y, z m in the ego frame, reflectance 0..255; None with lidar=False or without the file."""
        folder = self.path / "lidar" / self._subset[name] / "velodyne"
        if not self.lidar or not folder.is_dir():
            return None
        path = folder / f"{name}.bin"
        if self._lacks("LiDAR", name, path):
            return None
        points = read_points(path, 4)
        return points[np.isfinite(points).all(1)]

    # ---- labels ----
    def labelled(self, name: str) -> bool:
        """Whether a frame has labels, without reading them."""
        return self._subset[name] == "training" and not is_absent(self.label_folder / f"{name}.txt")

    def truth(
        self, name: str, T_lidar_camera: np.ndarray, radar: np.ndarray | None, lidar: np.ndarray | None
    ) -> Truth | None:
        """Labelled boxes of a frame; None with labels=False or without its label file.

        Args:
            radar, lidar: (N, 3+) m in the ego frame, whose points are counted in each box; None is unknown.
        """
        if not self.labels or not self.label_folder.is_dir():
            return None
        path = self.label_folder / f"{name}.txt"
        if not self.labelled(name):
            published = self._subset[name] == "training" and name not in self.splits.get("test", ())
            if published:
                self._absences.add("labels", name, path)
            return None
        return truth_of(read_objects(path, T_lidar_camera), radar, lidar)


def _scene(name: str) -> str:
    """The recording of a frame."""
    if not name.isdecimal():
        return "vod"
    return f"delft_{list(SCENES)[bisect(list(SCENES.values()), int(name)) - 1]}"
