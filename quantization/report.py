"""The report of a quantization: the histograms of every tensor, its ranges, the factors and the error of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.bundle import write_atomically
from imkd_edge.bundle.files import strict_json
from imkd_edge.calibration.histogram import FISHER, OCTAVES, PER_OCTAVE, PLAIN, Histogram
from imkd_edge.quantization.accept import Accepted, HeldOut
from imkd_edge.quantization.maps import ground_maps
from imkd_edge.quantization.page import page
from imkd_edge.quantization.ptq import QuantizedPart, SolvedPart, histograms_of, modelled_errors
from imkd_edge.quantization.state import Calibration


def write_report(
    calibration: Calibration, accepted: Accepted, parts: Mapping[str, QuantizedPart], path: Path, threads: int = 0
) -> dict[str, Any]:
    """Writes the page, and the data beside it as JSON of the same name.

    Args:
        accepted: the parts with their ranges.
        parts: in INT8.
        path: of the HTML file.

    Returns:
        The data: see `gather`.

    Raises:
        Error: write_failed.
    """
    data = gather(calibration, accepted, parts)
    write_atomically(path.with_suffix(".json"), (strict_json(data, indent=1, sort_keys=True) + "\n").encode())
    maps = ground_maps(calibration.bundle.spec, HeldOut(calibration, threads), parts)
    write_atomically(path, page(data, maps).encode())
    return data


def gather(calibration: Calibration, accepted: Accepted, parts: Mapping[str, QuantizedPart]) -> dict[str, Any]:
    """The data of the page.

    Returns:
        {"bundle", "method", "frames", "fidelity", "parts": {name: {"tensors": [{"name", "largest", "range", "plain",
        "clipped", "octaves", "counts", "sensitivity", "factors"}], "layers": [{"name", "multiply_adds", "precision",
        "error"}]}}}. "range" is of the equalised tensor, "plain" of the float one; "factors" (C,) are what its channels
        are divided by, None where that is 1. "counts" and "sensitivity" are shares of the non-zero values, and of the
        weights of their squared errors, by octave of |x|, of which "octaves" are the upper ends. "clipped" is the share
        of values above the range; "error" is modelled: see `modelled_errors`, None of float layers.
    """
    rows = {}
    for name, part in parts.items():
        solved, histograms = accepted.parts[name], histograms_of(calibration.parts[name], calibration.collection)
        errors = modelled_errors(solved, calibration.collection)
        tensors = [_tensor(tensor, histograms[tensor], solved) for tensor in part.scales.activations]
        rows[name] = {"tensors": tensors, "layers": _layers(part, errors)}
    method = next(iter(accepted.parts.values())).method
    return {
        "bundle": calibration.bundle.path.name,
        "method": {"name": method.name, "bits": method.bits, "percentile": method.percentile},
        "frames": len(calibration.frames.names),
        "fidelity": accepted.fidelity,
        "parts": rows,
    }


def _layers(part: QuantizedPart, errors: Mapping[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "name": group.name,
            "multiply_adds": group.multiply_adds,
            "precision": f"float: {group.float_because}" if group.float_because else "int8",
            "error": errors.get(group.name),
        }
        for group in part.groups
    ]


def _tensor(name: str, histogram: Histogram, solved: SolvedPart) -> dict[str, Any]:
    factor = solved.factors.get(name)
    amax = solved.amax[name] * (np.ones(histogram.channels) if factor is None else factor)
    counts = histogram.counts[PLAIN]

    def octaves(row: int) -> list[float]:
        values = histogram.counts[row].sum(0).reshape(OCTAVES, PER_OCTAVE).sum(1)
        return (values / max(values.sum(), 1e-30)).tolist()

    return {
        "name": name,
        "largest": histogram.largest,
        "range": solved.amax[name],
        "plain": solved.plain[name],
        "clipped": float((counts * (histogram.edges() > amax[:, None])).sum() / max(counts.sum(), 1.0)),
        "octaves": histogram.edges()[PER_OCTAVE - 1 :: PER_OCTAVE].tolist(),
        "counts": octaves(PLAIN),
        "sensitivity": octaves(FISHER),
        "factors": None if factor is None else factor.tolist(),
    }
