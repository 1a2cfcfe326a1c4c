"""Finds every problem of a drive folder in one go."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.progress import Track
from imkd_edge.rig import SensorRig
from imkd_edge.sources.files import image_size, read_bytes
from imkd_edge.sources.folder.format import (
    DATASET,
    FRAMES,
    LIDAR,
    LIDAR_COLUMNS,
    RADAR,
    RADAR_COLUMNS,
    RIG,
    SPLITS,
    Dataset,
    Frame,
    Reading,
    parse_frame,
    read_dataset,
    read_rig,
)
from imkd_edge.sources.folder.index import Index, read_index
from imkd_edge.sources.folder.points import read_points
from imkd_edge.sources.folder.problem import Problem, problem_of
from imkd_edge.sources.folder.reader import absent_rig, check_sensors
from imkd_edge.sources.folder.splits import check_overlaps, read_splits
from imkd_edge.sources.folder.values import Values

MAX_OFFSET_NS = 10_000_000_000  # between a frame and a reading of it; beyond, their clocks differ
_RERUN = "write it again, or leave it out of the frame"


def problems(
    folder: str | Path,
    files: bool | int = True,
    track: Track | None = None,
    visit: Callable[[Frame], None] | None = None,
) -> list[Problem]:
    """Every problem of a drive folder, in the order of its files and lines.

    Args:
        folder: the drive folder.
        files: False does not read the sensor files, only asks whether they are there; a number reads those of so many
            frames, evenly spaced.
        track: wraps the frame names, for a progress bar.
        visit: gets every frame, without what is faulty in it.
    Returns:
        [] for a folder that is as docs/guide/drive-folder.md says.
    """
    return _Validator(Path(folder), files, visit).run(track)


class _Validator:
    def __init__(self, folder: Path, files: bool | int, visit: Callable[[Frame], None] | None):
        self.folder, self.visit = folder, visit
        self.limit = None if isinstance(files, bool) else files  # frames whose files are read; None: all
        self.files = bool(files)  # of the present frame are read
        self.problems: list[Problem] = []
        self.report = self.problems.append
        self.rigs: dict[str, SensorRig | None] = {}
        self.images: dict[str, int] = {}  # image file -> line that names it
        self.points: set[str] = set()  # point files that are checked: frames share older sweeps

    def run(self, track: Track | None) -> list[Problem]:
        dataset = self._try(self.folder / DATASET, lambda path: read_dataset(path, self.report)) or Dataset()
        self._rig(RIG)
        index = self._try(self.folder / FRAMES, lambda path: read_index(path, self.report)) or Index(self.folder)
        frames = len(index.rows)
        for row, (line, number) in enumerate(_lines(index, track)):
            if self.limit is not None:
                self.files = row * self.limit // frames != (row - 1) * self.limit // frames
            values = Values(self.report, index.path, number)
            frame = parse_frame(line, values, dataset.classes)
            if frame is not None:
                self._frame(frame, dataset, values)
                if self.visit:
                    self.visit(frame)
        scenes: dict[str, list[str]] = {}
        for name, scene in zip(index.rows, index.scenes):
            scenes.setdefault(scene, []).append(name)
        splits = read_splits(self.folder / SPLITS, scenes, index.rows, self.report)
        check_overlaps(self.folder / SPLITS, splits, self.report)
        return self.problems

    def _try(self, path: Path, read):  # type: ignore[no-untyped-def]
        """What `read` returns; an Error becomes a problem, and None."""
        try:
            return read(path)
        except Error as fault:
            self.report(problem_of(fault, path))
            return None

    def _rig(self, file: str, values: Values | None = None) -> SensorRig | None:
        """A rig of the folder, whose problems are reported once; `values` are of the line that names it."""
        if file not in self.rigs:
            path = self.folder / file
            self.rigs[file] = read_rig(path, self.report) if path.is_file() or not values else None
            if values and not path.is_file():
                values.fault(Code.source_missing_file, *absent_rig(file))
        return self.rigs[file]

    # ---- a frame ----
    def _frame(self, frame: Frame, dataset: Dataset, values: Values) -> None:
        rig = self._rig(frame.rig, values)
        if rig is not None:
            check_sensors(frame, rig, values)
        for camera, reading in frame.cameras.items():
            self._time(frame, reading, f"cameras.{camera}", values)
            self._once(reading.file, values)
            if self._there(reading, values):
                self._image(reading.file, rig, camera)
        for radar, sweeps in frame.radars.items():
            fields = dataset.pcd.get(radar, dataset.pcd.get(RADAR, {}))
            for reading in sweeps:
                self._time(frame, reading, f"radars.{radar}", values)
                if self._there(reading, values):
                    self._points(reading.file, RADAR_COLUMNS, fields)
        if frame.lidar is not None:
            self._time(frame, frame.lidar, LIDAR, values)
            if self._there(frame.lidar, values):
                self._points(frame.lidar.file, LIDAR_COLUMNS, dataset.pcd.get(LIDAR, {}))

    def _time(self, frame: Frame, reading: Reading, where: str, values: Values) -> None:
        time = reading.timestamp_ns
        if time is not None and abs(time - frame.timestamp_ns) > MAX_OFFSET_NS:
            seconds = (time - frame.timestamp_ns) * 1e-9
            what = f"{where}.timestamp_ns {time} is {seconds:.3g} s from its frame's {frame.timestamp_ns}"
            values.fault(Code.source_bad_time, what, "write all times in nanoseconds of one clock")

    def _once(self, file: str, values: Values) -> None:
        first = self.images.setdefault(file, values.line)
        if first != values.line:
            fix = "give each frame the image of its own moment, or leave the camera out of it"
            values.fault(Code.source_duplicate, f"the image {file} belongs to line {first} already", fix)

    def _there(self, reading: Reading, values: Values) -> bool:
        """Whether a file is there and is to be read."""
        if os.path.isfile(self.folder / reading.file):
            return self.files
        fix = "write the file, or leave the reading out of the frame"
        values.fault(Code.source_missing_file, f"no such file: {reading.file}", fix)
        return False

    # ---- files ----
    def _image(self, file: str, rig: SensorRig | None, camera: str) -> None:
        path = self.folder / file
        size = self._try(path, lambda path: image_size(read_bytes(path, _RERUN), path))
        index = -1 if rig is None else rig.camera_index(camera)
        if size is None or rig is None or index < 0:
            return
        expected = rig.cameras[index].width, rig.cameras[index].height
        if size != expected:
            what = f"the image is {size[0]} x {size[1]}, its rig says {expected[0]} x {expected[1]}"
            fix = "write images of the size that the camera was calibrated for, or correct the rig"
            self.report(Problem(Code.source_bad_image, what, path, 0, fix))

    def _points(self, file: str, columns: tuple[str, ...], fields) -> None:  # type: ignore[no-untyped-def]
        path = self.folder / file
        if file in self.points:
            return
        self.points.add(file)
        try:
            points = read_points(path, columns, fields)
        except Error as fault:
            line = fault.where.removeprefix(f"{path}:")
            self.report(problem_of(fault, path, int(line) if line.isdecimal() else 0))
            return
        broken = int((~np.isfinite(points).all(1)).sum())
        if broken:
            what = f"{broken} of {len(points)} points are not finite"
            self.report(Problem(Code.source_bad_points, what, path, 0, "leave them out: the detector discards them"))


def _lines(index: Index, track: Track | None) -> Iterator[tuple[bytes, int]]:
    """The line of every frame and its number."""
    names = list(index.rows)
    for name in names if track is None else track(names):
        yield index.line(name)
