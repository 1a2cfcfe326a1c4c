"""A source that makes frames of sensors with times of their own: nearest images, the sweeps before, poses between."""

from __future__ import annotations

import copy
import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import SensorRig
from imkd_edge.sources.absences import Absences
from imkd_edge.sources.base import Sample, Source
from imkd_edge.sources.files import image_size, unknown_frame

_CACHED_SWEEPS = 256
NS = 1_000_000_000


class Motion(Protocol):
    """Where a vehicle is, and how it moves."""

    def at(self, time_ns: int) -> np.ndarray | None:
        """(4, 4) T_world_ego; None where it is unknown."""


@dataclass(frozen=True)
class Track:
    """The readings of one sensor."""

    times: np.ndarray  # (N,) int64 ns, increasing
    read: Callable[[int], np.ndarray]  # number -> image (H, W, 3) uint8, radar (N, 5) or LiDAR (N, 4) float32
    arrivals: np.ndarray | None = None  # (N,) int64 ns when they were recorded; None: at their times
    encoded: Callable[[int], bytes] | None = None  # number -> JPEG or PNG as it was recorded; None: nothing is


@dataclass(frozen=True)
class Segment:
    """A part of a drive whose clock does not step."""

    cameras: dict[str, Track]
    radars: dict[str, Track]
    lidar: Track | None = None
    motion: Motion | None = None
    twist: Callable[[int], np.ndarray | None] = field(default=lambda time_ns: None)
    motion_times: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # ns, of `stream`


@dataclass(frozen=True)
class Timing:
    """How frames are made of readings."""

    trigger: str = ""  # sensor whose readings make the frames; empty: the rig's first camera, else its first radar
    interval: float = 0.0  # s between frames; 0: every reading of the trigger
    tolerance: float = 0.05  # s between a frame and an image that belongs to it
    max_age: float = 0.5  # s of sweeps in a frame


class Item(NamedTuple):
    """A reading of a sensor as it arrived."""

    kind: str  # "camera", "radar", "ego"
    sensor: str  # name in the rig; empty for the ego motion
    timestamp_ns: int
    arrival_ns: int
    value: Any  # image (H, W, 3), RadarSweep, Ego


class TrackSource(Source):
    """Frames of sensors with times of their own. A subclass calls `_set` when it has opened its files."""

    kind = "recording"
    intensity = traffic = licence = ""
    images = True  # False leaves those that `image_files` has out of the samples

    def _set(self, path: Path, rig: SensorRig, segments: Sequence[Segment], timing: Timing, lidar: bool = True) -> None:
        self.path, self.rig, self.timing, self.lidar = path, rig, timing, lidar
        self._segments = list(segments)
        self._absences = Absences()
        self._sweeps: OrderedDict[tuple[int, str, int], RadarSweep | None] = OrderedDict()
        self._keys = [(i, time) for i, segment in enumerate(segments) for time in self._key_times(segment)]
        self._rows = {f"{i:06d}": i for i in range(len(self._keys))}
        self.names = list(self._rows)

    def _key_times(self, segment: Segment) -> list[int]:
        """Times of the frames of a segment, ns."""
        sensors = {**segment.cameras, **segment.radars}
        trigger = self.timing.trigger or self._first_sensor()
        times = sensors[trigger].times if trigger in sensors else np.zeros(0, np.int64)
        if not self.timing.interval or not len(times):
            return times.tolist()
        return thinned(times, max(1, round(self.timing.interval * NS)))

    def _first_sensor(self) -> str:
        sensors = [*self.rig.cameras, *self.rig.radars]
        return sensors[0].name

    # ---- the protocol of a source ----
    def _key(self, name: str) -> tuple[int, int]:
        if name not in self._rows:
            raise unknown_frame(name, self._rows, self.path)
        return self._keys[self._rows[name]]

    def moment(self, name: str) -> tuple[str, int]:
        """Scene and timestamp (ns) of a frame, without reading it."""
        segment, time = self._key(name)
        return f"{segment}", time

    @cached_property
    def scenes(self) -> dict[str, list[str]]:
        """Frame names by scene, in order of time."""
        result: dict[str, list[str]] = {}
        for name in self.names:
            result.setdefault(self.moment(name)[0], []).append(name)
        return result

    def subset(self, names: Sequence[str]) -> TrackSource:
        """The same recording with these frames only, in this order; raises Error source_unknown_frame."""
        for name in names:
            self._key(name)
        result = copy.copy(self)
        result.__dict__.pop("scenes", None)
        result.names = list(names)
        return result

    @property
    def absent(self) -> dict[str, int]:
        """Number of frames by sensor that has no reading in them, or a broken one, and without a pose where others
        have one, among those read so far."""
        return self._absences.counts()

    def __getitem__(self, name: str) -> Sample:
        number, time = self._key(name)
        segment = self._segments[number]
        copied = {} if self.images else self.image_files(name)
        frames, times = {}, {}
        for camera, row in self._camera_rows(segment, time).items():
            if row is None or camera not in copied:
                image = self._image(segment, camera, row, name)
                if row is None or image is None:
                    continue
                frames[camera] = image
            times[camera] = int(segment.cameras[camera].times[row])
        poses = {camera: self._pose(segment, at) for camera, at in times.items() if at != time}
        return Sample(
            name=name,
            timestamp_ns=time,
            rig=self.rig,
            frames=frames,
            radar=[sweep for radar in self.rig.radars for sweep in self._sweeps_of(number, radar.name, time, name)],
            ego=self._ego(segment, time, name),
            lidar=self._lidar(segment, time) if self.lidar else None,
            camera_timestamps_ns=times,
            scene=f"{number}",
            camera_T_world_ego={camera: T for camera, T in poses.items() if T is not None},
        )

    def image_files(self, name: str) -> dict[str, bytes]:
        """The image of each camera of a frame that was recorded as a complete JPEG or PNG of its size."""
        number, time = self._key(name)
        segment = self._segments[number]
        rows = self._camera_rows(segment, time).items()
        found = {camera: self._encoded(segment, camera, row) for camera, row in rows if row is not None}
        return {camera: data for camera, data in found.items() if data is not None}

    # ---- as it arrived ----
    def stream(self) -> Iterator[Item]:
        """Every reading, decoded, in the order in which it was recorded; broken ones are left out and counted.

        Times of arrival do not step back: those of a later segment follow.
        """
        for number, segment in enumerate(self._segments):
            lines = [
                self._arrivals(kind, sensor, track)
                for kind, tracks in (("camera", segment.cameras), ("radar", segment.radars))
                for sensor, track in tracks.items()
            ]
            ego = ((time, time, "ego", "", i) for i, time in enumerate(segment.motion_times.tolist()))
            for arrival, time, kind, sensor, row in heapq.merge(*lines, ego):
                value = self._value(number, kind, sensor, row, time)
                if value is not None:
                    yield Item(kind, sensor, time, arrival, value)

    @staticmethod
    def _arrivals(kind: str, sensor: str, track: Track) -> list[tuple[int, int, str, str, int]]:
        arrivals = track.times if track.arrivals is None else track.arrivals
        times = track.times.tolist()
        return sorted((arrival, times[i], kind, sensor, i) for i, arrival in enumerate(arrivals.tolist()))

    def _value(self, number: int, kind: str, sensor: str, row: int, time: int) -> Any:
        segment = self._segments[number]
        if kind == "ego":
            pose, twist = self._pose(segment, time), segment.twist(time)
            return None if pose is None and twist is None else Ego(pose, twist)
        if kind == "camera":
            return self._image(segment, sensor, row, f"{time}")
        return self._sweep(number, sensor, row)

    # ---- readings ----
    def _nearest(self, tracks: dict[str, Track], sensor: str, time: int) -> int | None:
        if sensor not in tracks:
            return None
        return nearest_of(tracks[sensor].times, time, round(self.timing.tolerance * NS))

    def _camera_rows(self, segment: Segment, time: int) -> dict[str, int | None]:
        """Of each camera the number of the image at a frame's time; None where none is near enough."""
        return {camera.name: self._nearest(segment.cameras, camera.name, time) for camera in self.rig.cameras}

    def _encoded(self, segment: Segment, camera: str, row: int) -> bytes | None:
        """An image as it was recorded; None where `_image` has to decode it, or to say what is wrong with it."""
        encoded = segment.cameras[camera].encoded
        if encoded is None:
            return None
        try:
            data = encoded(row)
            size = image_size(data, self.path)
        except Error:
            return None
        calibration = self.rig.cameras[self.rig.camera_index(camera)]
        return data if size == (calibration.width, calibration.height) else None

    def _image(self, segment: Segment, camera: str, row: int | None, name: str) -> np.ndarray | None:
        if row is None:
            what = f"no image of {camera} within {self.timing.tolerance} s"
            self._absences.add(camera, name, self.path, what)
            return None
        try:
            image = segment.cameras[camera].read(row)
        except Error as fault:
            if fault.code != f"E{Code.source_bad_image:04d}":
                raise
            self._absences.add(camera, name, self.path, fault.what)
            return None
        calibration = self.rig.cameras[self.rig.camera_index(camera)]
        if image.shape[:2] != (calibration.height, calibration.width):
            what = f"the images of {camera} are {image.shape[1]} x {image.shape[0]}, its calibration says "
            fix = "record the camera_info of these images, or give a rig of their size"
            size = f"{calibration.width} x {calibration.height}"
            raise Error(Code.source_bad_calibration, what + size, str(self.path), fix)
        return image

    def _sweeps_of(self, number: int, radar: str, time: int, name: str) -> list[RadarSweep]:
        """Sweeps of a radar up to a frame's time, the newest first; none is counted."""
        sweeps = list(self._recent(number, radar, time))
        if not sweeps:
            what = f"no sweep of {radar} in the {self.timing.max_age} s before"
            self._absences.add(radar, name, self.path, what)
        return sweeps

    def _ego(self, segment: Segment, time: int, name: str) -> Ego | None:
        """Pose and twist at a frame's time; where other frames of the drive have one, none is counted."""
        pose, twist = self._pose(segment, time), segment.twist(time)
        if pose is not None or twist is not None:
            return Ego(pose, twist)
        if any(each.motion is not None for each in self._segments):
            self._absences.add("pose", name, self.path, "no poses near enough in time")
        return None

    def _recent(self, number: int, radar: str, time: int) -> Iterator[RadarSweep]:
        """Sweeps of a radar up to a time, the newest first."""
        track = self._segments[number].radars.get(radar)
        if track is None:
            return
        oldest = np.searchsorted(track.times, time - round(self.timing.max_age * NS), "right")
        newest = np.searchsorted(track.times, time, "right")
        for row in range(int(newest) - 1, int(oldest) - 1, -1):
            sweep = self._sweep(number, radar, row)
            if sweep is not None:
                yield sweep

    def _sweep(self, number: int, radar: str, row: int) -> RadarSweep | None:
        """A sweep with its pose; None where it is broken, which is counted once."""
        segment, key = self._segments[number], (number, radar, row)
        if key not in self._sweeps:
            self._sweeps[key] = self._read_sweep(segment, radar, row)
            while len(self._sweeps) > _CACHED_SWEEPS:
                self._sweeps.popitem(last=False)
        return self._sweeps[key]

    def _read_sweep(self, segment: Segment, radar: str, row: int) -> RadarSweep | None:
        time = int(segment.radars[radar].times[row])
        try:
            points = segment.radars[radar].read(row)
        except Error as fault:
            if fault.code != f"E{Code.source_bad_points:04d}":
                raise
            self._absences.add(radar, f"{time}", self.path, fault.what)
            return None
        return RadarSweep(radar, points, time, self._pose(segment, time))

    @staticmethod
    def _pose(segment: Segment, time: int) -> np.ndarray | None:
        return None if segment.motion is None else segment.motion.at(time)

    def _lidar(self, segment: Segment, time: int) -> np.ndarray | None:
        if segment.lidar is None:
            return None
        row = nearest_of(segment.lidar.times, time, round(self.timing.tolerance * NS))
        return None if row is None else segment.lidar.read(row)


def thinned(times: np.ndarray, step: int) -> list[int]:
    """Of increasing times those nearest to whole steps after the first; steps with none within half a step have none.

    Only steps beside a time are looked at: a clock that is set forward by years costs nothing.
    """
    first, last = int(times[0]), int(times[-1])
    beside = {first + (k + after) * step for k in np.unique((times - first) // step).tolist() for after in (0, 1)}
    nearest = {i for at in beside if at <= last and (i := nearest_of(times, at, step // 2)) is not None}
    return times[sorted(nearest)].tolist()


def nearest_of(times: np.ndarray, time: int, tolerance: int) -> int | None:
    """Index of the time nearest to `time`, the earlier of two; None where it is further away than `tolerance` ns."""
    if not len(times):
        return None
    i = int(np.searchsorted(times, time))
    candidates = [k for k in (i - 1, i) if 0 <= k < len(times)]
    best = min(candidates, key=lambda k: abs(int(times[k]) - time))
    return best if abs(int(times[best]) - time) <= tolerance else None
