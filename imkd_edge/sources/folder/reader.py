"""Reader of drive folders: every frame is read from disk when it is asked for."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import SensorRig
from imkd_edge.sources.absences import Absences, is_absent
from imkd_edge.sources.base import Sample, Source, Truth
from imkd_edge.sources.files import decode_image, read_bytes, unknown_frame
from imkd_edge.sources.folder.format import (
    DATASET,
    FRAMES,
    LIDAR,
    LIDAR_COLUMNS,
    PART,
    RACK,
    RADAR,
    RADAR_COLUMNS,
    RIG,
    SPLITS,
    Frame,
    Labels,
    Reading,
    parse_frame,
    read_dataset,
    read_rig,
)
from imkd_edge.sources.folder.index import read_index
from imkd_edge.sources.folder.points import read_points
from imkd_edge.sources.folder.problem import raise_first
from imkd_edge.sources.folder.splits import read_splits
from imkd_edge.sources.folder.values import Values
from imkd_edge.sources.geometry import inverse, transform, truth_of

_CACHED_RIGS = 64


class FolderSource(Source):
    """Frames of a drive folder (docs/guide/drive-folder.md). Opening it reads no sensor file.

    Args:
        path: folder with rig.json and frames.jsonl. A file that a frame names and that is not there is a sensor without
            a reading, counted in `absent`.
        frames: frame names, in this order; all by default.
        images, lidar, labels: False leaves these out of the samples (not read, faster).
    Raises:
        Error: source_missing_file without rig.json or frames.jsonl; source_syntax, source_unknown_key,
            source_missing_key, source_bad_value, source_bad_path, source_duplicate, source_bad_time, rig_* with file
            and line; source_unknown_frame.
    """

    kind = "folder"

    def __init__(
        self,
        path: str | Path,
        frames: Sequence[str] | None = None,
        images: bool = True,
        lidar: bool = True,
        labels: bool = True,
    ):
        self.path = Path(path)
        self.images, self.lidar, self.labels = images, lidar, labels
        self.dataset = read_dataset(self.path / DATASET, raise_first)
        self.intensity, self.licence, self.traffic = self.dataset.intensity, self.dataset.licence, self.dataset.traffic
        self.classes = self.dataset.classes  # () where dataset.json names none
        self._index = read_index(self.path / FRAMES, raise_first)
        self._rigs: dict[str, SensorRig] = {}
        self._absences = Absences()
        self._rig(RIG)
        self.names = list(self._index.rows)
        if frames is not None:
            self.names = self.subset(frames).names

    def subset(self, names: Sequence[str]) -> FolderSource:
        """The same folder with these frames only, in this order; raises Error source_unknown_frame."""
        for name in names:
            self._row(name)
        result = copy.copy(self)
        result.__dict__.pop("splits", None)
        result.names = list(names)
        return result

    def _row(self, name: str) -> int:
        row = self._index.rows.get(name)
        if row is None:
            raise unknown_frame(name, self._index.rows, self.path)
        return row

    @property
    def absent(self) -> dict[str, int]:
        """Number of frames by sensor whose file is not there, and without a pose where others have one, among those
        read so far."""
        return self._absences.counts()

    def moment(self, name: str) -> tuple[str, int]:
        """Scene and timestamp (ns) of a frame, without reading it."""
        row = self._row(name)
        return self._index.scenes[row], self._index.times[row]

    @cached_property
    def scenes(self) -> dict[str, list[str]]:
        """Frame names by scene, in order of time."""
        result: dict[str, list[str]] = {}
        for name in self.names:
            result.setdefault(self.moment(name)[0], []).append(name)
        return result

    @cached_property
    def splits(self) -> dict[str, list[str]]:
        """Frame names by split, from splits/NAME.txt; raises Error source_bad_split."""
        return read_splits(self.path / SPLITS, self.scenes, self._index.rows, raise_first)

    def labelled(self, name: str) -> bool:
        """Whether a frame has labels, without reading its files."""
        self._row(name)
        return b'"objects"' in self._index.line(name)[0] and self._frame(name, labels=True).labels is not None

    def instances(self, name: str) -> list[str]:
        """Track of every box of the frame's truth, in the same order; one without a track has its own."""
        labels = self._frame(name, labels=True).labels or Labels([], [])
        pairs = enumerate(zip(labels.objects, labels.tracks))
        return [f"{name}/{i}" if track is None else track for i, ((_, label, _), track) in pairs if label != RACK]

    def image_files(self, name: str) -> dict[str, Path]:
        """The encoded image of each camera of a frame."""
        cameras = self._frame(name, labels=False).cameras.items()
        return {camera: path for camera, reading in cameras if not is_absent(path := self.path / reading.file)}

    def __getitem__(self, name: str) -> Sample:
        frame = self._frame(name, self.labels)
        values = Values(raise_first, self._index.path, self._index.lines[self._row(name)])
        rig = self._rig(frame.rig, values)
        check_sensors(frame, rig, values)
        cameras = {camera: r for camera, r in frame.cameras.items() if self._there(camera, name, r)}
        radar = [
            self._sweep(sensor, reading)
            for sensor, readings in frame.radars.items()
            for reading in readings
            if self._there(sensor, name, reading)
        ]
        lidar = self._lidar(frame)
        if frame.ego is None and self._index.posed:
            self._absences.add("pose", name, self._index.path, f"no pose in line {self._index.lines[self._row(name)]}")
        return Sample(
            name=name,
            timestamp_ns=frame.timestamp_ns,
            rig=rig,
            frames={camera: self._image(r, rig, camera) for camera, r in cameras.items()} if self.images else {},
            radar=radar,
            ego=frame.ego,
            truth=None if frame.labels is None else _truth(frame.labels, _in_ego(radar, rig, frame.ego), lidar),
            lidar=lidar,
            camera_timestamps_ns={k: r.timestamp_ns for k, r in cameras.items() if r.timestamp_ns is not None},
            camera_T_world_ego={k: r.T_world_ego for k, r in cameras.items() if r.T_world_ego is not None},
            scene=frame.scene,
        )

    def frame(self, name: str) -> Frame:
        """What frames.jsonl says of a frame, without reading its sensor files."""
        return self._frame(name, self.labels)

    # ---- lines and rigs ----
    def _frame(self, name: str, labels: bool) -> Frame:
        """A line of frames.jsonl; raises the Error of its first fault."""
        self._row(name)
        line, number = self._index.line(name)
        values = Values(raise_first, self._index.path, number)
        frame = parse_frame(line, values, self.dataset.classes, labels)
        if frame is None or frame.name != name:
            fix = "open the folder again"
            raise Error(Code.source_unknown_frame, "frames.jsonl has changed", str(self._index.path), fix)
        return frame

    def _rig(self, file: str, values: Values | None = None) -> SensorRig:
        """A rig of the folder; `values` are of the line that names it."""
        if file not in self._rigs:
            if values and is_absent(self.path / file):
                values.fault(Code.source_missing_file, *absent_rig(file))
            rig = read_rig(self.path / file, raise_first)
            assert rig is not None
            if len(self._rigs) >= _CACHED_RIGS:
                self._rigs.clear()
            self._rigs[file] = rig
        return self._rigs[file]

    # ---- files ----
    def _there(self, sensor: str, name: str, reading: Reading) -> bool:
        """Whether a file of a frame is there; one that is not is counted."""
        path = self.path / reading.file
        if is_absent(path):
            self._absences.add(sensor, name, path)
            return False
        return True

    def _image(self, reading: Reading, rig: SensorRig, camera: str) -> np.ndarray:
        path, calibration = self.path / reading.file, rig.cameras[rig.camera_index(camera)]
        image = decode_image(read_bytes(path), path)
        if image.shape[:2] != (calibration.height, calibration.width):
            what = f"the image is {image.shape[1]} x {image.shape[0]}, its rig says {calibration.width} x "
            fix = "write images of the size that the camera was calibrated for, or correct the rig"
            raise Error(Code.source_bad_image, f"{what}{calibration.height}", str(path), fix)
        return image

    def _sweep(self, radar: str, reading: Reading) -> RadarSweep:
        pcd = self.dataset.pcd
        points = read_points(self.path / reading.file, RADAR_COLUMNS, pcd.get(radar, pcd.get(RADAR, {})))
        return RadarSweep(radar, points, reading.timestamp_ns, reading.T_world_ego)

    def _lidar(self, frame: Frame) -> np.ndarray | None:
        """(N, 4) float32: x, y, z m in the ego frame, reflectance 0..255."""
        if not self.lidar or frame.lidar is None or not self._there(LIDAR, frame.name, frame.lidar):
            return None
        points = read_points(self.path / frame.lidar.file, LIDAR_COLUMNS, self.dataset.pcd.get(LIDAR, {}))
        return points[np.isfinite(points).all(1)]


def is_folder(path: Path) -> bool:
    """Whether a folder looks like a drive folder, complete or not."""
    return any((path / name).is_file() for name in (FRAMES, FRAMES + PART)) or all(
        (path / name).is_file() for name in (DATASET, RIG)
    )


def absent_rig(file: str) -> tuple[str, str]:
    """What is wrong with a line that names a rig that is not there, and the cure."""
    return f"no such rig: {file}", "write the rig, or correct its name"


def check_sensors(frame: Frame, rig: SensorRig, values: Values) -> None:
    """Reports sensors of a frame that its rig does not have."""
    known = {"camera": [camera.name for camera in rig.cameras], "radar": [radar.name for radar in rig.radars]}
    for kind, names in (("camera", frame.cameras), ("radar", frame.radars)):
        for name in names:
            if name not in known[kind]:
                fix = f"{frame.rig} has {', '.join(known[kind]) or 'none'}: correct the name, or add it to the rig"
                values.fault(Code.source_bad_value, f"there is no {kind} {name!r}", fix)


def _truth(labels: Labels, radar: np.ndarray | None, lidar: np.ndarray | None) -> Truth:
    truth = truth_of([item for item in labels.objects if item[1] != RACK], radar, lidar)
    racks = [box for box, label, _ in labels.objects if label == RACK]
    return Truth(
        truth.boxes,
        truth.labels,
        truth.occlusion,
        truth.radar_points,
        truth.lidar_points,
        np.array(racks).reshape(-1, 9),
    )


def _in_ego(sweeps: list[RadarSweep], rig: SensorRig, ego: Ego | None) -> np.ndarray | None:
    """(N, 3) m in the ego frame of the frame: points of all sweeps, moved with the vehicle where poses say how."""
    points = []
    for sweep in sweeps:
        T = np.asarray(rig.radars[rig.radar_index(sweep.radar)].T_ego_radar)
        now = None if ego is None else ego.T_world_ego
        if now is not None and sweep.T_world_ego is not None and not np.array_equal(now, sweep.T_world_ego):
            T = inverse(now) @ sweep.T_world_ego @ T
        points.append(transform(T, sweep.points[:, :3].astype(np.float64)))
    return np.concatenate(points) if points else None
