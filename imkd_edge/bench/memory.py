"""What the process takes from the heap and from the system while frames run."""

from __future__ import annotations

import ctypes
import resource
from dataclasses import dataclass
from typing import Any


class _Mallinfo2(ctypes.Structure):
    """glibc's struct: of all arenas."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


@dataclass(frozen=True)
class Usage:
    """At one moment."""

    heap_bytes: (
        int | None
    )  # in use: in glibc's arenas (uordblks), what threads keep for reuse included, and mapped alone (hblkhd)
    minor_faults: int  # pages first touched, which fresh memory is

    @staticmethod
    def now() -> Usage:
        """Of this process; faults count from its start."""
        return Usage(heap_bytes(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt)


def heap_bytes() -> int | None:
    """Bytes of the heap that are in use; None without glibc 2.33 or later."""
    call = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if call is None:
        return None
    call.restype = _Mallinfo2
    found = call()
    return found.uordblks + found.hblkhd


def per_frame(before: Usage, after: Usage, frames: int) -> dict[str, Any]:
    """Growth from one moment to another: it tells what is not given back, not how many allocations there were."""
    grown = (
        None
        if before.heap_bytes is None or after.heap_bytes is None
        else (after.heap_bytes - before.heap_bytes) / frames
    )
    return {
        "heap_growth_bytes_per_frame": grown,
        "minor_faults_per_frame": (after.minor_faults - before.minor_faults) / frames,
    }


def memory_line(found: dict[str, Any]) -> str:
    """The same in words."""
    grown = found["heap_growth_bytes_per_frame"]
    heap = "the C library does not tell" if grown is None else f"{grown:+.1f} bytes in use per frame"
    return f"heap: {heap}; pages first touched: {found['minor_faults_per_frame']:.2f} per frame"
