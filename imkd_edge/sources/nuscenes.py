"""nuScenes schema v1.0 (Caesar et al., CVPR 2020; github.com/nutonomy/nuscenes-devkit, docs/schema_nuscenes.md).

The only file that knows its conventions: boxes w, l, h with quaternions in the global frame, microseconds, one ego pose
per sensor reading. Ego frame of a sample = the vehicle when LIDAR_TOP was taken; each camera's T_ego_camera includes
the motion between its exposure and that moment.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import CameraCalibration, RadarCalibration, SensorRig
from imkd_edge.sources.base import Sample, Truth
from imkd_edge.sources.files import decode_image, read_bytes
from imkd_edge.sources.geometry import inverse, rotation_of, transform, yaw_of
from imkd_edge.sources.nuscenes_labels import DETECTION_CLASSES, RACK
from imkd_edge.sources.nuscenes_tables import Row, Tables, table_folders
from imkd_edge.sources.pcd import read_pcd

CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_FRONT_LEFT")
RADARS = ("RADAR_FRONT", "RADAR_FRONT_RIGHT", "RADAR_BACK_RIGHT", "RADAR_BACK_LEFT", "RADAR_FRONT_LEFT")
LIDAR = "LIDAR_TOP"

# Radar returns that are kept (CRN's filter; names and values are the radar's own).
INVALID_STATES = (0, 4, 8, 9, 10, 11, 12, 15, 16, 17)
DYNAMIC_PROPERTIES = tuple(range(8))
AMBIGUITY_STATES = (3,)
RADAR_FIELDS = (
    *("x", "y", "z", "dyn_prop", "id", "rcs", "vx", "vy", "vx_comp", "vy_comp", "is_quality_valid", "ambig_state"),
    *("x_rms", "y_rms", "invalid_state", "pdh0", "vx_rms", "vy_rms"),
)

_OCCLUSION = {"v80-100": 0, "v60-80": 1, "v40-60": 2, "v0-40": 3}  # visible share in percent
_Found = tuple[np.ndarray, str, tuple[int, int, int]]  # box (9,), label, (occlusion, radar points, LiDAR points)
GET_DEVKIT = 'pip install "imkd-edge[test]" && pip install --no-deps nuscenes-devkit==1.2.0'
_MAX_VELOCITY_GAP_US = 1_500_000  # a velocity over a longer gap is unknown (twice that between two neighbours)


class NuScenesSource:
    """Samples (annotated key frames) of a nuScenes v1.0 folder, by token.

    Args:
        path: folder with v1.0-*/ (or tables_as_found/) and samples/, sweeps/.
        version: which v1.0-*, where there are several.
        frames: sample tokens to keep, in this order; all by default, by scene and time.
        sweeps: radar readings per radar and sample, newest first.
        images, lidar: False leaves these out of the samples (not read, faster).
        invalid_states, dynamic_properties, ambiguity_states: radar returns to keep; None keeps all.
    Raises:
        Error source_unknown, source_missing_file, source_bad_calibration, source_bad_label, source_unknown_frame.
    """

    kind = "nuscenes"

    def __init__(
        self,
        path: str | Path,
        version: str | None = None,
        frames: Sequence[str] | None = None,
        sweeps: int = 6,
        images: bool = True,
        lidar: bool = True,
        invalid_states: Collection[int] | None = INVALID_STATES,
        dynamic_properties: Collection[int] | None = DYNAMIC_PROPERTIES,
        ambiguity_states: Collection[int] | None = AMBIGUITY_STATES,
    ):
        self.path, self.sweeps, self.images, self.lidar = Path(path), index(sweeps), images, lidar
        filters = {"invalid_state": invalid_states, "dyn_prop": dynamic_properties, "ambig_state": ambiguity_states}
        self.filters = {
            field: None if kept is None else [index(value) for value in kept] for field, kept in filters.items()
        }
        self.tables = Tables(self.path, version)
        self.root = self.tables.root
        self._samples = {row["token"]: row for row in self.tables.samples}
        self.names = list(self._samples)
        if frames is not None:
            self.names = self.subset(frames).names

    def subset(self, names: Sequence[str]) -> NuScenesSource:
        """The same folder with these samples only, in this order; raises Error source_unknown_frame."""
        known = set(self.names)
        for name in names:
            if name not in known:
                raise self._unknown(name)
        result = copy.copy(self)
        result.names = list(names)
        return result

    def _unknown(self, name: str) -> Error:
        return Error(
            Code.source_unknown_frame,
            f"no sample {name!r}",
            str(self.path),
            f"names are sample tokens; it has {len(self)}",
        )

    @cached_property
    def scenes(self) -> dict[str, list[str]]:
        """Sample tokens by scene name, in order of time."""
        result: dict[str, list[str]] = {}
        for name in self.names:
            result.setdefault(self._scene(self._samples[name]), []).append(name)
        return result

    @cached_property
    def splits(self) -> dict[str, list[str]]:
        """Sample tokens of the official splits (train, mini_val, ...) that have any; empty without nuscenes-devkit."""
        official = official_splits() or {}
        tokens = {
            split: [name for scene in scenes for name in self.scenes.get(scene, [])]
            for split, scenes in official.items()
        }
        return {split: names for split, names in tokens.items() if names}

    def moment(self, name: str) -> tuple[str, int]:
        """Scene and timestamp (ns) of a sample, without reading it."""
        if name not in self._samples:
            raise self._unknown(name)
        row = self._samples[name]
        return self._scene(row), row["timestamp"] * 1000

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Sample]:
        return (self[name] for name in self.names)

    def __getitem__(self, name: str) -> Sample:
        if name not in self._samples:
            raise self._unknown(name)
        sample, rows = self._samples[name], self.tables.keyframes[name]
        T_world_ego = self.tables.pose(self._reference(sample, rows))
        cameras = [channel for channel in _ordered(rows, CAMERAS) if channel.startswith("CAM")]
        radars = [channel for channel in _ordered(rows, RADARS) if channel.startswith("RADAR")]
        return Sample(
            name=name,
            timestamp_ns=sample["timestamp"] * 1000,
            rig=self._rig(sample, rows, T_world_ego),
            frames={channel: self._image(rows[channel]) for channel in cameras} if self.images else {},
            radar=[
                self._sweep(channel, row)
                for channel in radars
                for row in self.tables.history(rows[channel], self.sweeps)
            ],
            ego=Ego(T_world_ego=T_world_ego),
            truth=self._truth(sample, T_world_ego),
            lidar=self._lidar_points(rows[LIDAR], T_world_ego) if self.lidar and LIDAR in rows else None,
            camera_timestamps_ns={channel: rows[channel]["timestamp"] * 1000 for channel in cameras},
            scene=self._scene(sample),
        )

    # ---- tables ----
    def _scene(self, sample: Row) -> str:
        return str(self.tables.row("scene", sample["scene_token"])["name"])

    def _fault(self, table: str, what: str, fix: str) -> Error:
        return Error(Code.source_bad_calibration, what, str(self.tables.folder / f"{table}.json"), fix)

    def _reference(self, sample: Row, rows: dict[str, Row]) -> Row:
        """The reading whose ego pose is the sample's: the LiDAR's, else the one nearest in time."""
        if not rows:
            raise self._fault("sample_data", f"no sensor reading of sample {sample['token']}", "copy the tables again")
        return rows.get(LIDAR) or min(rows.values(), key=lambda row: abs(row["timestamp"] - sample["timestamp"]))

    def _rig(self, sample: Row, rows: dict[str, Row], T_world_ego: np.ndarray) -> SensorRig:
        """Every camera and radar of the scene; those without a reading in this sample keep their calibration."""
        known = {**self.tables.scene_rows[sample["scene_token"]], **rows}
        cameras = []
        for channel in _ordered(known, CAMERAS):
            if channel.startswith("CAM"):
                motion = inverse(T_world_ego) @ self.tables.pose(rows[channel]) if channel in rows else np.eye(4)
                cameras.append(self._camera(channel, known[channel], motion))
        radars = [
            RadarCalibration(
                name=channel,
                T_ego_radar=self.tables.transform("calibrated_sensor", known[channel]["calibrated_sensor_token"]),
                velocity="compensated",
            )
            for channel in _ordered(known, RADARS)
            if channel.startswith("RADAR")
        ]
        rig = SensorRig(cameras=cameras, radars=radars)
        try:
            rig.check()
        except Error as fault:
            raise self._fault("calibrated_sensor", f"sample {sample['token']}: {fault.what}", fault.fix) from None
        return rig

    def _camera(self, channel: str, row: Row, motion: np.ndarray) -> CameraCalibration:
        calibration = self.tables.row("calibrated_sensor", row["calibrated_sensor_token"])
        T_ego_camera = motion @ self.tables.transform("calibrated_sensor", calibration["token"])
        try:
            K = np.array(calibration["camera_intrinsic"], np.float64).reshape(3, 3)
            return CameraCalibration(
                name=channel, width=int(row["width"]), height=int(row["height"]), K=K, T_ego_camera=T_ego_camera
            )
        except (KeyError, TypeError, ValueError, Error) as fault:
            what = f"{channel}: {getattr(fault, 'what', fault)}"
            raise self._fault("calibrated_sensor", what, "correct camera_intrinsic, width, height") from None

    # ---- sensor readings ----
    def _image(self, row: Row) -> np.ndarray:
        path = self.root / row["filename"]
        image = decode_image(read_bytes(path), path)
        if image.shape[:2] != (row["height"], row["width"]):
            what = f"the image is {image.shape[1]} x {image.shape[0]}, its table says {row['width']} x {row['height']}"
            raise Error(Code.source_bad_image, what, str(path), "copy the file again from the data set")
        return image

    def _sweep(self, channel: str, row: Row) -> RadarSweep:
        path = self.root / row["filename"]
        if not row["is_key_frame"] and not path.exists():
            raise Error(Code.source_missing_file, "no such sweep", str(path), "copy sweeps/ too, or open with sweeps=1")
        points = read_pcd(path, RADAR_FIELDS)
        keep = np.ones(len(points), bool)
        for field, kept in self.filters.items():
            if kept is not None:
                keep &= np.isin(points[field], kept)
        if len(points) and np.isnan(points["x"][0]):  # how the set writes that there was no return
            keep[:] = False
        return RadarSweep(channel, radar_points(points[keep]), row["timestamp"] * 1000, self.tables.pose(row))

    def _lidar_points(self, row: Row, T_world_ego: np.ndarray) -> np.ndarray:
        """(N, 4) float32: x, y, z m in the sample's ego frame, intensity 0..255."""
        path = self.root / row["filename"]
        data = read_bytes(path)
        if not data or len(data) % 20:
            what = f"{len(data)} bytes are no rows of five float32"
            raise Error(Code.source_bad_points, what, str(path), "copy the file again from the data set")
        points = np.frombuffer(data, "<f4").reshape(-1, 5)[:, :4].astype(np.float64)  # x, y, z, intensity, ring
        T = (
            inverse(T_world_ego)
            @ self.tables.pose(row)
            @ self.tables.transform("calibrated_sensor", row["calibrated_sensor_token"])
        )
        points[:, :3] = transform(T, points[:, :3])
        return points[np.isfinite(points).all(1)].astype(np.float32)

    # ---- labels ----
    def _truth(self, sample: Row, T_world_ego: np.ndarray) -> Truth | None:
        loose = self.tables.loose_annotations()
        where = self.root / "annotations.json" if loose is not None else self.tables.folder / "sample_annotation.json"
        if loose is None and not self.tables.annotations:
            return None
        try:
            found = self._tabled_boxes(sample, T_world_ego) if loose is None else self._loose_boxes(sample, loose)
            racks = self._racks(sample, T_world_ego) if loose is None else []
        except (KeyError, TypeError, ValueError) as fault:
            what = f"missing {fault}" if isinstance(fault, KeyError) else str(fault)
            raise Error(Code.source_bad_label, what, str(where), "correct the box or copy the table again") from None
        counts = np.array([numbers for *_, numbers in found], np.int32).reshape(-1, 3)
        return Truth(
            boxes=np.array([box for box, *_ in found], np.float64).reshape(-1, 9),
            labels=[label for _, label, _ in found],
            occlusion=counts[:, 0].astype(np.int8),
            radar_points=counts[:, 1],
            lidar_points=counts[:, 2],
            racks=np.array(racks, np.float64).reshape(-1, 9),
        )

    def _tabled_boxes(self, sample: Row, T_world_ego: np.ndarray) -> list[_Found]:
        rows = [
            (row, DETECTION_CLASSES.get(self._category(row)))
            for row in self.tables.annotations.get(sample["token"], [])
        ]
        return [
            (self._box(row, T_world_ego), label, (self._occlusion(row), *_counts(row))) for row, label in rows if label
        ]

    def _racks(self, sample: Row, T_world_ego: np.ndarray) -> list[np.ndarray]:
        rows = self.tables.annotations.get(sample["token"], [])
        return [self._box(row, T_world_ego) for row in rows if self._category(row) == RACK]

    def _loose_boxes(self, sample: Row, items: list[Row]) -> list[_Found]:
        """Boxes given in the LiDAR frame, without occlusion."""
        row = self.tables.keyframes[sample["token"]][LIDAR]
        T_ego_lidar = self.tables.transform("calibrated_sensor", row["calibrated_sensor_token"])
        kept = [item for item in items if item["name"] in DETECTION_CLASSES.values()]
        return [(_loose_box(item, T_ego_lidar), item["name"], (-1, *_counts(item))) for item in kept]

    def _category(self, row: Row) -> str:
        category = row.get("category_name")  # the devkit's shortcut, absent from the tables
        if category is None:
            instance = self.tables.row("instance", row["instance_token"])
            category = self.tables.row("category", instance["category_token"])["name"]
        return str(category)

    def _occlusion(self, row: Row) -> int:
        token = row.get("visibility_token")
        return _OCCLUSION.get(self.tables.row("visibility", token)["level"], -1) if token else -1

    def _box(self, row: Row, T_world_ego: np.ndarray) -> np.ndarray:
        R_ego_world = T_world_ego[:3, :3].T
        center = R_ego_world @ (np.array(row["translation"], np.float64) - T_world_ego[:3, 3])
        width, length, height = row["size"]
        yaw = yaw_of(R_ego_world @ rotation_of(row["rotation"]))
        velocity = R_ego_world @ self._velocity(row)
        return _checked(np.array([*center, length, width, height, yaw, *velocity[:2]], np.float64))

    def _velocity(self, row: Row) -> np.ndarray:
        """(3,) m/s in the world frame: difference of the neighbouring annotations; nan where none is near in time."""
        first, last = (self.tables.row("sample_annotation", row[key]) if row[key] else row for key in ("prev", "next"))
        times = [self._samples[item["sample_token"]]["timestamp"] for item in (first, last)]
        gap = times[1] - times[0]
        if gap <= 0 or gap > _MAX_VELOCITY_GAP_US * (2 if row["prev"] and row["next"] else 1):
            return np.full(3, np.nan)
        return (np.array(last["translation"]) - np.array(first["translation"])) / (gap * 1e-6)


def official_splits() -> dict[str, list[str]] | None:
    """Scene names by split; None without nuscenes-devkit, which brings them."""
    try:
        from nuscenes.utils.splits import create_splits_scenes
    except ImportError:
        return None
    return create_splits_scenes()


def is_nuscenes(path: Path) -> bool:
    """Whether a folder looks like this schema."""
    return bool(table_folders(path))


def radar_points(points: np.ndarray) -> np.ndarray:
    """(N, 5) float32 of PCD rows: x, y, z m in the radar frame, RCS dBsm, radial velocity m/s (receding +)."""
    x, y = points["x"].astype(np.float64), points["y"].astype(np.float64)
    distance = np.maximum(np.hypot(x, y), 1e-6)
    radial = (points["vx_comp"] * x + points["vy_comp"] * y) / distance  # the velocity's part along the line of sight
    return np.stack([points["x"], points["y"], points["z"], points["rcs"], radial], 1).astype(np.float32)


def _ordered(channels: Collection[str], order: Sequence[str]) -> list[str]:
    """Channels in the usual order, unknown ones behind by name."""
    return sorted(channels, key=lambda channel: (order.index(channel) if channel in order else len(order), channel))


def _counts(row: Row) -> tuple[int, int]:
    return int(row.get("num_radar_pts", -1)), int(row.get("num_lidar_pts", -1))


def _checked(box: np.ndarray) -> np.ndarray:
    if not np.isfinite(box[:7]).all() or (box[3:6] <= 0).any():
        raise ValueError(f"not a box: {box}")
    return box


def _loose_box(item: dict[str, Any], T_ego_lidar: np.ndarray) -> np.ndarray:
    R, yaw = T_ego_lidar[:3, :3], item["yaw_lidar"]
    center = transform(T_ego_lidar, np.array(item["center_lidar"], np.float64))
    heading = R @ [np.cos(yaw), np.sin(yaw), 0]
    velocity = R @ np.array([*item["velocity_lidar_xy"], 0], np.float64)  # null (unknown) becomes nan
    return _checked(
        np.array([*center, *item["size_lwh"], np.arctan2(heading[1], heading[0]), *velocity[:2]], np.float64)
    )
