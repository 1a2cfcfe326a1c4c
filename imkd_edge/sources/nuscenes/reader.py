"""Reader of nuScenes v1.0 folders.

Ego frame of a sample: the vehicle at the time of LIDAR_TOP. The rig is the plain calibration; each camera has the time
and the ego pose of its exposure.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from operator import index
from pathlib import Path

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import CameraCalibration, RadarCalibration, SensorRig
from imkd_edge.sources.absences import Absences, is_absent
from imkd_edge.sources.base import Sample, Source
from imkd_edge.sources.files import COPY_AGAIN, decode_image, read_bytes, reason
from imkd_edge.sources.geometry import inverse, transform
from imkd_edge.sources.nuscenes import vehicle
from imkd_edge.sources.nuscenes.annotations import Annotations
from imkd_edge.sources.nuscenes.radar import (
    AMBIGUITY_STATES,
    DYNAMIC_PROPERTIES,
    INVALID_STATES,
    RADAR_FIELDS,
    TRUCKSCENES_FIELDS,
    filter_points,
    radar_points,
    truckscenes_points,
)
from imkd_edge.sources.nuscenes.splits import custom_splits, official_splits
from imkd_edge.sources.nuscenes.tables import Row, Tables, table_folders
from imkd_edge.sources.pcd import read_pcd
from imkd_edge.sources.times import ns_from_us

LIDAR_FIELDS = ("x", "y", "z", "intensity")  # of a PCD file


class NuScenesSource(Source):
    """Samples (annotated key frames) of a nuScenes v1.0 folder, by token.

    Args:
        path: folder with v1.0-*/ (or tables_as_found/) and samples/, sweeps/. A file of these that is not there is a
            sensor without a reading, counted in `absent`.
        version: which v1.0-*, where there are several.
        frames: sample tokens, in this order; all by default, by scene and time.
        sweeps: radar readings per radar and sample, newest first.
        images, lidar, labels: False leaves these out of the samples (not read, faster).
        invalid_states, dynamic_properties, ambiguity_states: of the radar returns that pass; None passes all.
    Raises:
        Error source_unknown, source_missing_file (also where no file of a camera or radar is there),
            source_bad_calibration, source_bad_label, source_unknown_frame.
    """

    kind = "nuscenes"
    intensity = "rcs_dbsm"

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
        labels: bool = True,
    ):
        self.path, self.sweeps, self.images, self.lidar = Path(path), index(sweeps), images, lidar
        filters = {"invalid_state": invalid_states, "dyn_prop": dynamic_properties, "ambig_state": ambiguity_states}
        self.filters = {
            field: None if values is None else [index(value) for value in values] for field, values in filters.items()
        }
        self.labels, self._absences = labels, Absences()
        self.tables = Tables(self.path, version, labels)
        self.root = self.tables.root
        self._samples = {row["token"]: row for row in self.tables.samples}
        self._annotations = Annotations(self.tables, self._samples)
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
        fix = f"names are sample tokens; it has {len(self)}"
        return Error(Code.source_unknown_frame, f"no sample {name!r}", str(self.path), fix)

    @cached_property
    def scenes(self) -> dict[str, list[str]]:
        """Sample tokens by scene name, in order of time."""
        result: dict[str, list[str]] = {}
        for name in self.names:
            result.setdefault(self.tables.scene_name(self._samples[name]), []).append(name)
        return result

    @cached_property
    def splits(self) -> dict[str, list[str]]:
        """Sample tokens by split: those of splits.json, and with nuscenes-devkit the official ones that have any.

        An official split of the folder's scenes has priority over one of the same name in splits.json. Raises: Error
            source_bad_label for another splits.json.
        """
        official = self._tokens(official_splits() or {})
        return self._tokens(custom_splits(self.tables.folder)) | {k: names for k, names in official.items() if names}

    def _tokens(self, splits: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        return {
            split: [name for scene in dict.fromkeys(scenes) for name in self.scenes.get(scene, [])]
            for split, scenes in splits.items()
        }

    @property
    def absent(self) -> dict[str, int]:
        """Number of samples by sensor whose file is not there, among those read so far."""
        return self._absences.counts()

    def moment(self, name: str) -> tuple[str, int]:
        """Scene and timestamp (ns) of a sample, without reading it."""
        if name not in self._samples:
            raise self._unknown(name)
        row = self._samples[name]
        return self.tables.scene_name(row), ns_from_us(row["timestamp"])

    def image_files(self, name: str) -> dict[str, Path]:
        """The encoded image of each camera of a sample."""
        rows = self.tables.keyframes[name]
        files = {channel: self.root / rows[channel]["filename"] for channel in self._cameras(rows)}
        return {channel: path for channel, path in files.items() if not is_absent(path)}

    def __getitem__(self, name: str) -> Sample:
        if name not in self._samples:
            raise self._unknown(name)
        sample, rows = self._samples[name], self.tables.keyframes[name]
        T_world_ego = self.tables.pose(self._reference(sample, rows))
        rig = self._rig(sample, rows)  # also of sensors whose file is absent
        rows = self._present(name, rows)
        cameras, lidar = self._cameras(rows), self._lidar(rows)
        return Sample(
            name=name,
            timestamp_ns=ns_from_us(sample["timestamp"]),
            rig=rig,
            frames={channel: self._image(rows[channel]) for channel in cameras} if self.images else {},
            radar=self._sweeps(name),
            ego=Ego(T_world_ego=T_world_ego),
            truth=self._annotations.truth(sample, T_world_ego) if self.labels else None,
            lidar=self._lidar_points(rows[lidar], T_world_ego) if self.lidar and lidar else None,
            camera_timestamps_ns={channel: ns_from_us(rows[channel]["timestamp"]) for channel in cameras},
            scene=self.tables.scene_name(sample),
            camera_T_world_ego={channel: self.tables.pose(rows[channel]) for channel in cameras},
        )

    # ---- poses and calibration ----
    def _fault(self, table: str, what: str, fix: str) -> Error:
        return Error(Code.source_bad_calibration, what, str(self.tables.folder / f"{table}.json"), fix)

    def _reference(self, sample: Row, rows: dict[str, Row]) -> Row:
        """The reading whose ego pose is the sample's: the LiDAR's, else the one nearest in time."""
        if not rows:
            raise self._fault("sample_data", f"no sensor reading of sample {sample['token']}", "copy the tables again")
        lidar = self._lidar(rows)
        return rows[lidar] if lidar else min(rows.values(), key=lambda row: abs(row["timestamp"] - sample["timestamp"]))

    def _rig(self, sample: Row, rows: dict[str, Row]) -> SensorRig:
        """Every camera and radar of the scene, also those without a reading in this sample."""
        readings = {**self.tables.scene_rows[sample["scene_token"]], **rows}
        cameras = [self._camera(channel, readings[channel]) for channel in self._cameras(readings)]
        radars = [
            RadarCalibration(
                name=channel,
                T_ego_radar=self.tables.transform("calibrated_sensor", readings[channel]["calibrated_sensor_token"]),
                velocity="raw" if self.tables.truckscenes else "compensated",
            )
            for channel in self._radars(readings)
        ]
        rig = SensorRig(cameras=cameras, radars=radars, ground_plane=(0.0, 0.0, 0.0))  # the ego frame lies on it
        try:
            rig.check()
        except Error as fault:
            raise self._fault("calibrated_sensor", f"sample {sample['token']}: {fault.what}", fault.fix) from None
        return rig

    def _camera(self, channel: str, row: Row) -> CameraCalibration:
        calibration = self.tables.row("calibrated_sensor", row["calibrated_sensor_token"])
        T_ego_camera = self.tables.transform("calibrated_sensor", calibration["token"])
        try:
            K = np.array(calibration["camera_intrinsic"], np.float64).reshape(3, 3)
            width, height = int(row["width"]), int(row["height"])
            return CameraCalibration(name=channel, width=width, height=height, K=K, T_ego_camera=T_ego_camera)
        except (KeyError, TypeError, ValueError, OverflowError, Error) as fault:
            fix = "correct camera_intrinsic, width, height"
            raise self._fault("calibrated_sensor", f"{channel}: {reason(fault)}", fix) from None

    # ---- sensor readings ----
    def _cameras(self, rows: Collection[str]) -> list[str]:
        return vehicle.cameras(rows, self.tables.modalities)

    def _radars(self, rows: Collection[str]) -> list[str]:
        return vehicle.radars(rows, self.tables.modalities)

    def _lidar(self, rows: Collection[str]) -> str | None:
        return vehicle.lidar(rows, self.tables.modalities)

    def _present(self, name: str, rows: dict[str, Row]) -> dict[str, Row]:
        """The readings of a sample's cameras and LiDAR whose files are there; raises Error source_missing_file.

        Radars are left to `_sweeps`, LiDAR that is not wanted is not looked for."""
        lidar = self._lidar(rows)
        looked_for = [*self._cameras(rows), *([lidar] if lidar and self.lidar else [])]
        absent = [channel for channel in looked_for if is_absent(self.root / rows[channel]["filename"])]
        if absent and not self._has_files:
            raise self._no_files()
        for channel in absent:
            self._absences.add(channel, name, self.root / rows[channel]["filename"])
        return {channel: row for channel, row in rows.items() if channel not in absent}

    @cached_property
    def _has_files(self) -> bool:
        """Whether any file of a camera or radar is there."""
        rows = (self.tables.keyframes[name] for name in self._samples)
        files = (row[channel]["filename"] for row in rows for channel in row if channel != self._lidar(row))
        return any(not is_absent(self.root / file) for file in files)

    def _image(self, row: Row) -> np.ndarray:
        path = self.root / row["filename"]
        image = decode_image(read_bytes(path), path)
        if image.shape[:2] != (row["height"], row["width"]):
            what = f"the image is {image.shape[1]} x {image.shape[0]}, its table says {row['width']} x {row['height']}"
            raise Error(Code.source_bad_image, what, str(path), COPY_AGAIN)
        return image

    def _sweeps(self, name: str) -> list[RadarSweep]:
        """The sweeps of a sample's radars, newest first, without those whose file is not there."""
        rows, result = self.tables.keyframes[name], []
        for channel in self._radars(rows):
            for row in self.tables.history(rows[channel], self.sweeps):
                path = self.root / row["filename"]
                if not is_absent(path):
                    result.append(self._sweep(channel, row))
                elif not self._has_files:
                    raise self._no_files()
                else:
                    self._absences.add(channel if row["is_key_frame"] else f"{channel} sweeps", name, path)
        return result

    def _no_files(self) -> Error:
        what, fix = "no file of a camera or radar that the tables name is there", "copy samples/ beside the tables"
        return Error(Code.source_missing_file, what, str(self.root), f"{fix}, from the data set's blobs")

    def _sweep(self, channel: str, row: Row) -> RadarSweep:
        path = self.root / row["filename"]
        if self.tables.truckscenes:
            points = truckscenes_points(read_pcd(path, TRUCKSCENES_FIELDS))
        else:
            points = radar_points(filter_points(read_pcd(path, RADAR_FIELDS), self.filters))
        return RadarSweep(channel, points, ns_from_us(row["timestamp"]), self.tables.pose(row))

    def _lidar_points(self, row: Row, T_world_ego: np.ndarray) -> np.ndarray:
        """(N, 4) float32: x, y, z m in the sample's ego frame, intensity 0..255."""
        path = self.root / row["filename"]
        if path.suffix == ".pcd":
            table = read_pcd(path, LIDAR_FIELDS)
            points = np.stack([table[name] for name in LIDAR_FIELDS], 1).astype(np.float64)
        else:
            data = read_bytes(path)
            if not data or len(data) % 20:
                what = f"{len(data)} bytes are no rows of five float32"
                raise Error(Code.source_bad_points, what, str(path), COPY_AGAIN)
            points = np.frombuffer(data, "<f4").reshape(-1, 5)[:, :4].astype(np.float64)  # x, y, z, intensity, ring
        T_ego_lidar = self.tables.transform("calibrated_sensor", row["calibrated_sensor_token"])
        points[:, :3] = transform(inverse(T_world_ego) @ self.tables.pose(row) @ T_ego_lidar, points[:, :3])
        return points[np.isfinite(points).all(1)].astype(np.float32)


def is_nuscenes(path: Path) -> bool:
    """Whether a folder looks like this schema."""
    return bool(table_folders(path))
