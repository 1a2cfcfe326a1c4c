"""View-of-Delft: one camera, one 3+1D radar, a 64-beam LiDAR, 3D boxes (Palffy et al., RA-L 2022).

The only file that knows its conventions (github.com/tudelft-iv/view-of-delft-dataset, docs/): folders as KITTI's, one per
sensor, whose Tr_velo_to_cam belongs to that sensor. Labels give the bottom centre in the camera frame, but rotation_y turns
about the LiDAR's -z axis, and the camera is tilted against the LiDAR by some degrees. So the ego frame = the LiDAR frame
(x forward, y left, z up): there, and only there, the boxes stand upright. Calibration is taken from each frame's own files.
"""

from __future__ import annotations

import json
from bisect import bisect
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import CameraCalibration, RadarCalibration, SensorRig
from imkd_edge.sources.base import Sample, Truth
from imkd_edge.sources.files import decode_image, image_size, read_bytes
from imkd_edge.sources.geometry import inverse, transform, truth_of

CAMERA, RADAR = "camera_front", "radar_front"
RADAR_FOLDERS = {
    1: ("radar",),
    3: ("radar_3frames", "radar_3_scans"),
    5: ("radar_5frames", "radar_5_scans"),
}  # as shipped, as documented
VELOCITY_FIELDS = {"raw": 4, "compensated": 5}  # column of v_r, v_r_compensated; both positive when receding
FRAME_TIME_NS = 100_000_000  # nominal, the LiDAR leads at 10 Hz: the set publishes no times
SCAN_TIME_NS = 76_923_077  # nominal, the radar measures at 13 Hz
SCENES = {
    1: 0, 2: 544, 3: 1312, 4: 1803, 6: 2200, 7: 2532, 8: 2798, 9: 3277, 10: 3575, 11: 3610, 12: 4049, 13: 4387, 14: 4652, 16: 6334,
    18: 6571, 19: 6759, 20: 7543, 21: 7900, 22: 8198, 23: 8481, 24: 8749, 25: 9096, 26: 9518, 27: 9776,
}  # fmt: skip  # recording delft_N -> its first frame
_PARTS = ("training", "testing")
_AGAIN = "copy the file again from the data set"


class VodSource:
    """Frames of a View-of-Delft folder.

    Args:
        path: folder with lidar/ and radar/, radar_3frames/ or radar_5frames/, each with training/{calib,velodyne}; lidar/
            also with training/{image_2,label_2,pose} and ImageSets/. lidar/training/{velodyne,label_2,pose} may be left out.
        frames: names to keep, in this order; all by default.
        scans: 1, 3 or 5 radar scans accumulated, as the set ships them: older ones are already in the frame of the newest.
        velocity: "compensated" for ego motion, or "raw"; with several scans only the former fits their common frame.
        images, lidar: False leaves these out of the samples (not decoded, faster).
    Raises:
        Error source_unknown: not such a folder; source_missing_file: no such scans; source_unknown_frame: a name that is not
            in it; spec_bad_value: scans or velocity that the set does not have.
    """

    kind = "vod"

    def __init__(
        self,
        path: str | Path,
        frames: Sequence[str] | None = None,
        scans: int = 5,
        velocity: str = "compensated",
        images: bool = True,
        lidar: bool = True,
    ):
        self.path, self.scans, self.velocity, self.images, self.lidar = Path(path), scans, velocity, images, lidar
        if not is_vod(self.path):
            raise Error(
                Code.source_unknown,
                "no lidar/training/calib/ and radar*/ in the folder",
                str(path),
                "give the folder that holds them",
            )
        if scans not in RADAR_FOLDERS or velocity not in VELOCITY_FIELDS or (velocity == "raw" and scans > 1):
            what = f"no radar clouds of {scans} scans with {velocity} velocity"
            raise Error(
                Code.spec_bad_value, what, str(path), "give scans 1, 3 or 5; velocity raw goes with scans=1 only"
            )
        folders = [self.path / name for name in RADAR_FOLDERS[scans]]
        self.radar_folder = next((folder for folder in folders if folder.is_dir()), folders[0])
        if not self.radar_folder.is_dir():
            raise Error(
                Code.source_missing_file,
                "no such folder",
                str(self.radar_folder),
                "copy it too, or open with scans=1, 3 or 5",
            )
        self._part = {name: part for part in reversed(_PARTS) for name in self._found(part)}
        self.names = sorted(self._part) if frames is None else list(frames)
        for name in self.names:
            if name not in self._part:
                raise self._unknown(name)

    def _found(self, part: str) -> set[str]:
        images, clouds = self.path / "lidar" / part / "image_2", self.radar_folder / part / "velodyne"
        return {file.stem for file in (*images.glob("*.jpg"), *images.glob("*.png"), *clouds.glob("*.bin"))}

    def _unknown(self, name: str) -> Error:
        known = f"it has {len(self._part)}: {min(self._part)} to {max(self._part)}" if self._part else "it has none"
        return Error(Code.source_unknown_frame, f"no frame {name!r}", str(self.path), known)

    @cached_property
    def splits(self) -> dict[str, list[str]]:
        """Frame names by split, from ImageSets/NAME.txt; empty where the folder has none."""
        folders = [folder / "ImageSets" for folder in (self.path / "lidar", self.radar_folder)]
        folder = next((folder for folder in folders if folder.is_dir()), folders[0])
        return {file.stem: read_bytes(file).decode("utf-8", "replace").split() for file in sorted(folder.glob("*.txt"))}

    @property
    def labels(self) -> Path:
        """The folder of label files."""
        return self.path / "lidar" / "training" / "label_2"

    def subset(self, names: Sequence[str]) -> VodSource:
        """The same folder with these frames only, in this order; raises Error source_unknown_frame."""
        return VodSource(self.path, names, self.scans, self.velocity, self.images, self.lidar)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Sample]:
        return (self[name] for name in self.names)

    def __getitem__(self, name: str) -> Sample:
        if name not in self.names:
            raise self._unknown(name)
        image, image_path = self._image(name)
        rig = self.calibration(name, image_size(image, image_path))
        timestamp_ns = (int(name) if name.isdecimal() else self.names.index(name)) * FRAME_TIME_NS
        T_lidar_camera = np.asarray(rig.cameras[0].T_ego_camera)
        T_world_ego = self.pose(name, T_lidar_camera)
        radar = self.sweeps(name, timestamp_ns, T_world_ego)
        lidar = self.lidar_points(name)
        points = np.concatenate([np.zeros((0, 3)), *(sweep.points[:, :3].astype(np.float64) for sweep in radar)])
        return Sample(
            name=name,
            timestamp_ns=timestamp_ns,
            rig=rig,
            frames={CAMERA: decode_image(image, image_path)} if self.images else {},
            radar=radar,
            ego=None if T_world_ego is None else Ego(T_world_ego=T_world_ego),
            truth=self.truth(name, T_lidar_camera, transform(np.asarray(rig.radars[0].T_ego_radar), points), lidar),
            lidar=lidar,
            camera_timestamps_ns={CAMERA: timestamp_ns},
            scene=_scene(name),
        )

    def _image(self, name: str) -> tuple[bytes, Path]:
        folder = self.path / "lidar" / self._part[name] / "image_2"
        files = [folder / f"{name}{suffix}" for suffix in (".jpg", ".png")]
        path = next((file for file in files if file.exists()), files[0])
        return read_bytes(path), path

    def rig(self, name: str) -> SensorRig:
        """The rig of one frame, without reading the rest of it."""
        return self.calibration(name, image_size(*self._image(name)))

    def calibration(self, name: str, size: tuple[int, int]) -> SensorRig:
        """The rig of one frame, for an image of size (width, height) px."""
        paths = [
            folder / self._part[name] / "calib" / f"{name}.txt" for folder in (self.path / "lidar", self.radar_folder)
        ]
        P2, T_camera_lidar = _calibration(paths[0], "P2", "Tr_velo_to_cam")
        [T_camera_radar] = _calibration(paths[1], "Tr_velo_to_cam")
        where = paths[0]
        try:
            if P2[:3, 3].any():
                raise ValueError("P2 has an offset: its camera is not the labels'")
            T_ego_camera = inverse(T_camera_lidar)
            camera = CameraCalibration(
                name=CAMERA, width=size[0], height=size[1], K=P2[:3, :3], T_ego_camera=T_ego_camera
            )
            SensorRig(cameras=[camera], radars=[]).check()
            where = paths[1]
            radar = RadarCalibration(name=RADAR, T_ego_radar=T_ego_camera @ T_camera_radar, velocity=self.velocity)
            rig = SensorRig(cameras=[camera], radars=[radar])
            rig.check()
        except (ValueError, Error) as fault:
            what = getattr(fault, "what", str(fault))
            raise Error(
                Code.source_bad_calibration, what, str(where), "each file needs P2 and a rigid Tr_velo_to_cam"
            ) from None
        return rig

    def pose(self, name: str, T_lidar_camera: np.ndarray) -> np.ndarray | None:
        """(4, 4) T_odometry_ego of one frame; None where the set has no poses. Odometry starts anew with each recording."""
        folder = self.path / "lidar" / self._part[name] / "pose"
        if not folder.is_dir():
            return None
        path = folder / f"{name}.json"
        data = read_bytes(path)
        try:
            entries = [json.loads(line) for line in data.splitlines() if line.strip()]  # one object per line
            found = [entry["odomToCamera"] for entry in entries if "odomToCamera" in entry]
            T = np.array(found[0], np.float64).reshape(4, 4)
            if not _is_rigid(T):
                raise ValueError("odomToCamera is not rigid")
        except (IndexError, TypeError, ValueError, RecursionError) as fault:
            what = "missing odomToCamera" if isinstance(fault, IndexError) else f"not a pose ({fault})"
            raise Error(Code.source_bad_calibration, what, str(path), _AGAIN) from None
        return T @ inverse(T_lidar_camera)  # published as the pose of the camera

    # ---- points ----
    def sweeps(self, name: str, timestamp_ns: int, T_world_ego: np.ndarray | None) -> list[RadarSweep]:
        """The scans of one radar cloud, newest first; all points lie in the radar frame of the newest.

        So the older ones have no pose: with the newest one's, the vehicle would seem to have stood still since.
        """
        path = self.radar_folder / self._part[name] / "velodyne" / f"{name}.bin"
        table = _points(path, 7)  # x, y, z, RCS, v_r, v_r_compensated, time: 0 for the newest scan, then -1, -2, ...
        scans = table[:, 6]
        strange = ~np.isin(scans, -np.arange(self.scans))
        if strange.any():
            what = f"a point of scan {scans[strange][0]:g} in a cloud of {self.scans} scans"
            raise Error(Code.source_bad_points, what, str(path), _AGAIN)
        points = table[:, [0, 1, 2, 3, VELOCITY_FIELDS[self.velocity]]]
        return [
            RadarSweep(
                RADAR, points[scans == scan], timestamp_ns + int(scan) * SCAN_TIME_NS, None if scan else T_world_ego
            )
            for scan in sorted(set(scans.tolist()), reverse=True)
        ]

    def lidar_points(self, name: str) -> np.ndarray | None:
        """(N, 4) float32: x, y, z m in the ego frame, reflectance 0..255; None where left out or not in the folder."""
        folder = self.path / "lidar" / self._part[name] / "velodyne"
        if not self.lidar or not folder.is_dir():
            return None
        points = _points(folder / f"{name}.bin", 4)
        return points[np.isfinite(points).all(1)]

    # ---- labels ----
    def truth(self, name: str, T_lidar_camera: np.ndarray, radar: np.ndarray, lidar: np.ndarray | None) -> Truth | None:
        """Labelled boxes of a frame; None for a frame of the test split, whose labels are not published, or without label_2/.

        Args:
            radar, lidar: (N, 3+) m in the ego frame, to count how many lie in each box.
        """
        path = self.labels / f"{name}.txt"
        if (
            not self.labels.is_dir()
            or self._part[name] == "testing"
            or (name in self.splits.get("test", ()) and not path.exists())
        ):
            return None
        objects = []
        for number, line in enumerate(read_bytes(path).decode("utf-8", "replace").splitlines(), 1):
            try:
                words = line.split()
                if words and words[0] != "DontCare":
                    objects.append(_object(words, T_lidar_camera))
            except ValueError as fault:
                fix = "correct the object or leave it out of the file"
                raise Error(Code.source_bad_label, f"line {number}: {fault}", str(path), fix) from None
        return truth_of(objects, radar, lidar)


def is_vod(path: Path) -> bool:
    """Whether a folder looks like this set."""
    return (path / "lidar" / "training" / "calib").is_dir() and any(
        (path / n).is_dir() for names in RADAR_FOLDERS.values() for n in names
    )


def result_line(
    camera: CameraCalibration, label: str, box: np.ndarray, rectangle: Sequence[float], score: float
) -> str:
    """A detection as a line of a result file, the inverse of how labels are read.

    Args:
        label: class name as the set writes it, such as "Car".
        box: (7+,) x, y, z centre, length, width, height m, yaw rad in the ego frame.
        rectangle: left, top, right, bottom px of the box in the image.
    """
    x, y, z, length, width, height, yaw = (float(value) for value in box[:7])
    location = transform(inverse(np.asarray(camera.T_ego_camera)), np.array([[x, y, z - height / 2]]))[0]
    rotation = _wrapped(-yaw - np.pi / 2)
    alpha = _wrapped(rotation - np.arctan2(location[0], location[2]))
    numbers = [alpha, *rectangle, height, width, length, *location, rotation, score]
    return f"{label} 0 0 " + " ".join(f"{value:.6f}" for value in numbers)


def _wrapped(angle: float) -> float:
    return float(np.remainder(angle + np.pi, 2 * np.pi) - np.pi)


def _scene(name: str) -> str:
    """The recording that a frame belongs to."""
    if not name.isdecimal():
        return "vod"
    return f"delft_{list(SCENES)[bisect(list(SCENES.values()), int(name)) - 1]}"


def _is_rigid(T: np.ndarray) -> bool:
    R = T[:3, :3]
    return bool(
        np.isfinite(T).all()
        and np.allclose(R @ R.T, np.eye(3), atol=1e-3)
        and np.linalg.det(R) > 0
        and [*T[3]] == [0, 0, 0, 1]
    )


def _calibration(path: Path, *keys: str) -> list[np.ndarray]:
    """(4, 4) matrices of a calibration file, whose lines are KEY: twelve numbers; raises Error source_bad_calibration.

    R0_rect is not looked at, as in the devkit: the set has but one camera."""
    lines = read_bytes(path).decode("utf-8", "replace").splitlines()
    entries = {key.strip(): rest for key, _, rest in (line.partition(":") for line in lines)}
    try:
        return [np.vstack([np.array(entries[key].split(), np.float64).reshape(3, 4), [0, 0, 0, 1]]) for key in keys]
    except (KeyError, ValueError) as fault:
        what = f"missing {fault}" if isinstance(fault, KeyError) else f"not twelve numbers ({fault})"
        raise Error(Code.source_bad_calibration, what, str(path), _AGAIN) from None


def _points(path: Path, columns: int) -> np.ndarray:
    """(N, columns) float32 rows of a point file without a header; raises Error source_bad_points."""
    data = read_bytes(path)
    if not data or len(data) % (4 * columns):
        raise Error(Code.source_bad_points, f"{len(data)} bytes are no rows of {columns} float32", str(path), _AGAIN)
    return np.frombuffer(data, "<f4").reshape(-1, columns)


def _object(words: list[str], T_lidar_camera: np.ndarray) -> tuple[np.ndarray, str, int]:
    """Box (9,) with unknown velocity, label and occlusion from the words of a label line."""
    if len(words) not in (15, 16):  # the last is a score, which the set writes too
        raise ValueError(f"{len(words)} words instead of 15 or 16")
    occlusion = int(words[2])
    height, width, length, x, y, z, rotation = numbers = [float(word) for word in words[8:15]]
    if not np.isfinite(numbers).all() or min(height, width, length) <= 0 or occlusion not in (0, 1, 2, 3):
        raise ValueError(f"an object with size, place and rotation {words[8:15]} and occlusion {occlusion}")
    center = transform(T_lidar_camera, np.array([[x, y, z]]))[0] + [0, 0, height / 2]  # labelled at its bottom
    return (
        np.array([*center, length, width, height, _wrapped(-rotation - np.pi / 2), np.nan, np.nan]),
        words[0].lower(),
        occlusion,
    )
