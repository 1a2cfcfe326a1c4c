"""Units of time: samples count int64 nanoseconds, nuScenes microseconds, motion seconds."""

from __future__ import annotations

from collections.abc import Sequence

NS_PER_US = 1_000
US_PER_S = 1_000_000
MAX_TIME_NS = 2**63 - 1  # a time beyond it is no int64


def ns_from_us(us: int) -> int:
    """Microseconds as nanoseconds."""
    return us * NS_PER_US


def us_from_ns(ns: int) -> int:
    """Nanoseconds as microseconds, rounded half up."""
    return (int(ns) + NS_PER_US // 2) // NS_PER_US


def s_from_us(us: int) -> float:
    """Microseconds as seconds."""
    return us * 1e-6


def us_from_s(seconds: float) -> int:
    """Seconds as microseconds, rounded."""
    return round(seconds * US_PER_S)


def nominal_ns(name: str, names: Sequence[str], period_ns: int) -> int:
    """Timestamp of a frame of a set without times: its number, or its position in `names`, times the period."""
    return (int(name) if name.isdecimal() else names.index(name)) * period_ns
