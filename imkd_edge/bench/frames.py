"""Time per frame, from the caller's arrays to boxes."""

from __future__ import annotations

import gc
import itertools
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.bundle import Bundle
from imkd_edge.detector import Detector
from imkd_edge.samples import bundle_label, infer_sample, prepare, select

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
LOADED = 16  # different frames held in memory; reading a recording is not what is measured
NETWORKS = ("camera", "bev")


def bench(
    bundle: str,
    source: str = "synth",
    frames: int = 200,
    warmup: int = 20,
    threads: int = 0,
    device: str = "auto",
    engine: str = "auto",
    options: Mapping[str, Any] | None = None,
    track: Callable[[range], Iterable[int]] | None = None,
) -> dict[str, Any]:
    """Times `frames` calls of Detector.infer on the first frames of a source, which are loaded beforehand and repeated.

    Args:
        bundle: folder or shipped name.
        source: anything that open_source understands.
        frames, warmup: how many calls are timed, and how many go before them.
        threads, device, engine: of the Detector.
        options: of the source's reader.
        track: wraps the timed indices, for a progress bar.

    Returns:
        "total_ms": wall-clock percentiles around the Python call, so with every copy and check; "stages_ms": the same per stage;
        "share_outside_networks": median over the frames of 1 - (camera + bev) / total; "environment".
    """
    chosen = select(source, options=options)
    samples = [chosen.source[name] for name in chosen.names[:LOADED]]
    loaded = Bundle.load(bundle)
    totals, stages = [], []
    with Detector(loaded, samples[0].rig, device=device, engine=engine, threads=threads) as detector:
        feed = itertools.cycle(samples)
        for _ in range(warmup):
            infer_sample(detector, next(feed))
        gc.collect()
        for _ in track(range(frames)) if track else range(frames):
            sample = next(feed)
            prepare(detector, sample)
            times = sample.camera_timestamps_ns or None
            started = time.perf_counter_ns()
            result = detector.infer(sample.frames, sample.radar, sample.ego, sample.timestamp_ns, times)
            totals.append((time.perf_counter_ns() - started) / 1e6)
            stages.append({name: value / 1000 for name, value in result.timings_us.items()})
    outside = [1 - sum(stage[name] for name in NETWORKS) / total for stage, total in zip(stages, totals, strict=True)]
    return {
        "bundle": bundle_label(bundle),
        "source": source,
        "frames": frames,
        "warmup": warmup,
        "device": detector.device,
        "engine": detector.engine,
        "threads": threads or usable_cores(),
        "total_ms": percentiles(totals),
        "stages_ms": {name: percentiles([stage[name] for stage in stages]) for name in stages[0]},
        "share_outside_networks": float(np.median(outside)),
        "environment": environment(),
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p90, p99, p99.9, max: each an observed value, not an interpolated one."""
    return {name: float(np.percentile(values, q, method="higher")) for name, q in PERCENTILES.items()}


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def environment() -> dict[str, Any]:
    """The machine and the versions that a number depends on."""
    packages = ("imkd-edge", "onnxruntime", "numpy", "opencv-python-headless")
    return {
        "cpu": _cpu_model(),
        "machine": platform.machine(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("model name")), platform.machine())
