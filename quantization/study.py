"""Every calibrator from one observing pass, evaluated: `python -m imkd_edge.quantization.study BUNDLE ... --data DATA --out FILE`.

Several bundles are trained seeds of one model: the summary has means and standard errors over them, differences paired by seed, and on
KITTI's protocol intervals from frames drawn anew in blocks. The same command goes on where an interrupted one stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.bundle import Bundle
from imkd_edge.bundle.files import write_atomically
from imkd_edge.bundle.golden import golden_rig
from imkd_edge.calibration.solvers import Method
from imkd_edge.checks.selftest import replay
from imkd_edge.cli.common import bar, log, parse_options, plain
from imkd_edge.engines import OnnxRuntimeEngine
from imkd_edge.errors import Code, Error
from imkd_edge.evaluation import kitti
from imkd_edge.evaluation.run import evaluate_bundle
from imkd_edge.options import EvalOptions, RunOptions
from imkd_edge.quantization.graph import Part
from imkd_edge.quantization.insert import quantized_tensors
from imkd_edge.quantization.ptq import Quantized, quantize_part, solve_all, with_amax
from imkd_edge.quantization.quantize import Calibrated, Training, calibrate, gated, write
from imkd_edge.training.ablation_report import summary, table

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
LEARNT = {True: "mse, trained", False: "mse, refined"}  # Training.weights


def methods(bits: list[int], names: list[str] | None = None) -> Iterator[Method]:
    """The rows of the table; names: only these calibrators."""
    for width in bits:
        for name, settings in NAMED:
            if names is None or name in names:
                yield Method(name, width, **settings)


def label(method: Method) -> str:
    """A row's name, such as "riac 0.5, 8 bits"."""
    setting = {"riac": method.kappa, "placebo": method.kappa, "percentile": method.percentile}.get(method.name)
    return f"{method.name}{'' if setting is None else f' {setting:g}'}, {method.bits} bits"


class Study:
    """The rows of one bundle, each written as soon as it is measured.

    Args:
        run: the command's arguments.
        seed: the bundle's place in the command.
        result: of all bundles; "runs" grows.
    """

    def __init__(self, run: argparse.Namespace, seed: int, result: dict[str, Any]) -> None:
        self._run, self._seed, self._options, self.result = run, seed, parse_options(run.option), result
        state = run.state / f"{seed}.npz" if run.state else None
        self.seen = calibrate(
            run.bundles[seed], run.data, run.calibration_split, self._options, run.frames, state, run.threads, bar
        )
        result.update(frames=self.seen.frames.names, stress=self.seen.frames.stress)

    def row(self, title: str, make: Callable[[], Bundle], **more: Any) -> Bundle | None:
        """Makes and measures a bundle, unless that was done before."""
        if any((found["row"], found["seed"]) == (title, self._seed) for found in self.result["runs"]):
            return None
        run, kitti_protocol, made = self._run, self.seen.source.kind == "astyx", make()
        found = evaluate_bundle(
            str(made.path), run.data,
            EvalOptions(split=run.split, limit=run.limit, per_block=kitti_protocol, per_radar=kitti_protocol,
                        resamples=kitti.RESAMPLES),
            source_options=self._options, run=RunOptions(threads=run.threads), track=bar("eval"),
        )  # fmt: skip
        card = made.manifest["provenance"].get("quantization")
        more |= {"bytes": _bytes(made), "int8_share": card["int8_share"]} if card else {}
        drawn = {metric: np.round(values, 3).tolist() for metric, values in found.get("bootstrap", {}).items()}
        self.result["runs"].append(
            plain({"row": title, "seed": self._seed, **more, "metrics": found["metrics"], "bootstrap": drawn})
        )
        self.result["summary"] = summaries(self.result["runs"])
        write_atomically(
            run.out, (json.dumps(plain(self.result), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
        )
        log().print(f"{run.bundles[self._seed]}: {title}")
        return made

    def calibrators(self, folder: Path) -> None:
        """The float bundle, every method at every width, the float16 typing of one, the default refined and trained."""
        self.row("float", lambda: self.seen.bundle)
        for method in methods(self._run.bits, self._run.methods):
            made = self.row(label(method), lambda m=method: make(self.seen, m, folder / "row.imkd"), **asdict(method))  # type: ignore[misc]
            if made and (method.name, method.bits, method.kappa) == ("riac", 8, 0.5):
                self.result["speed"] = speed(self.seen.bundle, made, self._run.threads)
            if self._run.halves and (method.name, method.bits, method.kappa) == ("riac", 8, 0.5):
                half = lambda m=method: make(self.seen, m, folder / "half.imkd", typing="float16")  # noqa: E731
                self.row(f"{label(method)}, float16 typing", half, **asdict(method))
        for bits, (steps, weights) in product(self._run.bits, ((self._run.refine, False), (self._run.qat, True))):
            if steps:
                self.trained(Method("mse", bits), Training(steps, seed=self._seed, weights=weights), folder)

    def trained(self, method: Method, training: Training, folder: Path) -> None:
        """Training, or refinement, from a method's scales."""
        from imkd_edge.quantization.qat import learn

        state = (self._run.state or folder) / f"{self._seed}.{method.bits}{'' if training.weights else '.scales'}.pt"

        def made() -> Bundle:
            parts = learn(self.seen, method, {"camera": (), "bev": ()}, training, state, self._run.threads, bar)
            return write(self.seen, parts, folder / "row.imkd", method, training=training)

        self.row(f"{LEARNT[training.weights]}, {method.bits} bits", made, **asdict(method), training=asdict(training))

    def jitter(self, folder: Path) -> None:
        """Methods with ranges changed at random by up to 2 %: no better and no worse a choice, so their spread is noise."""
        for draw, method in product(range(self._run.jitter), self._few()):

            def made(draw: int = draw, method: Method = method) -> Bundle:
                parts = {name: _jittered(self.seen, part, method, draw) for name, part in self.seen.parts.items()}
                return write(self.seen, parts, folder / "row.imkd", method)

            self.row(f"{label(method)}, jitter {draw}", made, **asdict(method), jitter=draw)

    def gates(self, folder: Path) -> None:
        """Methods with the most sensitive layers in float."""
        for gate, method in product(self._run.gate, self._few()):
            kept = {
                name: gated(self.seen, part, method, gate, self._run.threads, bar)
                for name, part in self.seen.parts.items()
            }
            made = lambda m=method, k=kept: make(self.seen, m, folder / "row.imkd", k)  # noqa: E731
            self.row(f"{label(method)}, gate {gate:g}", made, **asdict(method), gate=gate, float=kept)

    def _few(self) -> list[Method]:
        return [Method(name, bits) for bits in self._run.bits for name in self._run.methods or ["mse", "riac"]]


def summaries(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the seeds: every row against the float one, and against "mse" at the same number of bits (ablation_report.summary)."""
    found = {"float": summary(runs)}
    for bits in sorted({run["bits"] for run in runs if "bits" in run}, reverse=True):
        first = label(Method("mse", bits))
        own = [run for run in runs if run.get("bits") == bits]
        if any(run["row"] == first for run in own):
            found[first] = summary(sorted(own, key=lambda run: run["row"] != first))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Writes one JSON file of rows, and their table to the log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", metavar="BUNDLE")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--calibration-split", default=None)
    parser.add_argument("--frames", type=int, default=128)
    parser.add_argument("--limit", type=int, default=None, help="measure on the first frames only, for a quick look")
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 6])
    parser.add_argument("--methods", nargs="+", default=None, help="only these calibrators")
    parser.add_argument("--halves", action="store_true", help="also the float16 typing of riac at 8 bits")
    parser.add_argument("--qat", type=int, default=0, metavar="STEPS", help="also mse with so many steps of training")
    parser.add_argument(
        "--refine",
        type=int,
        default=0,
        metavar="STEPS",
        help="also mse with so many steps of refining its scales alone",
    )
    parser.add_argument("--state", type=Path, default=None, help="folder for what an interrupted command goes on from")
    parser.add_argument("--option", action="append", help="KEY=VALUE of the source's reader")
    parser.add_argument(
        "--jitter", type=int, default=0, help="instead: so many copies of --methods with ranges changed by up to 2 %%"
    )
    parser.add_argument("--gate", type=float, nargs="+", default=[], help="instead: --methods under these gates")
    parser.add_argument("--threads", type=int, default=0)
    run = parser.parse_args(arguments)
    if run.state:
        run.state.mkdir(parents=True, exist_ok=True)
    result = begin(run)
    for seed in range(len(run.bundles)):
        study = Study(run, seed, result)
        with tempfile.TemporaryDirectory() as folder:
            (study.jitter if run.jitter else study.gates if run.gate else study.calibrators)(Path(folder))
    for rows in summaries(result["runs"]).values():
        log().print(table(rows))


def begin(run: argparse.Namespace) -> dict[str, Any]:
    """What the file holds, or an empty result where there is none. Raises Error write_failed where it is of other bundles or frames."""
    manifests = [(Bundle.load(bundle).path / "manifest.json").read_bytes() for bundle in run.bundles]
    asked = {key: getattr(run, key) for key in ("calibration_split", "frames", "option")}
    asked["manifests"] = [hashlib.sha256(manifest).hexdigest()[:16] for manifest in manifests]
    names = [Path(bundle).name for bundle in run.bundles]
    fresh: dict[str, Any] = {
        "bundles": names,
        "split": run.split,
        "limit": run.limit,
        "asked": asked,
        "runs": [],
        "summary": {},
    }
    if not run.out.is_file():
        return fresh
    saved = json.loads(run.out.read_text())
    if any(saved.get(key) != fresh[key] for key in ("bundles", "split", "limit", "asked")):
        fix = "name another --out, or repeat the first command to go on"
        raise Error(Code.write_failed, "the file holds rows of other bundles or frames", str(run.out), fix)
    return saved


def make(
    seen: Calibrated,
    method: Method,
    out: Path,
    kept: Mapping[str, tuple[str, ...]] | None = None,
    typing: str = "float32",
) -> Bundle:
    """One row's bundle; kept: names of the layers of each part that stay float."""
    parts = {
        name: quantize_part(part, seen.collection, method, (kept or {}).get(name, ()))
        for name, part in seen.parts.items()
    }
    return write(seen, parts, out, method, {}, typing)


def _jittered(seen: Calibrated, part: Part, method: Method, seed: int) -> Quantized:
    """With every range changed at random, alike where it is shared."""
    groups, random = part.groups(), np.random.default_rng(seed)
    amax = solve_all(part, quantized_tensors(part, groups), seen.collection, method)
    factors = {value: random.uniform(0.98, 1.02) for value in dict.fromkeys(amax.values())}
    return with_amax(part, groups, {name: value * factors[value] for name, value in amax.items()}, method)


def _bytes(made: Bundle) -> dict[str, int]:
    return {name: entry["bytes"] for name, entry in made.manifest["files"].items()}


def speed(one: Bundle, other: Bundle, threads: int, runs: int = 30) -> dict[str, float]:
    """Median milliseconds of both parts on the golden frame, float and INT8 in integer kernels, taken in turns; and their ratio."""
    from imkd_edge.detector import Detector

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
