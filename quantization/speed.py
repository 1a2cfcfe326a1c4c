"""Time of an INT8 bundle beside the float one's, on this CPU."""

from __future__ import annotations

import time

import numpy as np

from imkd_edge.bundle import Bundle, golden_rig
from imkd_edge.bundle.golden import read_golden
from imkd_edge.checks.selftest import replay
from imkd_edge.detector import Detector
from imkd_edge.engines import OnnxRuntimeEngine


def speed(one: Bundle, other: Bundle, threads: int, runs: int = 30) -> dict[str, float]:
    """Median milliseconds of both parts on the golden drive, float and INT8 in integer kernels, and their ratio.

    The two run in alternation.
    """
    times: dict[str, list[float]] = {"float_ms": [], "int8_ms": []}
    rig = golden_rig(one)
    with (
        Detector(one, rig, threads=threads) as a,
        Detector(other, rig, engine=lambda n: OnnxRuntimeEngine(n, integer=True), threads=threads) as b,
    ):
        while len(times["float_ms"]) < runs:
            drives = {name: replay(one, detector) for name, detector in zip(times, (a, b), strict=True)}
            for _ in read_golden(one):
                for name, drive in drives.items():
                    start = time.perf_counter()
                    next(drive)
                    times[name].append(1e3 * (time.perf_counter() - start))
    medians = {name: float(np.median(values)) for name, values in times.items()}
    return {**medians, "int8_over_float": medians["int8_ms"] / medians["float_ms"]}
