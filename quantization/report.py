"""What quantization did, as data: each tensor's histogram and range, each layer's precision and how much it matters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.bundle.files import write_atomically
from imkd_edge.calibration.histogram import ALL, OCCUPIED, Histogram
from imkd_edge.calibration.solvers import Method
from imkd_edge.calibration.weights import EMPTY, resample
from imkd_edge.quantization.page import page
from imkd_edge.quantization.ptq import Quantized, watch
from imkd_edge.quantization.quantize import Bar, Calibrated, probe_of
from imkd_edge.quantization.sensitivity import sensitivities

BINS = 64


def write_report(
    seen: Calibrated,
    parts: Mapping[str, Quantized],
    method: Method,
    path: Path,
    threads: int = 0,
    bar: Bar | None = None,
) -> dict[str, Any]:
    """Writes the page, and the data beside it as JSON of the same name.

    Args:
        parts: in INT8.
        method: that they were made by.
        path: of the HTML file.

    Returns:
        The data: see `gather`.

    Raises:
        Error: write_failed.
    """
    data = gather(seen, parts, method, threads, bar)
    maps = {
        f"{m['height']} x {m['width']} cells, reach {m['reach']}": weights
        for m, weights in zip(data["maps"], _maps(seen, method))
    }
    write_atomically(path.with_suffix(".json"), (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())
    write_atomically(path, page(data, maps).encode())
    return data


def gather(
    seen: Calibrated, parts: Mapping[str, Quantized], method: Method, threads: int = 0, bar: Bar | None = None
) -> dict[str, Any]:
    """Everything that the page shows.

    Returns:
        {"bundle", "method", "frames", "maps": [{"height", "width", "reach", "mean"}], "parts": {name: {"tensors": [{"name", "largest",
        "range", "clipped" share of non-zero values, "counts", "occupied" or None}], "layers": [{"name", "multiply_adds", "precision",
        "sensitivity": NMSE of the worst output where this layer alone is INT8, None of float layers}]}}}; counts (BINS,) from 0 to the
        larger of both.
    """
    found = {}
    for name, part in parts.items():
        probe = probe_of(seen, seen.parts[name], threads)
        suffering = sensitivities(
            seen.parts[name], seen.collection, method, probe, threads, bar and bar(f"layers of {name}")
        )
        tensors = [
            _tensor(tensor, seen.collection.histograms[f"{name}/{tensor}"], step * method.levels)
            for tensor in part.scales.activations
            for step in [part.scales.activations[tensor]]
        ]
        layers = [
            {
                "name": group.name,
                "multiply_adds": group.multiply_adds,
                "precision": f"float: {group.float_because}" if group.float_because else "int8",
                "sensitivity": suffering.get(group.name),
            }
            for group in part.groups
        ]
        found[name] = {"tensors": tensors, "layers": layers}
    shapes = _grids(seen)
    maps = [
        {"height": h, "width": w, "reach": r, "mean": float(weights.mean())}
        for (h, w, r), weights in zip(shapes, _maps(seen, method), strict=True)
    ]
    chosen = {"name": method.name, "bits": method.bits, "kappa": method.kappa, "percentile": method.percentile}
    return {
        "bundle": seen.bundle.path.name,
        "method": chosen,
        "frames": len(seen.frames.names),
        "maps": maps,
        "parts": found,
    }


def _tensor(name: str, histogram: Histogram, reach: float) -> dict[str, Any]:
    centers, counts = histogram.centers(), histogram.counts[ALL]
    end = max(histogram.largest, reach) or 1.0

    def binned(row: int) -> list[float]:
        return np.histogram(np.minimum(centers, end), BINS, (0, end), weights=histogram.counts[row])[0].tolist()

    return {
        "name": name,
        "largest": histogram.largest,
        "range": reach,
        "clipped": float(counts[centers > reach].sum() / max(counts.sum(), 1.0)),
        "counts": binned(ALL),
        "occupied": binned(OCCUPIED) if histogram.weighted else None,
    }


def _grids(seen: Calibrated) -> list[tuple[int, int, int]]:
    """Grids over the ground that weights were brought to: rows, columns, cells of reach."""
    watched = [item for part in seen.parts.values() for item in watch(part) if item.weighted]
    return sorted({(item.shape[-2], item.shape[-1], item.radius) for item in watched}, reverse=True)


def _maps(seen: Calibrated, method: Method) -> list[np.ndarray]:
    """The weight of each cell on each grid, (height, width), on the frame that was observed last."""
    before = seen.collection.before
    if before is None:
        return []
    kappa = 0.0 if method.name == "occupancy" else method.kappa
    maps = [resample(before, height, width, radius) for height, width, radius in _grids(seen)]
    return [EMPTY + occupied + kappa * graded for occupied, graded in maps]
