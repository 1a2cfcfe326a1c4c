"""Comparisons of an op's result with its reference that also keep the largest difference, where that is asked for."""

from __future__ import annotations

import numpy as np

recording = False  # tests/gpu/record.py sets it
largest: dict[str, float] = {}  # by kind of number and of difference


def note(result: np.ndarray, expected: np.ndarray) -> None:
    """Keeps the largest differences between numbers that are finite in both."""
    result, expected = np.asarray(result), np.asarray(expected)
    if not recording or result.shape != expected.shape or result.dtype == bool:
        return
    kind = {"float16": "float16 ", "float32": "float32 "}.get(result.dtype.name, "integer ")
    a, b = result.astype(np.float64), expected.astype(np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    distance = np.abs(a[both] - b[both])
    keep(kind + "absolute", distance)
    scale = np.abs(b[both])
    keep(kind + "relative", distance[scale > 0] / scale[scale > 0])
    keep("NaN or infinite in one of two", (np.isfinite(a) != np.isfinite(b)).sum(keepdims=True))


def keep(name: str, values: np.ndarray) -> None:
    largest[name] = max(largest.get(name, 0.0), float(values.max(initial=0)))


def equal(result: np.ndarray, expected: np.ndarray, equal_nan: bool = False) -> bool:
    """numpy.array_equal."""
    note(result, expected)
    return np.array_equal(result, expected, equal_nan=equal_nan)


def nmse(result: np.ndarray, expected: np.ndarray) -> float:
    """Sum of squared differences over the sum of squares."""
    result, expected = result.astype(np.float64), expected.astype(np.float64)
    value = float(((result - expected) ** 2).sum() / max((expected**2).sum(), 1e-30))
    if recording:
        keep("normalised mean square error", np.array([value]))
    return value


def close(result: np.ndarray, expected: np.ndarray) -> bool:
    """Within 1e-6 relative, NaN and infinities in the same places."""
    note(result, expected)
    return np.allclose(result, expected, rtol=1e-6, atol=1e-30, equal_nan=True)
