"""Measures the time per frame, from the caller's arrays to boxes."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from imkd_edge.bench.machine import environment, usable_cores
from imkd_edge.bench.memory import Usage, per_frame
from imkd_edge.bench.telemetry import Telemetry
from imkd_edge.bundle.format import PARTS, Bundle, bundle_name
from imkd_edge.detector import Detector
from imkd_edge.errors import Code, Error
from imkd_edge.options import BenchOptions, RunOptions
from imkd_edge.progress import Track
from imkd_edge.result import Result
from imkd_edge.sources.base import Sample
from imkd_edge.sources.select import select

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
STAGE_FRAMES = 300  # of the pass that times the stages
DISTINCT_FRAMES = 16  # loaded before the first call, so that reading a recording is not timed


def bench(
    bundle: str,
    source: str,
    options: BenchOptions,
    *,
    run: RunOptions,
    source_options: Mapping[str, Any] | None = None,
    track: Track | None = None,
) -> dict[str, Any]:
    """Times calls of Detector.infer on the first frames of a source, which are loaded beforehand and repeated.

    Args:
        bundle: folder or shipped name.
        source: any source of `open_source`.
        options: frames and warmup: number of timed calls and of calls before them; the default number of frames is that
            of the queries in MLPerf Automotive's single stream. rate: frames/s of the sensors; the time of a frame then
            runs from the moment when it is due, so a frame that waits for its predecessor is late, and its deadline is
            the moment when the next one is due. Without a rate each frame follows its predecessor at once.
        run: device, engine and threads of the Detector.
        source_options: of the source's reader.
        track: wraps the timed indices, for a progress bar.

    Returns:
        "total_ms": wall-clock percentiles around the Python call, with every copy and check; "jitter_ms": mean absolute
        difference between consecutive frames; "deadline": with a rate; "stages_ms": percentiles per stage, of another
        pass; "share_outside_networks": median of 1 - (camera + bev) / total over the frames of that pass; "memory":
        growth of the heap in use and pages first touched, per frame, including telemetry and progress bar (not a count
        of allocations, which tests/cpp/test_allocations.cpp holds at none for the core); "throttling": from
        `Throttling.summary`; "telemetry" and "energy_mj_per_frame": from the sensors of the system; "environment":
        versions and power mode; "series": each frame's time in ms and its end in s.

    Raises:
        Error: spec_bad_value for a rate that is not positive and finite; the errors of source and Detector.
    """
    if options.rate is not None and not 0 < options.rate < np.inf:
        raise Error(Code.spec_bad_value, f"a rate of {options.rate} frames/s", "--rate", "give a finite one above 0")
    # 1. load the frames
    selection = select(source, options=source_options)
    samples = [selection.source[name] for name in selection.names[:DISTINCT_FRAMES]]
    model, feed = Bundle.load(bundle, run.trust), itertools.cycle(samples)
    stage_frames = min(options.frames, STAGE_FRAMES)
    # 2. time whole frames, then the stages; on the GPU timing stages costs time, so it has a detector of its own
    with _open(model, samples[0], run) as detector:
        for _ in range(options.warmup):
            detector.infer_sample(next(feed))
        gc.collect()
        with Telemetry() as telemetry:
            series, memory = _time_frames(detector, feed, options, track)
        stages = None if detector.device == "cuda" else _time_stages(detector, feed, stage_frames)
    if stages is None:
        with _open(model, samples[0], run, stage_times=True) as instrumented:
            stages = _time_stages(instrumented, feed, stage_frames)
    # 3. summarise
    return {
        "bundle": bundle_name(bundle),
        "source": source,
        "frames": options.frames,
        "warmup": options.warmup,
        "device": detector.device,
        "engine": detector.engine,
        "threads": run.threads or usable_cores(),
        **_summarise(series, options.rate),
        **stages,
        "energy_mj_per_frame": _energy_mj(telemetry.summary(), series),
        "memory": memory,
        "throttling": telemetry.throttling(),
        "telemetry": telemetry.summary(),
        "environment": {**environment(), "power mode": telemetry.power_mode()},
        "series": series,
    }


def _open(bundle: Bundle, sample: Sample, run: RunOptions, stage_times: bool = False) -> Detector:
    return Detector(bundle, sample.rig, run.device, run.engine, run.threads, stage_times=stage_times)


def _time_frames(
    detector: Detector, feed: Iterator[Sample], options: BenchOptions, track: Track | None
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Each frame's time and end, and the memory usage per frame."""
    frames, rate = options.frames, options.rate
    totals, ends = np.full((2, frames), np.nan)  # touched before the first frame, so that they add no growth
    before = Usage.now()
    begin = time.perf_counter()
    for i in track(range(frames)) if track else range(frames):
        sample = next(feed)
        detector.prepare(sample)
        due = time.perf_counter() if rate is None else _wait_until(begin + i / rate)
        _infer(detector, sample)
        end = time.perf_counter()
        totals[i], ends[i] = 1000 * (end - due), end - begin
    memory = per_frame(before, Usage.now(), frames)
    return {"total_ms": totals.tolist(), "at_s": ends.tolist()}, memory


def _infer(detector: Detector, sample: Sample) -> Result:
    """Detector.infer_sample without `prepare`, which is not timed."""
    times, poses = sample.camera_timestamps_ns, sample.camera_T_world_ego
    return detector.infer(sample.frames, sample.radar, sample.ego, sample.timestamp_ns, times, poses)


def _wait_until(due: float) -> float:
    while (left := due - time.perf_counter()) > 0:
        time.sleep(left)
    return due


def _summarise(series: dict[str, list[float]], rate: float | None) -> dict[str, Any]:
    totals = series["total_ms"]
    return {
        "total_ms": percentiles(totals),
        "jitter_ms": float(np.abs(np.diff(totals)).mean()) if len(totals) > 1 else 0.0,
        "fps": len(totals) / series["at_s"][-1],
        "deadline": None if rate is None else _deadline(totals, rate),
    }


def _deadline(totals: list[float], rate: float) -> dict[str, Any]:
    missed = sum(total > 1000 / rate for total in totals)
    return {"rate": rate, "deadline_ms": 1000 / rate, "missed": missed, "share": missed / len(totals)}


def _energy_mj(telemetry: dict[str, dict[str, float]], series: dict[str, list[float]]) -> float | None:
    """Mean energy of a frame, mJ; None where no sensor measures the power."""
    seconds, frames = series["at_s"][-1], len(series["at_s"])
    return 1000 * telemetry["power_w"]["mean"] * seconds / frames if "power_w" in telemetry else None


def _time_stages(detector: Detector, feed: Iterator[Sample], frames: int) -> dict[str, Any]:
    """Times the stages in a pass without pacing."""
    totals, results = [], []
    for _ in range(frames):
        sample = next(feed)
        detector.prepare(sample)
        start = time.perf_counter()
        results.append(_infer(detector, sample))
        totals.append(1e6 * (time.perf_counter() - start))
    stages = {name: [result.timings_us[name] / 1000 for result in results] for name in results[0].timings_us}
    outside = [
        1 - sum(result.timings_us[name] for name in PARTS) / total
        for result, total in zip(results, totals, strict=True)
    ]
    return {
        "stages_ms": {name: percentiles(values) for name, values in stages.items()},
        "stage_frames": frames,
        "share_outside_networks": float(np.median(outside)),
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p90, p99, p99.9 and max, without interpolation: each is one of the values."""
    return {name: float(np.percentile(values, q, method="higher")) for name, q in PERCENTILES.items()}
