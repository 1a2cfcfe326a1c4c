"""The frame loop: samples in, results into files; counts and times for a status line."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from imkd_edge.detector import Detector
from imkd_edge.errors import Code, Error
from imkd_edge.options import LiveOptions
from imkd_edge.result import Result
from imkd_edge.rig import SensorRig
from imkd_edge.run.replay import Replay
from imkd_edge.run.sink import Sink
from imkd_edge.sources.base import Sample
from imkd_edge.tracking import Tracker

WINDOW = 10_000  # frames whose times the percentiles are of


@dataclass
class Status:
    """What a loop did so far."""

    frames: int = 0
    skipped: int = 0  # frames that a newer one replaced, because the loop was still busy
    modes: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)  # frames by code
    faults: Counter[str] = field(default_factory=Counter)  # frames by sensor and its state, where that is not ok
    detections: int = 0
    tracks: int | None = None  # confirmed or coasting objects in the last frame; None: not tracked
    stalled_s: float = 0.0  # the source was slower than the sensors by so much
    undrawn: int = 0  # frames that a picture file left out to keep pace
    infer_ms: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    # From the newest measurement of the frame to its result; in real time only.
    latency_ms: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    started: float = field(default_factory=time.monotonic)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        seconds = time.monotonic() - self.started
        return {
            "frames": self.frames,
            "skipped": self.skipped,
            "undrawn": self.undrawn,
            "seconds": round(seconds, 3),
            "frames_per_s": round(self.frames / max(seconds, 1e-9), 2),
            "infer_ms": percentiles(self.infer_ms),
            "latency_ms": percentiles(self.latency_ms),
            "detections": self.detections,
            **({} if self.tracks is None else {"tracks": self.tracks}),
            "modes": dict(self.modes),
            "warnings": dict(self.warnings),
            "faults": dict(self.faults),
            "stalled_s": round(self.stalled_s, 3),
        }


def percentiles(times: Sequence[float] | deque[float]) -> dict[str, float] | None:
    """The median, the 99th percentile and the maximum; None without a value."""
    if not times:
        return None
    p50, p99, largest = np.percentile(np.asarray(times), [50, 99, 100])
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2), "max": round(float(largest), 2)}


def run(
    detector: Detector,
    samples: Iterable[Sample],
    sinks: Sequence[Sink] = (),
    real_time: bool = False,
    rig: SensorRig | None = None,
    report: Callable[[Status], None] | None = None,
    status: Status | None = None,
    tracker: Tracker | None = None,
    tolerance: float = LiveOptions.tolerance,
) -> Status:
    """Detects objects in a recording as if it were live, through a Synchronizer, and writes the results.

    Args:
        detector: on any rig; it takes the samples' rigs.
        samples: in time order within a scene.
        sinks: opened for writing; they are closed at the end, also after an interrupt or a fault.
        real_time: at the pace of the timestamps; a frame that comes while the loop is busy is skipped for a newer one.
        rig: instead of the samples' rigs.
        report: called after each frame.
        status: to count in, for a caller that reads it after an interrupt.
        tracker: also gives the results their tracks.
        tolerance: s between a frame and an image that belongs to it.

    Raises:
        Error: of the source, the detector, or the sinks (write_failed).
    """
    status = Status() if status is None else status
    if rig is not None:
        samples = (_with_rig(sample, rig) for sample in samples)
    replay = Replay(samples, detector.spec, real_time, tolerance=tolerance)
    with ExitStack() as stack:
        for sink in sinks:
            stack.callback(sink.close)
        for sample in replay:
            result = detector.infer_sample(sample)
            if tracker is not None:
                result = tracker.follow(result, sample.scene)
            if real_time:
                status.latency_ms.append((replay.now_ns() - _newest_ns(sample)) / 1e6)
            for sink in sinks:
                sink.write(sample, result)
            _count(status, result)
            status.skipped, status.stalled_s = replay.counts.skipped, replay.counts.stalled_s
            status.undrawn = sum(sink.dropped for sink in sinks)
            if report is not None:
                report(status)
    return status


def _with_rig(sample: Sample, rig: SensorRig) -> Sample:
    """The sample as seen by another rig: sensors that the rig lacks are left out."""
    names = {sensor.name for sensor in [*rig.cameras, *rig.radars]}
    frames = {name: image for name, image in sample.frames.items() if name in names}
    radar = [sweep for sweep in sample.radar if sweep.radar in names]
    if not frames and not radar and (sample.frames or sample.radar):
        there = ", ".join([*sample.frames, *dict.fromkeys(sweep.radar for sweep in sample.radar)])
        fix = f"use the recording's names in it: {there}"
        raise Error(Code.frame_unknown_sensor, f"the rig has none of the sensors of {sample.name}", "--rig", fix)
    return replace(sample, rig=rig, frames=frames, radar=radar)


def _count(status: Status, result: Result) -> None:
    status.frames += 1
    status.detections += len(result)
    if result.tracks is not None:
        status.tracks = len(result.confirmed_tracks)
    status.modes[result.health.mode] += 1
    status.warnings.update(warning.code for warning in result.health.warnings)
    status.faults.update(f"{name} {state}" for name, state in result.health.sensors.items() if state != "ok")
    status.infer_ms.append(result.total_us / 1000)


def _newest_ns(sample: Sample) -> int:
    """Time of the newest measurement in a sample."""
    sweeps = [sweep.timestamp_ns for sweep in sample.radar if sweep.timestamp_ns is not None]
    return max([*sample.camera_timestamps_ns.values(), *sweeps], default=sample.timestamp_ns)
