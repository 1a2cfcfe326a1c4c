"""2,000 frames through Synchronizer and Detector, a fault every 50: no crash, no leak, recovery within two frames."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from helpers import random_spec, write_random_bundle
from imkd_edge import CameraCalibration, Detector, Ego, Monitor, RadarCalibration, RadarSweep, SensorRig, Synchronizer

MS = 1_000_000
PERIOD, EVERY, LENGTH = 50, 50, 25  # ms between frames, frames between faults, frames of one fault
LOOK_AHEAD = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]], np.float64)
HALF_TURN = np.diag([-1.0, -1, 1, 1])
K = np.array([[130.0, 0, 80], [0, 130, 45], [0, 0, 1]])


def rig() -> SensorRig:
    poses = {"A": LOOK_AHEAD, "B": HALF_TURN @ LOOK_AHEAD}
    return SensorRig(
        cameras=[CameraCalibration(name=name, width=160, height=90, K=K, T_ego_camera=T) for name, T in poses.items()],
        radars=[RadarCalibration(name=name, T_ego_radar=T) for name, T in {"R": np.eye(4), "S": HALF_TURN}.items()],
    )


@dataclass(frozen=True)
class Item:
    sensor: str  # A, B, R, S or ego
    time: int  # ms
    arrival: int  # ms
    value: np.ndarray  # image, points or pose


def pose(time: int, start: float = 0) -> np.ndarray:
    T = np.eye(4)
    T[0, 3] = start + 0.01 * time  # 10 m/s
    return T


def tick(time: int, random: np.random.Generator) -> list[Item]:
    """The items of all sensors during one period."""
    items = [Item("ego", t, t + 1, pose(t)) for t in range(time, time + PERIOD, 10)]
    for sensor, lag in (("A", 4), ("B", 9), ("R", 12), ("S", 2)):
        if sensor in "AB":
            value = random.integers(0, 256, (90, 160, 3), np.uint8)
        else:
            value = random.uniform([1, -30, -1, -10, -8], [50, 30, 2, 30, 8], (100, 5)).astype(np.float32)
        items.append(Item(sensor, time + int(random.integers(0, 5)), time + 5 + lag, value))
    return items


def without(*sensors: str) -> Callable[[list[Item]], list[Item]]:
    return lambda items: [item for item in items if item.sensor not in sensors]


def shifted(sensor: str, by: int, late: int = 0) -> Callable[[list[Item]], list[Item]]:
    return lambda items: [
        replace(i, time=i.time + by, arrival=i.arrival + late) if i.sensor == sensor else i for i in items
    ]


def mapped(sensor: str, value: Callable[[np.ndarray], np.ndarray]) -> Callable[[list[Item]], list[Item]]:
    return lambda items: [replace(i, value=value(i.value)) if i.sensor == sensor else i for i in items]


FAULTS: dict[str, Callable[[list[Item]], list[Item]]] = {
    "no reference camera": without("A"),
    "no camera": without("A", "B"),
    "no radar": without("R", "S"),
    "nothing but ego motion": without("A", "B", "R", "S"),
    "nothing": lambda items: [],
    "no ego motion": without("ego"),
    "camera of a day ago": shifted("B", -86_400_000),
    "reference of tomorrow": shifted("A", 86_400_000),
    "radar's clock a little off": shifted("R", -70),
    "reference delayed": shifted("A", 0, late=120),
    "camera delayed beyond use": shifted("B", 0, late=700),
    "everything five times": lambda items: items * 5,
    "the other way round": lambda items: [replace(i, arrival=items[-1].arrival + 20 - k) for k, i in enumerate(items)],
    "frozen camera": mapped("A", np.zeros_like),
    "radar of NaN": mapped("R", lambda points: np.full_like(points, np.nan)),
    "empty sweeps": mapped("S", lambda points: points[:0]),
    "ten thousand points": mapped("S", lambda points: np.tile(points, (100, 1))),
    "pose of NaN": mapped("ego", lambda T: np.full((4, 4), np.nan)),
    "pose elsewhere": mapped("ego", lambda T: T + np.outer([1e6, 0, 0, 0], [0, 0, 0, 1])),
    "clock set back": lambda items: items,  # the jump is that of the whole bench, see JUMPS
    "clock set ahead": lambda items: items,
}
JUMPS = {"clock set back": -5000, "clock set ahead": 3000}


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


class SoakBench:
    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.sync, self.monitor = Synchronizer(rig(), detector.spec), Monitor(rig(), detector.spec)
        self.shift, self.queue = 0, []  # ms; items in transit

    def push(self, item: Item) -> None:
        time, now = (item.time + self.shift) * MS, (item.arrival + self.shift) * MS
        if item.sensor == "ego":
            self.sync.push_ego(Ego(item.value), time, now)
        elif item.sensor in "AB":
            self.sync.push_camera(item.sensor, item.value, time, now)
            self.monitor.observe_camera(item.sensor, item.value, time, now)
        else:
            self.sync.push_radar(RadarSweep(item.sensor, item.value, time), now)
            self.monitor.observe_radar(RadarSweep(item.sensor, item.value, time), now)

    def step(self, items: list[Item], until: int):
        """Push everything that arrives until then; yield (frame, result) of every frame that becomes ready."""
        self.queue = sorted(self.queue + items, key=lambda item: item.arrival)
        while self.queue and self.queue[0].arrival <= until:
            self.push(self.queue.pop(0))
        while (frame := self.sync.pop((until + self.shift) * MS)) is not None:
            inputs = frame.frames, frame.radar, frame.ego, frame.timestamp_ns, frame.camera_timestamps_ns
            yield frame, self.detector.infer(*inputs)


def test_two_thousand_frames_with_a_fault_every_fifty(tmp_path: Path) -> None:
    random, faults = np.random.default_rng(0), list(FAULTS)
    bundle = write_random_bundle(tmp_path / "two.imkd", random_spec(cameras=2))
    frames, slow_to_recover, modes, memory = 0, [], Counter(), {}
    with Detector(bundle, rig(), threads=1) as detector:
        bench, index, since = SoakBench(detector), 0, 0
        while frames < 2000:
            name, phase = faults[index // EVERY % len(faults)], index % EVERY
            if phase == 0:
                bench.shift += JUMPS.get(name, 0)
            items = tick(index * PERIOD, random)
            for frame, result in bench.step(FAULTS[name](items) if phase < LENGTH else items, (index + 1) * PERIOD):
                frames, since = frames + 1, since + 1
                modes[result.health.mode] += 1
                assert np.isfinite(result.boxes).all() and result.timestamp_ns == frame.timestamp_ns
                full = frame.complete and result.health.mode == "full"
                recovered = full and frame.ego is not None and len(result.boxes) > 0
                if phase >= LENGTH and since > 2 and not recovered:
                    slow_to_recover.append((name, since, frame.complete, result.health))
            if phase >= LENGTH + 2:
                health = bench.monitor.check(((index + 1) * PERIOD + bench.shift) * MS)
                assert set(health.sensors.values()) == {"ok"}, (name, phase, health.sensors)
            since = 0 if phase < LENGTH else since
            index += 1
            if frames in (500, 1999):
                gc.collect()
                memory.setdefault(frames, resident_mb())
    assert not slow_to_recover
    assert modes["full"] > 1000 and {"partial", "camera_only", "radar_only"} <= set(modes)
    assert memory[1999] - memory[500] < 10, memory  # MB; a leak of one image per frame would be 62 MB
    counts = bench.sync.counts()
    assert all(counts[kind] > 0 for kind in ("late", "duplicate", "future", "invalid", "incomplete", "restarts"))
