"""Faults of sensors on a drive: what each sensor delivers and when, how it goes wrong, and the frames that follow."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
from cuda_budget import load

import imkd_edge.detector
from imkd_edge import Detector, Ego, Error, ModelSpec, RadarSweep, Result, SensorRig, Synchronizer, _core
from imkd_edge.live import LiveFrame
from imkd_edge.sources.base import Sample
from imkd_edge.sources.synth import SynthSource

MS, SECOND = 1_000_000, 1_000_000_000
EGO = "ego"
LAG = {"reference": 20 * MS, "camera": 14 * MS, "radar": 10 * MS, EGO: 5 * MS}  # from a measurement to its arrival
LATE = 450 * MS  # a frame waits 0.1 s for a radar, whose newest sweep is late from 0.3 s on
SHIFT = 5 * SECOND


@dataclass(frozen=True)
class Item:
    """What one sensor delivers at once; of EGO the value is an Ego, else an image or points."""

    sensor: str
    time: int  # ns
    arrival: int  # ns
    value: Any


@dataclass(frozen=True)
class Stretch:
    """The time during which a sensor is at fault."""

    sensor: str
    begin: int  # ns
    end: int  # ns

    def has(self, time: int) -> bool:
        return self.begin <= time < self.end


class FaultDrive:
    """A synthetic drive at 10 Hz, as items and as the frames that a Synchronizer makes of them without a fault.

    Args:
        spec: of the model.
        frames: number of frames.
        rig: the sensors.
    """

    PERIOD = SECOND // 10

    def __init__(self, spec: ModelSpec, frames: int, rig: SensorRig) -> None:
        self.spec, self.rig = spec, rig
        self.reference = rig.cameras[0].name
        source = SynthSource(seed=5, scenes=1, frames_per_scene=frames, rate_hz=10, sweeps=3, rig=rig, speed=9.0)
        self.items = list(self._items(source[name] for name in source.names))
        self.frames = [frame for frame, _ in self.live(self.items)]

    def kind(self, sensor: str) -> str:
        """reference, camera, radar or ego."""
        if sensor in (EGO, self.reference):
            return EGO if sensor == EGO else "reference"
        return "camera" if self.rig.camera_index(sensor) >= 0 else "radar"

    def sensors(self) -> list[str]:
        return [*(sensor.name for sensor in [*self.rig.cameras, *self.rig.radars]), EGO]

    def _item(self, sensor: str, time: int, value: Any) -> Item:
        return Item(sensor, time, time + LAG[self.kind(sensor)], value)

    def _items(self, samples: Iterator[Sample]) -> Iterator[Item]:
        newest: dict[str, int] = {}
        for sample in samples:
            yield self._item(EGO, sample.timestamp_ns, sample.ego)
            for camera, image in sample.frames.items():
                yield self._item(camera, sample.timestamp_ns, image)
            for sweep in sorted(sample.radar, key=lambda sweep: sweep.timestamp_ns):
                if sweep.timestamp_ns > newest.get(sweep.radar, 0):
                    newest[sweep.radar] = sweep.timestamp_ns
                    yield self._item(sweep.radar, sweep.timestamp_ns, sweep.points)

    def live(self, items: list[Item]) -> Iterator[tuple[LiveFrame, str]]:
        """Pushes the items as they arrive; yields each frame, and the code of an error that a push before it raised."""
        sync, code = Synchronizer(self.rig, self.spec), ""
        for item in sorted(items, key=lambda item: item.arrival):
            try:
                self._push(sync, item)
            except Error as error:
                code = error.code
            while (frame := sync.pop(item.arrival)) is not None:
                yield frame, code
        while (frame := sync.pop(max(item.arrival for item in items) + SECOND)) is not None:
            yield frame, code

    def _push(self, sync: Synchronizer, item: Item) -> None:
        if item.sensor == EGO:
            sync.push_ego(item.value, item.time, item.arrival)
        elif self.rig.camera_index(item.sensor) >= 0:
            sync.push_camera(item.sensor, item.value, item.time, item.arrival)
        else:
            sync.push_radar(RadarSweep(item.sensor, item.value, item.time), item.arrival)


# ---- faults of time: the items, on their way to a Synchronizer ----
def late(items: list[Item]) -> list[Item]:
    return [replace(item, arrival=item.arrival + LATE) for item in items]


def shifted(items: list[Item]) -> list[Item]:
    return [replace(item, time=item.time + SHIFT) for item in items]


def doubled(items: list[Item]) -> list[Item]:
    return [item for item in items for _ in range(2)]


def out_of_order(items: list[Item]) -> list[Item]:
    """Of two that follow each other, the first arrives just after the second."""
    return [
        replace(item, arrival=items[i + 1].arrival + 1) if i % 2 == 0 and i + 1 < len(items) else item
        for i, item in enumerate(items)
    ]


TIME_FAULTS: dict[str, Callable[[list[Item]], list[Item]]] = {
    "late": late,
    "shifted clock": shifted,
    "doubled": doubled,
    "out of order": out_of_order,
}


def with_time_fault(items: list[Item], fault: str, stretch: Stretch) -> list[Item]:
    at_fault = [item for item in items if item.sensor == stretch.sensor and stretch.has(item.time)]
    others = [item for item in items if not (item.sensor == stretch.sensor and stretch.has(item.time))]
    return others + TIME_FAULTS[fault](at_fault)


# ---- faults of content: what a frame holds. Each takes the value, the first value of the stretch, and a generator ----
ABSENT = object()
Change = Callable[[Any, Any, np.random.Generator], Any]


def noise(value: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Random bytes in place of the value's."""
    return np.frombuffer(random.bytes(value.nbytes), value.dtype).reshape(value.shape)


def overexposed(image: np.ndarray, first: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """White, but for a hundredth of the pixels."""
    kept = random.random(image.shape[:2]) < 0.01
    return np.where(kept[..., None], image, np.uint8(255))


IMAGE_FAULTS: dict[str, Change] = {
    "absent": lambda image, first, random: ABSENT,
    "frozen": lambda image, first, random: first,
    "garbage": lambda image, first, random: noise(image, random),
    "empty": lambda image, first, random: image[:0],
    "wrong size": lambda image, first, random: np.ascontiguousarray(image[::2, ::2]),
    "NaN": lambda image, first, random: np.full(image.shape, np.nan, np.float32),
    "saturated": overexposed,
}
POINT_FAULTS: dict[str, Change] = {
    "absent": lambda points, first, random: ABSENT,
    "frozen": lambda points, first, random: first,
    "garbage": lambda points, first, random: noise(points, random),
    "empty": lambda points, first, random: points[:0],
    "wrong size": lambda points, first, random: np.ascontiguousarray(points[:, :4]),
    "NaN": lambda points, first, random: np.full_like(points, np.nan),
    # every intensity and velocity at the end of what a byte in half dB and steps of 0.25 m/s holds
    "saturated": lambda points, first, random: (
        points * np.float32([1, 1, 1, 0, 0]) + np.float32([0, 0, 0, 63.5, 31.75])
    ),
}
EGO_FAULTS: dict[str, Change] = {
    "absent": lambda ego, first, random: None,
    "frozen": lambda ego, first, random: first,
    "garbage": lambda ego, first, random: Ego(random.normal(0, 1e4, (4, 4)), random.normal(0, 1e4, 3)),
    "empty": lambda ego, first, random: Ego(),
    "wrong size": lambda ego, first, random: Ego(np.eye(3), ego.twist),
    "NaN": lambda ego, first, random: Ego(np.full((4, 4), np.nan), np.full(3, np.nan)),
    "saturated": lambda ego, first, random: Ego(ego.T_world_ego, (655.35, 0.0, 0.0)),  # a CAN signal of 0xFFFF cm/s
}
CONTENT_FAULTS = {"reference": IMAGE_FAULTS, "camera": IMAGE_FAULTS, "radar": POINT_FAULTS, EGO: EGO_FAULTS}
FAULTS = ("absent", "late", "frozen", "garbage", "empty", "wrong size", "NaN", "saturated", *list(TIME_FAULTS)[1:])


def with_content_fault(drive: FaultDrive, fault: str, stretch: Stretch) -> Iterator[LiveFrame]:
    """The drive's frames, in which what the sensor measured during the stretch is at fault."""
    change, random = CONTENT_FAULTS[drive.kind(stretch.sensor)][fault], np.random.default_rng(7)
    faulty: dict[int, Any] = {}  # by time: a sweep is in several frames

    def changed(time: int, value: Any) -> Any:
        if not stretch.has(time):
            return value
        first = faulty.setdefault(-1, value)
        if time not in faulty:
            faulty[time] = change(value, first, random)
        return faulty[time]

    for frame in drive.frames:
        yield (
            _ego_changed(frame, changed, stretch) if stretch.sensor == EGO else _sensor_changed(frame, changed, stretch)
        )


def _sensor_changed(frame: LiveFrame, changed: Callable[[int, Any], Any], stretch: Stretch) -> LiveFrame:
    images = {
        name: changed(frame.camera_timestamps_ns[name], image) if name == stretch.sensor else image
        for name, image in frame.frames.items()
    }
    sweeps = [
        replace(sweep, points=changed(sweep.timestamp_ns, sweep.points)) if sweep.radar == stretch.sensor else sweep
        for sweep in sorted(frame.radar, key=lambda sweep: sweep.timestamp_ns)
    ]
    return replace(
        frame,
        frames={name: image for name, image in images.items() if image is not ABSENT},
        radar=[sweep for sweep in sweeps if sweep.points is not ABSENT],
    )


def _ego_changed(frame: LiveFrame, changed: Callable[[int, Any], Any], stretch: Stretch) -> LiveFrame:
    """The frame's ego motion at fault; a pose of an image or sweep, if it is still one, is that of the fault too."""
    ego = changed(frame.timestamp_ns, frame.ego)  # first: it may be the value at which the others freeze

    def pose(time: int, T: np.ndarray | None) -> np.ndarray | None:
        if T is None or not stretch.has(time):
            return T
        T = getattr(changed(time, Ego(T, frame.ego.twist)), "T_world_ego", None)
        return T if T is not None and T.shape == (4, 4) and np.array_equal(T[3], [0, 0, 0, 1]) else None

    poses = {name: pose(frame.camera_timestamps_ns[name], T) for name, T in frame.camera_T_world_ego.items()}
    radar = [replace(sweep, T_world_ego=pose(sweep.timestamp_ns, sweep.T_world_ego)) for sweep in frame.radar]
    return replace(frame, ego=ego, camera_T_world_ego=poses, radar=radar)


# ---- frames through a detector ----
def open_detector(bundle: Any, rig: SensorRig, device: str) -> Detector | None:
    """A detector; on device "cuda" with kernels that run on the CPU, None where they are not built."""
    if device == "cpu":
        return Detector(bundle, rig, "cpu", threads=1)
    cuda = load("cuda_on_host")
    if cuda is None:
        return None
    with (
        mock.patch.object(_core, "load_for_device", cuda.load_for_device),
        mock.patch.object(imkd_edge.detector, "_core", cuda),
    ):
        return Detector(bundle, rig, "cuda", "onnxruntime", threads=1)


def infer(detector: Detector, frame: LiveFrame, sensor: str) -> tuple[Result, str]:
    """The result, and the code of the error that the frame raised; it is then given again without what raised."""
    try:
        return _infer(detector, frame), ""
    except Error as error:
        frames = {name: image for name, image in frame.frames.items() if name != sensor}
        radar = [sweep for sweep in frame.radar if sweep.points.shape[1:] == (5,)]
        ego = None if sensor == EGO else frame.ego
        return _infer(detector, replace(frame, frames=frames, radar=radar, ego=ego)), error.code


def _infer(detector: Detector, frame: LiveFrame) -> Result:
    times, poses = frame.camera_timestamps_ns, frame.camera_T_world_ego
    return detector.infer(frame.frames, frame.radar, frame.ego, frame.timestamp_ns, times, poses)


def equal(a: Result, b: Result) -> bool:
    """To the bit, health too."""
    arrays = itertools.starmap(np.array_equal, [(a.boxes[:, :7], b.boxes[:, :7]), (a.scores, b.scores)])
    return all(arrays) and np.array_equal(a.labels, b.labels) and a.health == b.health
