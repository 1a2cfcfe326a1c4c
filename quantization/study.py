"""Every calibrator from one observing pass, evaluated: `python -m imkd_edge.quantization.study BUNDLE DATA --out FILE`."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
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
from imkd_edge.quantization.ptq import Quantized, quantize_part, solve_all, with_amax
from imkd_edge.quantization.quantize import Calibrated, calibrate, gated, write

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


class Study:
    """Rows of one result file, each written as soon as it is measured."""

    def __init__(self, run: argparse.Namespace) -> None:
        self._run, self._options = run, parse_options(run.option)
        self.seen = calibrate(run.bundle, run.data, run.calibration_split, self._options, run.frames, run.collection, run.threads, bar)
        self.result: dict[str, Any] = {
            "bundle": run.bundle,
            "split": run.split,
            "frames": self.seen.frames.names,
            "stress": self.seen.frames.stress,
            "rows": [],
        }

    def evaluate(self, bundle: Path, label: dict[str, Any]) -> None:
        run, blocks = self._run, self.seen.source.kind == "astyx"
        found = evaluate_bundle(str(bundle), run.data, run.split, self._options, threads=run.threads, per_block=blocks, track=bar("eval"))
        self.result["rows"].append({**label, "metrics": found["metrics"]})
        write_atomically(run.out, (json.dumps(self.result, indent=1, sort_keys=True, default=float) + "\n").encode())
        log().print(label)

    def calibrators(self, folder: Path) -> None:
        """The float bundle, every method at every width, the float16 typing of one."""
        self.evaluate(self.seen.bundle.path, {"name": "float"})
        for method in methods(self._run.bits):
            made = make(self.seen, method, folder / "row.imkd")
            self.evaluate(made.path, {**asdict(method), "bytes": _bytes(made), "int8_share": _share(made)})
            if (method.name, method.bits, method.kappa) == ("riac", 8, 0.5):
                self.result["speed"] = speed(self.seen.bundle, made, self._run.threads)
                half = make(self.seen, method, folder / "half.imkd", typing="float16")
                self.evaluate(half.path, {**asdict(method), "name": "riac, float16 typing"})

    def jitter(self, folder: Path) -> None:
        """Methods with ranges changed at random by up to 2 %: no better and no worse a choice, so their spread is noise."""
        for seed, method in product(range(self._run.jitter), [Method(name, bits) for bits in self._run.bits for name in self._run.methods]):
            parts = {name: _jittered(self.seen, part, method, seed) for name, part in self.seen.parts.items()}
            made = write(self.seen, parts, folder / "row.imkd", method)
            self.evaluate(made.path, {**asdict(method), "jitter": seed})

    def gates(self, folder: Path) -> None:
        """Methods with the most sensitive layers in float."""
        for gate, method in product(self._run.gate, [Method(name, bits) for bits in self._run.bits for name in self._run.methods]):
            kept = {name: gated(self.seen, part, method, gate, self._run.threads, bar) for name, part in self.seen.parts.items()}
            made = make(self.seen, method, folder / "row.imkd", kept)
            self.evaluate(made.path, {**asdict(method), "gate": gate, "float": kept, "int8_share": _share(made)})


def main() -> None:
    """Writes one JSON file of rows."""
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
    parser.add_argument("--jitter", type=int, default=0, help="instead: so many copies of --methods with ranges changed by up to 2 %%")
    parser.add_argument("--gate", type=float, nargs="+", default=[], help="instead: --methods under these gates")
    parser.add_argument("--methods", nargs="+", default=["mse", "riac"])
    parser.add_argument("--threads", type=int, default=0)
    run = parser.parse_args()
    study = Study(run)
    with tempfile.TemporaryDirectory() as folder:
        (study.jitter if run.jitter else study.gates if run.gate else study.calibrators)(Path(folder))


def make(seen: Calibrated, method: Method, out: Path, kept: Mapping[str, tuple[str, ...]] | None = None, typing: str = "float32") -> Bundle:
    """One row's bundle; kept: names of the layers of each part that stay float."""
    parts = {name: quantize_part(part, seen.collection, method, (kept or {}).get(name, ())) for name, part in seen.parts.items()}
    return write(seen, parts, out, method, {}, typing)


def _jittered(seen: Calibrated, part: Part, method: Method, seed: int) -> Quantized:
    """With every range changed at random, alike where it is shared."""
    groups, random = part.groups(), np.random.default_rng(seed)
    amax = solve_all(part, quantized_tensors(part, groups), seen.collection, method)
    factors = {value: random.uniform(0.98, 1.02) for value in dict.fromkeys(amax.values())}
    return with_amax(part, groups, {name: value * factors[value] for name, value in amax.items()}, method)


def _share(made: Bundle) -> float:
    return made.manifest["provenance"]["quantization"]["int8_share"]


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
