"""The report of a quantization as data: histogram and range of each tensor, precision and sensitivity of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.bundle import write_atomically
from imkd_edge.bundle.files import strict_json
from imkd_edge.calibration.histogram import ALL, OCCUPIED, Histogram
from imkd_edge.calibration.solvers import Method
from imkd_edge.calibration.weights import EMPTY, resample
from imkd_edge.progress import Bar
from imkd_edge.quantization.page import page
from imkd_edge.quantization.ptq import QuantizedPart, tensors_to_observe
from imkd_edge.quantization.sensitivity import calibration_probe, sensitivities
from imkd_edge.quantization.state import Calibration

BINS = 64


def write_report(
    calibration: Calibration,
    parts: Mapping[str, QuantizedPart],
    method: Method,
    path: Path,
    threads: int = 0,
    bar: Bar | None = None,
) -> dict[str, Any]:
    """Writes the page, and the data beside it as JSON of the same name.

    Args:
        parts: in INT8.
        method: of their scales.
        path: of the HTML file.

    Returns:
        The data: see `gather`.

    Raises:
        Error: write_failed.
    """
    data = gather(calibration, parts, method, threads, bar)
    maps = {
        f"{m['height']} x {m['width']} cells, reach {m['reach']}": weights
        for m, weights in zip(data["maps"], _maps(calibration, method))
    }
    write_atomically(path.with_suffix(".json"), (strict_json(data, indent=1, sort_keys=True) + "\n").encode())
    write_atomically(path, page(data, maps).encode())
    return data


def gather(
    calibration: Calibration,
    parts: Mapping[str, QuantizedPart],
    method: Method,
    threads: int = 0,
    bar: Bar | None = None,
) -> dict[str, Any]:
    """The data of the page.

    Returns:
        {"bundle", "method", "frames", "maps": [{"height", "width", "reach", "mean"}], "parts": {name: {"tensors":
        [{"name", "largest", "range", "clipped", "counts", "occupied"}], "layers": [{"name", "multiply_adds",
        "precision", "sensitivity"}]}}}. "clipped" is a share of the non-zero values; "counts" and "occupied" are
        (BINS,) from 0 to the larger of "largest" and "range", the latter None where radar does not reach the tensor;
        "sensitivity" is the NMSE of the worst output where this layer alone is INT8, None of float layers.
    """
    rows = {}
    for name, part in parts.items():
        probe, track = (
            calibration_probe(calibration, calibration.parts[name], threads),
            bar and bar(f"layers of {name}"),
        )
        sensitivity = sensitivities(calibration.parts[name], calibration.collection, method, probe, threads, track)
        tensors = [
            _tensor(tensor, calibration.collection.histograms[f"{name}/{tensor}"], step * method.levels)
            for tensor, step in part.scales.activations.items()
        ]
        rows[name] = {"tensors": tensors, "layers": _layers(part, sensitivity)}
    maps = [
        {"height": h, "width": w, "reach": r, "mean": float(weights.mean())}
        for (h, w, r), weights in zip(_grids(calibration), _maps(calibration, method), strict=True)
    ]
    settings = {"name": method.name, "bits": method.bits, "kappa": method.kappa, "percentile": method.percentile}
    return {
        "bundle": calibration.bundle.path.name,
        "method": settings,
        "frames": len(calibration.frames.names),
        "maps": maps,
        "parts": rows,
    }


def _layers(part: QuantizedPart, sensitivity: Mapping[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "name": group.name,
            "multiply_adds": group.multiply_adds,
            "precision": f"float: {group.float_because}" if group.float_because else "int8",
            "sensitivity": sensitivity.get(group.name),
        }
        for group in part.groups
    ]


def _tensor(name: str, histogram: Histogram, amax: float) -> dict[str, Any]:
    centers, counts = histogram.centers(), histogram.counts[ALL]
    end = max(histogram.largest, amax) or 1.0

    def rebinned(row: int) -> list[float]:
        return np.histogram(np.minimum(centers, end), BINS, (0, end), weights=histogram.counts[row])[0].tolist()

    return {
        "name": name,
        "largest": histogram.largest,
        "range": amax,
        "clipped": float(counts[centers > amax].sum() / max(counts.sum(), 1.0)),
        "counts": rebinned(ALL),
        "occupied": rebinned(OCCUPIED) if histogram.weighted else None,
    }


def _grids(calibration: Calibration) -> list[tuple[int, int, int]]:
    """Grids over the ground that weights were resampled to: rows, columns, radius in cells."""
    tensors = [item for part in calibration.parts.values() for item in tensors_to_observe(part) if item.weighted]
    return sorted({(item.shape[-2], item.shape[-1], item.radius) for item in tensors}, reverse=True)


def _maps(calibration: Calibration, method: Method) -> list[np.ndarray]:
    """The weight of each cell on each grid, (height, width), on the last observed frame."""
    last = calibration.collection.last_maps
    if last is None:
        return []
    kappa = 0.0 if method.name == "occupancy" else method.kappa
    maps = [resample(last, height, width, radius) for height, width, radius in _grids(calibration)]
    return [EMPTY + occupied + kappa * graded for occupied, graded in maps]
