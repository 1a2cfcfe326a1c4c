"""Replays samples as live sensors deliver them: item by item, at the sensors' pace or as fast as possible."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np

from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.live import LiveFrame, Synchronizer
from imkd_edge.options import LiveOptions
from imkd_edge.rig import SensorRig
from imkd_edge.sources.base import Sample
from imkd_edge.spec import ModelSpec

READ_AHEAD = 4  # samples in memory before their time
POLL = 0.01  # s between looks at frames that wait for a missing item
_LONGEST_PAUSE_NS = 5_000_000_000  # of a recording, or of its clock when it is set; the clock jumps over a longer one
_TIMEOUT_NS = 500_000_000  # more than a frame waits for missing items, less than it is stored


@dataclass
class Counts:
    """What a replay did so far."""

    items: Counter[str] = field(default_factory=Counter)  # Synchronizer.counts(), summed over scenes
    skipped: int = 0  # frames that a newer one replaced, because the caller was still busy
    stalled_s: float = 0.0  # the clock stood still because the source was slower than the sensors


class Replay:
    """Yields a sample for every frame that a Synchronizer assembles of the items of other samples.

    Args:
        samples: in time order within a scene.
        spec: of the model that the frames are for.
        real_time: at the pace of the timestamps, where only the newest frame is handed out; else every frame, at once.
        clock: returns ns, for the pace.
        tolerance: s between a frame and an image that belongs to it.

    Raises:
        Error: of the source, when the frames before the fault are handed out.
    """

    def __init__(
        self,
        samples: Iterable[Sample],
        spec: ModelSpec,
        real_time: bool,
        clock: Callable[[], int] = time.monotonic_ns,
        tolerance: float = LiveOptions.tolerance,
    ) -> None:
        self.counts = Counts()
        self._samples, self._spec, self._real_time, self._clock = samples, spec, real_time, clock
        self._tolerance = tolerance
        self._offset_ns = 0  # time of the recording minus the clock's

    def now_ns(self) -> int:
        """Time of the recording at this moment; in real time only."""
        return self._clock() + self._offset_ns

    def __iter__(self) -> Iterator[Sample]:
        return self._paced() if self._real_time else self._unpaced()

    def _unpaced(self) -> Iterator[Sample]:
        for assembly, samples in self._assemblies():
            for sample in samples:
                for item in assembly.new_items(sample):
                    assembly.push(item, item.timestamp_ns)
                    yield from assembly.frames(item.timestamp_ns)
            yield from assembly.frames(assembly.end_ns)
            self.counts.items.update(assembly.counts())

    def _paced(self) -> Iterator[Sample]:
        delivery = _Delivery()
        thread = threading.Thread(target=self._deliver, args=(delivery,), name="imkd-replay", daemon=True)
        thread.start()
        try:
            while (assembly := delivery.current()) is not None:
                # The order matters: what was pushed before `ended` was set is in the frames that follow.
                ended = assembly.ended.is_set()
                now_ns = assembly.end_ns if ended else self.now_ns()
                frames = list(assembly.frames(now_ns))
                if frames:
                    self.counts.skipped += len(frames) - 1
                    yield frames[-1]
                elif ended:
                    self.counts.items.update(assembly.counts())
                    delivery.discard()
                else:
                    delivery.wait()
        finally:
            delivery.stop.set()
            thread.join()
        if delivery.fault is not None:
            raise delivery.fault

    def _deliver(self, delivery: _Delivery) -> None:
        """Pushes every item at its time; runs in its own thread."""
        try:
            scene = None
            for assembly, samples in self._assemblies():
                delivery.add(assembly)
                for sample in samples:
                    items = assembly.new_items(sample)
                    paused = sample.scene == scene and self._pauses_before(items)
                    if paused and delivery.stop.wait(_TIMEOUT_NS / 1e9):  # the frames before are handed out first
                        return
                    self._keep_pace(items, paused or sample.scene != scene)
                    scene = sample.scene
                    for item in items:
                        if delivery.stop.wait(max(0.0, (item.timestamp_ns - self.now_ns()) / 1e9)):
                            return
                        assembly.push(item, self.now_ns())
                        delivery.wake.set()
                assembly.ended.set()
        except BaseException as fault:  # raised again where the frames are taken
            delivery.fault = fault
        finally:
            delivery.finish()

    def _pauses_before(self, items: list[Item]) -> bool:
        return bool(items) and items[0].timestamp_ns - self.now_ns() > _LONGEST_PAUSE_NS

    def _keep_pace(self, items: list[Item], is_first: bool) -> None:
        """Sets the clock for the first items of a scene or after a pause, and stops it where the source is too slow."""
        if not items:
            return
        lag_ns = self.now_ns() - items[0].timestamp_ns
        if is_first or lag_ns > 0:
            self._offset_ns -= lag_ns
            self.counts.stalled_s += 0 if is_first else lag_ns / 1e9

    def _assemblies(self) -> Iterator[tuple[_Assembly, Iterator[Sample]]]:
        """An assembly for every run of samples of one scene and one rig, with these samples."""

        for (scene, rig), samples in groupby(_read_ahead(self._samples), lambda sample: (sample.scene, sample.rig)):
            yield _Assembly(scene, rig, Synchronizer(rig, self._spec, tolerance=self._tolerance)), samples


@dataclass(frozen=True)
class Item:
    """One measurement of one sensor, or the ego motion."""

    timestamp_ns: int
    sensor: str
    push: Callable[[Synchronizer, int], str]


class _Assembly:
    """The Synchronizer of one scene, and what its frames need besides their items."""

    def __init__(self, scene: str, rig: SensorRig, synchronizer: Synchronizer) -> None:
        self._scene, self._rig, self._synchronizer = scene, rig, synchronizer
        self._reference = [*rig.cameras, *rig.radars][0].name
        self._samples: dict[int, Sample] = {}  # by the time of their reference items
        self._newest: dict[str, int] = {}  # time of each sensor's newest item
        self.newest_ns = 0
        self.ended = threading.Event()

    def new_items(self, sample: Sample) -> list[Item]:
        """The items that no earlier sample had, in time order: samples repeat the sweeps of those before them."""
        items = [item for item in _items(sample) if item.timestamp_ns > self._newest.get(item.sensor, -1)]
        for item in items:
            self._newest[item.sensor] = max(item.timestamp_ns, self._newest.get(item.sensor, item.timestamp_ns))
            if item.sensor == self._reference:
                self._samples[item.timestamp_ns] = sample
        # At one time the reference comes last: its frame may be ready at once, and has all that was measured by then.
        return sorted(items, key=lambda item: (item.timestamp_ns, item.sensor == self._reference))

    @property
    def end_ns(self) -> int:
        """When no frame waits any longer for an item."""
        return self.newest_ns + _TIMEOUT_NS

    def push(self, item: Item, now_ns: int) -> None:
        self.newest_ns = max(self.newest_ns, item.timestamp_ns)
        item.push(self._synchronizer, now_ns)

    def frames(self, now_ns: int) -> Iterator[Sample]:
        """The frames that are ready, as samples."""
        while (frame := self._synchronizer.pop(now_ns)) is not None:
            yield self._sample(frame)

    def counts(self) -> dict[str, int]:
        return self._synchronizer.counts()

    def _sample(self, frame: LiveFrame) -> Sample:
        """A frame under the name of the sample whose reference item it has; the truth only if it is of that time."""
        for older in [time_ns for time_ns in self._samples if time_ns < frame.timestamp_ns]:
            del self._samples[older]
        origin = self._samples.get(frame.timestamp_ns)
        return Sample(
            name=str(frame.timestamp_ns) if origin is None else origin.name,
            timestamp_ns=frame.timestamp_ns,
            rig=self._rig,
            frames=frame.frames,
            radar=frame.radar,
            ego=frame.ego,
            truth=origin.truth if origin is not None and origin.timestamp_ns == frame.timestamp_ns else None,
            camera_timestamps_ns=frame.camera_timestamps_ns,
            scene=self._scene,
            camera_T_world_ego=frame.camera_T_world_ego,
        )


class _Delivery:
    """What the thread that pushes and the one that takes frames share."""

    def __init__(self) -> None:
        self.wake, self.stop = threading.Event(), threading.Event()
        self.fault: BaseException | None = None
        self._assemblies: deque[_Assembly] = deque()
        self._finished = False

    def add(self, assembly: _Assembly) -> None:
        self._assemblies.append(assembly)
        self.wake.set()

    def discard(self) -> None:
        self._assemblies.popleft()

    def finish(self) -> None:
        for assembly in self._assemblies:
            assembly.ended.set()
        self._finished = True
        self.wake.set()

    def current(self) -> _Assembly | None:
        """The oldest assembly; waits for one, and returns None where none will come."""
        while not self._assemblies:
            if self._finished and not self._assemblies:
                return None
            self.wait()
        return self._assemblies[0]

    def wait(self) -> None:
        """Waits for an item, or a while: a frame may be ready because its time has run out."""
        self.wake.wait(POLL)
        self.wake.clear()


def _items(sample: Sample) -> list[Item]:
    """Everything that a sample holds as items; a sweep or image without a time has the sample's."""
    items = []
    if sample.ego is not None:
        items.append(_ego_item(sample.ego, sample.timestamp_ns, "ego"))
    for camera, image in sample.frames.items():
        time_ns = sample.camera_timestamps_ns.get(camera, sample.timestamp_ns)
        items.append(_camera_item(camera, image, time_ns))
        if camera in sample.camera_T_world_ego:
            pose = Ego(T_world_ego=sample.camera_T_world_ego[camera])
            items.append(_ego_item(pose, time_ns, f"ego at {camera}"))
    for sweep in sample.radar:
        time_ns = sample.timestamp_ns if sweep.timestamp_ns is None else sweep.timestamp_ns
        items.append(_radar_item(replace(sweep, timestamp_ns=time_ns), time_ns))
    return items


def _ego_item(ego: Ego, time_ns: int, sensor: str) -> Item:
    return Item(time_ns, sensor, lambda synchronizer, now_ns: synchronizer.push_ego(ego, time_ns, now_ns))


def _camera_item(camera: str, image: np.ndarray, time_ns: int) -> Item:
    return Item(time_ns, camera, lambda synchronizer, now_ns: synchronizer.push_camera(camera, image, time_ns, now_ns))


def _radar_item(sweep: RadarSweep, time_ns: int) -> Item:
    return Item(time_ns, sweep.radar, lambda synchronizer, now_ns: synchronizer.push_radar(sweep, now_ns))


def _read_ahead(samples: Iterable[Sample]) -> Iterator[Sample]:
    """The samples, the next ones of which are read meanwhile in another thread."""
    source = iter(samples)
    reader = ThreadPoolExecutor(1, "imkd-replay-read")
    try:
        pending = deque(reader.submit(next, source, None) for _ in range(READ_AHEAD))
        while (sample := pending.popleft().result()) is not None:
            pending.append(reader.submit(next, source, None))
            yield sample
    finally:
        reader.shutdown(cancel_futures=True)
