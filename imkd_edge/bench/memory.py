"""Memory usage of the process while frames run: heap in use and page faults."""

from __future__ import annotations

import ctypes
import resource
from dataclasses import dataclass
from typing import Any


class _Mallinfo2(ctypes.Structure):
    """struct mallinfo2 of glibc, for all arenas."""

    NAMES = "arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in NAMES.split(", ")]


@dataclass(frozen=True)
class Usage:
    """Memory usage at one moment."""

    # In use: in glibc's arenas (uordblks, with the caches of threads) and in mappings of their own (hblkhd).
    heap_bytes: int | None
    minor_faults: int  # pages first touched, as new memory is

    @staticmethod
    def now() -> Usage:
        """The usage of this process; faults count from its start."""
        return Usage(heap_bytes(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt)


def heap_bytes() -> int | None:
    """Bytes of the heap that are in use; None without glibc 2.33 or later."""
    call = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if call is None:
        return None
    call.restype = _Mallinfo2
    info = call()
    return info.uordblks + info.hblkhd


def per_frame(before: Usage, after: Usage, frames: int) -> dict[str, Any]:
    """Growth per frame between two moments: memory that is not freed, not the number of allocations."""
    growth = None
    if before.heap_bytes is not None and after.heap_bytes is not None:
        growth = (after.heap_bytes - before.heap_bytes) / frames
    return {
        "heap_growth_bytes_per_frame": growth,
        "minor_faults_per_frame": (after.minor_faults - before.minor_faults) / frames,
    }


def memory_line(memory: dict[str, Any]) -> str:
    """The result of `per_frame` as a line of text."""
    growth = memory["heap_growth_bytes_per_frame"]
    heap = "not reported by the C library" if growth is None else f"{growth:+.1f} bytes in use per frame"
    return f"heap: {heap}; pages first touched: {memory['minor_faults_per_frame']:.2f} per frame"
