"""Two ways to the same numbers, timed in turns; and the time in which a plain copy moves as many bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PAUSE = (
    0.004  # s before each measurement: OpenMP's idle workers spin for about that long, on the cores of whoever is next
)
COPY_BYTES = 64 << 20  # of the array that is copied: no cache holds it
PERCENTILES = {"min": 0.0, "p50": 50.0, "p90": 90.0, "p99": 99.0}
Call = Callable[[], Any]


@dataclass(frozen=True)
class Race:
    """Ours and theirs for one op."""

    op: str
    reference: str
    ours: Call
    theirs: Call
    moved: Mapping[str, int] | None = (
        None  # bytes that have to be read or written, each once, by what they are; None: not counted
    )
    unit: float = 1.0  # of the outputs' difference


class Others:
    """How many cores other processes kept busy since this was made: their work is in every time, and most in those of many threads."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat, self._started = stat, time.perf_counter()
        self._busy, self._own = self._busy_s(), sum(os.times()[:4])

    def _busy_s(self) -> float | None:
        try:
            user, nice, system = self._stat.read_text().split()[1:4]
        except (OSError, ValueError):  # not Linux
            return None
        return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")

    def cores(self) -> float | None:
        """None where the system does not tell."""
        now = self._busy_s()
        if now is None or self._busy is None:
            return None
        own = sum(os.times()[:4]) - self._own  # with children that have ended
        return max(0.0, now - self._busy - own) / (time.perf_counter() - self._started)


class Copy:
    """A copy by some threads of an array that no cache holds."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads)
        source, target = np.ones(COPY_BYTES, np.uint8), np.full(COPY_BYTES, 2, np.uint8)
        self._parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
        self.moved = 2 * COPY_BYTES  # read and written

    def __call__(self) -> None:
        list(self._pool.map(lambda part: np.copyto(part[1], part[0]), self._parts))


def run(races: list[Race], threads: int, repeats: Iterable[int]) -> tuple[list[dict[str, Any]], float]:
    """Rows of the races, and the bandwidth of a copy in GB/s, of the same turns. In each turn every call runs once untimed, once timed."""
    copy = Copy(threads)
    calls: list[Call] = [copy, *(call for race in races for call in (race.ours, race.theirs))]
    outputs = [call() for call in calls]
    times: list[list[float]] = [[] for _ in calls]
    for _ in repeats:
        for call, record in zip(calls, times, strict=True):
            time.sleep(PAUSE)
            call()
            started = time.perf_counter_ns()
            call()
            record.append((time.perf_counter_ns() - started) / 1e6)
    bandwidth = copy.moved / (min(times[0]) * 1e6)  # of the fastest: a floor must not rise where others are at work
    pairs = zip(
        races, zip(times[1::2], times[2::2], strict=True), zip(outputs[1::2], outputs[2::2], strict=True), strict=True
    )
    return [_row(race, threads, pair, results, bandwidth) for race, pair, results in pairs], bandwidth


def _row(
    race: Race, threads: int, times: tuple[list[float], list[float]], outputs: tuple[Any, Any], bandwidth: float
) -> dict[str, Any]:
    ours, theirs = (_percentiles(record) for record in times)
    mine, other = outputs
    moved = sum(race.moved.values()) if race.moved else None
    floor = moved / (bandwidth * 1e6) if moved else None
    return {
        "op": race.op,
        "reference": race.reference,
        "threads": threads,
        "ours_ms": ours,
        "reference_ms": theirs,
        "ratio": theirs["p50"] / ours["p50"],
        "difference": float(np.abs(mine - other).max(initial=0)) * race.unit if mine.shape == other.shape else None,
        "bytes": dict(race.moved) if race.moved else None,
        "floor_ms": floor,
        "times_floor": ours["p50"] / floor if floor else None,
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    return {name: float(np.percentile(values, q, method="higher")) for name, q in PERCENTILES.items()}
