"""Time per frame, from the caller's arrays to boxes."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from imkd_edge.bench.machine import environment, usable_cores
from imkd_edge.bench.memory import Usage, per_frame
from imkd_edge.bench.telemetry import Telemetry
from imkd_edge.bundle import Bundle
from imkd_edge.bundle.format import bundle_name
from imkd_edge.detector import Detector
from imkd_edge.errors import Code, Error
from imkd_edge.sources.base import Sample
from imkd_edge.sources.select import select

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
FRAMES = 6636  # queries of MLPerf Automotive's single stream
STAGE_FRAMES = 300  # of the pass that times the stages
LOADED = 16  # different frames held in memory; reading a recording is not what is measured
NETWORKS = ("camera", "bev")
Track = Callable[[range], Iterable[int]]


def bench(
    bundle: str,
    source: str = "synth",
    frames: int = FRAMES,
    warmup: int = 20,
    rate: float | None = None,
    threads: int = 0,
    device: str = "auto",
    engine: str = "auto",
    options: Mapping[str, Any] | None = None,
    track: Track | None = None,
) -> dict[str, Any]:
    """Times calls of Detector.infer on the first frames of a source, which are loaded beforehand and repeated.

    Args:
        bundle: folder or shipped name.
        source: anything that open_source understands.
        frames, warmup: how many calls are timed, and how many go before them.
        rate: frames/s that the sensors deliver. A frame's time then runs from the moment when it is due, so one that had to wait for the
            last one is late as well; its deadline is when the next one is due. None: each frame follows the last one.
        threads, device, engine: of the Detector.
        options: of the source's reader.
        track: wraps the timed indices, for a progress bar.

    Returns:
        "total_ms": wall-clock percentiles around the Python call, so with every copy and check; "jitter_ms": mean difference between one
        frame and the next; "deadline": with a rate; "stages_ms": the same percentiles per stage, of a pass of its own;
        "share_outside_networks": median over its frames of 1 - (camera + bev) / total; "memory": growth of the heap in use and pages
        first touched, per frame, the telemetry's and the progress bar's among them; not a count of allocations, which
        tests/cpp/test_allocations.cpp holds at none for the core; "throttling": see `Throttling.summary`; "telemetry" and
        "energy_mj_per_frame": what the system tells; "environment": versions and power mode;
        "series": every frame's time in ms, and when it was done in s.

    Raises:
        Error: spec_bad_value for a rate that is not positive and finite; what the source and the Detector raise.
    """
    if rate is not None and not 0 < rate < np.inf:
        raise Error(Code.spec_bad_value, f"a rate of {rate} frames/s", "--rate", "give a finite one above 0")
    chosen = select(source, options=options)
    samples = [chosen.source[name] for name in chosen.names[:LOADED]]
    loaded = Bundle.load(bundle)
    feed = itertools.cycle(samples)
    settings: dict[str, Any] = {"device": device, "engine": engine, "threads": threads}
    with Detector(loaded, samples[0].rig, **settings) as detector:
        for _ in range(warmup):
            detector.infer_sample(next(feed))
        gc.collect()
        with Telemetry() as telemetry:
            series, memory = _timed(detector, feed, frames, rate, track)
        seconds = series["at_s"][-1]
        stages = None if detector.device == "cuda" else _stages(detector, feed, min(frames, STAGE_FRAMES))
    if stages is None:
        with Detector(loaded, samples[0].rig, **settings, stage_times=True) as instrumented:
            stages = _stages(instrumented, feed, min(frames, STAGE_FRAMES))
    totals, found = series["total_ms"], telemetry.summary()
    return {
        "bundle": bundle_name(bundle),
        "source": source,
        "frames": frames,
        "warmup": warmup,
        "device": detector.device,
        "engine": detector.engine,
        "threads": threads or usable_cores(),
        "total_ms": percentiles(totals),
        "jitter_ms": float(np.abs(np.diff(totals)).mean()) if frames > 1 else 0.0,
        "fps": frames / seconds,
        "deadline": None if rate is None else _deadline(totals, rate),
        **stages,
        "energy_mj_per_frame": 1000 * found["power_w"]["mean"] * seconds / frames if "power_w" in found else None,
        "memory": memory,
        "throttling": telemetry.throttling(),
        "telemetry": found,
        "environment": {**environment(), "power mode": telemetry.power_mode()},
        "series": series,
    }


def _timed(
    detector: Detector, feed: Iterator[Sample], frames: int, rate: float | None, track: Track | None
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Each frame's time, and what memory the frames took."""
    totals, ends = np.full(
        (2, frames), np.nan
    )  # all there and touched before the first frame, so that no growth is ours
    before = Usage.now()
    begin = time.perf_counter()
    for i in track(range(frames)) if track else range(frames):
        sample = next(feed)
        detector.prepare(sample)
        times = sample.camera_timestamps_ns or None
        due = time.perf_counter() if rate is None else _wait(begin + i / rate)
        detector.infer(sample.frames, sample.radar, sample.ego, sample.timestamp_ns, times)
        end = time.perf_counter()
        totals[i], ends[i] = 1000 * (end - due), end - begin
    memory = per_frame(before, Usage.now(), frames)
    return {"total_ms": totals.tolist(), "at_s": ends.tolist()}, memory


def _wait(due: float) -> float:
    while (left := due - time.perf_counter()) > 0:
        time.sleep(left)
    return due


def _deadline(totals: list[float], rate: float) -> dict[str, Any]:
    missed = sum(total > 1000 / rate for total in totals)
    return {"rate": rate, "deadline_ms": 1000 / rate, "missed": missed, "share": missed / len(totals)}


def _stages(detector: Detector, feed: Iterator[Sample], frames: int) -> dict[str, Any]:
    """A pass for the stages alone: timing them costs a GPU something."""
    totals, results = [], []
    for _ in range(frames):
        sample = next(feed)
        detector.prepare(sample)
        started = time.perf_counter()
        results.append(
            detector.infer(
                sample.frames, sample.radar, sample.ego, sample.timestamp_ns, sample.camera_timestamps_ns or None
            )
        )
        totals.append(1e6 * (time.perf_counter() - started))
    stages = {name: [result.timings_us[name] / 1000 for result in results] for name in results[0].timings_us}
    outside = [
        1 - sum(result.timings_us[name] for name in NETWORKS) / total
        for result, total in zip(results, totals, strict=True)
    ]
    return {
        "stages_ms": {name: percentiles(values) for name, values in stages.items()},
        "stage_frames": frames,
        "share_outside_networks": float(np.median(outside)),
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p90, p99, p99.9, max: each an observed value, not an interpolated one."""
    return {name: float(np.percentile(values, q, method="higher")) for name, q in PERCENTILES.items()}
