"""Every calibrator from one observing pass, evaluated: `python -m imkd_edge.quantization.study BUNDLE DATA --out FILE`."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.bundle import Bundle
from imkd_edge.calibration.solvers import Method
from imkd_edge.cli.common import bar, log, parse_options
from imkd_edge.engine_cache import write_atomically
from imkd_edge.engines import OnnxRuntimeEngine
from imkd_edge.evaluation.run import evaluate_bundle
from imkd_edge.golden import golden_rig, replay
from imkd_edge.quantization.graph import Part
from imkd_edge.quantization.insert import quantized_tensors
from imkd_edge.quantization.quantize import Calibrated, Quantized, calibrate, quantize_part, solve_all, with_amax, write

NAMED = [
    ("max", {}),
    ("percentile", {"percentile": 99.9}),
    ("percentile", {"percentile": 99.99}),
    ("entropy", {}),
    ("mse", {}),
    ("occupancy", {"kappa": 0.0}),
    ("riac", {"kappa": 0.5}),
    ("riac", {"kappa": 1.0}),
    ("placebo", {"kappa": 0.5}),
]


def methods(bits: list[int]) -> Iterator[Method]:
    """The rows of the table."""
    for width in bits:
        for name, settings in NAMED:
            yield Method(name, width, **settings)


def main() -> None:
    """Writes one JSON file with a row for the float bundle, one per method, and the half typing of the first riac row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--calibration-split", default=None)
    parser.add_argument("--frames", type=int, default=128)
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 6])
    parser.add_argument("--collection", type=Path, default=None)
    parser.add_argument("--option", action="append", help="KEY=VALUE of the source's reader")
    parser.add_argument("--jitter", type=int, default=0, help="instead: so many copies of mse and riac with ranges changed by up to 2 %%")
    parser.add_argument("--threads", type=int, default=0)
    run = parser.parse_args()
    options = parse_options(run.option)
    seen = calibrate(run.bundle, run.data, run.calibration_split, options, run.frames, run.collection, run.threads, bar)
    result: dict[str, Any] = {
        "bundle": run.bundle,
        "split": run.split,
        "frames": seen.frames.names,
        "stress": seen.frames.stress,
        "rows": [],
    }

    def evaluate(bundle: Path | str, label: dict[str, Any]) -> None:
        per_block = "astyx" in str(seen.bundle.spec.name)
        found = evaluate_bundle(str(bundle), run.data, run.split, options, threads=run.threads, per_block=per_block, track=bar("eval"))
        result["rows"].append({**label, "metrics": found["metrics"]})
        write_atomically(run.out, (json.dumps(result, indent=1, sort_keys=True, default=float) + "\n").encode())
        log().print(label)

    with tempfile.TemporaryDirectory() as folder:
        for seed, method in product(range(run.jitter), [Method(name, bits) for bits in run.bits for name in ("mse", "riac")]):
            made = _make(seen, method, Path(folder) / "row.imkd", seed)
            evaluate(made.path, {"name": method.name, "bits": method.bits, "kappa": method.kappa, "jitter": seed})
        if run.jitter:
            return
        evaluate(seen.bundle.path, {"name": "float"})
        for method in methods(run.bits):
            label = {"name": method.name, "bits": method.bits, "kappa": method.kappa, "percentile": method.percentile}
            made = _make(seen, method, Path(folder) / "row.imkd")
            evaluate(made.path, {**label, "bytes": _bytes(made), "int8_share": made.manifest["provenance"]["quantization"]["int8_share"]})
            if (method.name, method.bits, method.kappa) == ("riac", 8, 0.5):
                result["speed"] = speed(seen.bundle, made, run.threads)
                half = _make(seen, method, Path(folder) / "half.imkd", typing="float16")
                evaluate(half.path, {**label, "name": "riac, float16 typing"})


def _make(seen: Calibrated, method: Method, out: Path, jitter: int | None = None, typing: str = "float32") -> Bundle:
    parts = {name: quantize_part(part, seen.collection, method) for name, part in seen.parts.items()}
    if jitter is not None:
        parts = {name: _jittered(seen, part, method, jitter) for name, part in seen.parts.items()}
    return write(seen, parts, out, method, {}, typing)


def _jittered(seen: Calibrated, part: Part, method: Method, seed: int) -> Quantized:
    """With every range changed at random by up to 2 %, alike where it is shared: no better and no worse a choice."""
    groups, random = part.groups(), np.random.default_rng(seed)
    amax = solve_all(part, quantized_tensors(part, groups), seen.collection, method)
    factors = {value: random.uniform(0.98, 1.02) for value in dict.fromkeys(amax.values())}
    return with_amax(part, groups, {name: value * factors[value] for name, value in amax.items()}, method)


def _bytes(made: Bundle) -> dict[str, int]:
    return {name: entry["bytes"] for name, entry in made.manifest["files"].items()}


def speed(one: Bundle, other: Bundle, threads: int, runs: int = 30) -> dict[str, float]:
    """Median milliseconds of both parts on the golden frame, float and INT8 in integer kernels, taken in turns; and their ratio."""
    from imkd_edge import Detector

    times: dict[str, list[float]] = {"float_ms": [], "int8_ms": []}
    rig = golden_rig(one)
    with (
        Detector(one, rig, threads=threads) as a,
        Detector(other, rig, engine=lambda n: OnnxRuntimeEngine(n, integer=True), threads=threads) as b,
    ):
        for _ in range(runs):
            for name, detector in zip(times, (a, b), strict=True):
                began = time.perf_counter()
                replay(one, detector)
                times[name].append(1e3 * (time.perf_counter() - began))
    medians = {name: float(np.median(values)) for name, values in times.items()}
    return {**medians, "int8_over_float": medians["int8_ms"] / medians["float_ms"]}


if __name__ == "__main__":
    main()
