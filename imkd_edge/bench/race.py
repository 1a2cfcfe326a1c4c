"""Times two implementations of an op in alternation, and a plain copy that sets the floor of their memory traffic."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PAUSE = 0.004  # s before each measurement: OpenMP's idle workers spin about that long and would slow the next call
COPY_BYTES = 64 << 20  # of the array that is copied; larger than every cache
PERCENTILES = {"min": 0.0, "p50": 50.0, "p90": 90.0, "p99": 99.0}
Call = Callable[[], Any]


@dataclass(frozen=True)
class Race:
    """Our implementation of an op and a reference."""

    op: str
    reference: str
    ours: Call
    theirs: Call
    traffic: Mapping[str, int] | None = None  # name -> bytes that must be read or written once; None: not counted
    unit: float = 1.0  # factor of the outputs' difference


class BackgroundLoad:
    """The cores that other processes keep busy from now on: they slow every call, and those of many threads most.

    Args:
        stat: the kernel's /proc/stat.
    """

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat, self._start = stat, time.perf_counter()
        self._busy, self._process = self._busy_s(), sum(os.times()[:4])

    def _busy_s(self) -> float | None:
        try:
            user, nice, system = self._stat.read_text().split()[1:4]
        except (OSError, ValueError):  # not Linux
            return None
        return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")

    def cores(self) -> float | None:
        """Mean number of busy cores since the start; None without /proc/stat."""
        now = self._busy_s()
        if now is None or self._busy is None:
            return None
        process = sum(os.times()[:4]) - self._process  # with its finished children
        return max(0.0, now - self._busy - process) / (time.perf_counter() - self._start)


class Copy:
    """A copy of COPY_BYTES by several threads."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads)
        source, target = np.ones(COPY_BYTES, np.uint8), np.full(COPY_BYTES, 2, np.uint8)
        self._slices = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
        self.traffic = 2 * COPY_BYTES  # read and written

    def __call__(self) -> None:
        list(self._pool.map(lambda pair: np.copyto(pair[1], pair[0]), self._slices))


def run(races: list[Race], threads: int, repeats: Iterable[int]) -> tuple[list[dict[str, Any]], float]:
    """Runs every call of every race in turn, in each turn once untimed and once timed.

    Args:
        races: the pairs to time.
        threads: of both sides and of the copy.
        repeats: one turn for each item.

    Returns:
        One row per race, and the bandwidth of the fastest copy, GB/s.
    """
    # 1. time
    copy = Copy(threads)
    calls: list[Call] = [copy, *(call for race in races for call in (race.ours, race.theirs))]
    outputs = [call() for call in calls]
    times: list[list[float]] = [[] for _ in calls]
    for _ in repeats:
        for call, record in zip(calls, times, strict=True):
            time.sleep(PAUSE)
            call()
            start = time.perf_counter_ns()
            call()
            record.append((time.perf_counter_ns() - start) / 1e6)
    # 2. compare; the fastest copy counts, so that background load does not raise the floor
    bandwidth = copy.traffic / (min(times[0]) * 1e6)
    time_pairs = zip(times[1::2], times[2::2], strict=True)
    output_pairs = zip(outputs[1::2], outputs[2::2], strict=True)
    pairs = zip(races, time_pairs, output_pairs, strict=True)
    return [_row(race, threads, pair, results, bandwidth) for race, pair, results in pairs], bandwidth


def _row(
    race: Race, threads: int, times: tuple[list[float], list[float]], outputs: tuple[Any, Any], bandwidth: float
) -> dict[str, Any]:
    ours, theirs = (_percentiles(record) for record in times)
    output, reference = outputs
    same_shape = output.shape == reference.shape
    traffic = sum(race.traffic.values()) if race.traffic else None
    floor = traffic / (bandwidth * 1e6) if traffic else None
    return {
        "op": race.op,
        "reference": race.reference,
        "threads": threads,
        "ours_ms": ours,
        "reference_ms": theirs,
        "ratio": theirs["p50"] / ours["p50"],
        "difference": float(np.abs(output - reference).max(initial=0)) * race.unit if same_shape else None,
        "bytes": dict(race.traffic) if race.traffic else None,
        "floor_ms": floor,
        "times_floor": ours["p50"] / floor if floor else None,
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    return {name: float(np.percentile(values, q, method="higher")) for name, q in PERCENTILES.items()}
