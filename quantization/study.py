"""Every calibrator evaluated, from one calibration pass: `python -m imkd_edge.quantization.study BUNDLE --data DATA`.

Several bundles are trained seeds of one model: the summary has means and standard errors over them, differences paired
by seed, and on KITTI's protocol intervals from frames resampled in blocks. An interrupted command resumes where it
stopped.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.bundle import Bundle, write_atomically
from imkd_edge.bundle.files import plain, strict_json
from imkd_edge.calibration.collect import Collection
from imkd_edge.calibration.solvers import Method
from imkd_edge.cli.common import bar, log, parse_options
from imkd_edge.errors import Code, Error
from imkd_edge.evaluation import kitti
from imkd_edge.evaluation.compare import compare
from imkd_edge.evaluation.run import evaluate_bundle
from imkd_edge.options import CompareOptions, EvalOptions, RunOptions
from imkd_edge.quantization.accept import Accepted, HeldOut, accept
from imkd_edge.quantization.calibrate import calibrate, radar_collection
from imkd_edge.quantization.noise import jittered, noisy_weights
from imkd_edge.quantization.ptq import QuantizedPart, SolvedPart
from imkd_edge.quantization.quantize import Recipe, solve_parts, write
from imkd_edge.quantization.radar_weight import KINDS, OWN, blend
from imkd_edge.quantization.speed import speed
from imkd_edge.quantization.state import Training
from imkd_edge.quantization.study_options import parser
from imkd_edge.sources.files import read_json
from imkd_edge.training.ablation_report import summary, table

CALIBRATORS: list[tuple[str, dict[str, Any]]] = [
    ("max", {}),
    ("percentile", {"percentile": 99.9}),
    ("percentile", {"percentile": 99.99}),
    ("mse", {}),
    ("fisher", {"equalise": False}),
    ("fisher", {}),
]
TRAINING_ROWS = {True: "fisher, trained", False: "fisher, refined"}  # Training.weights -> start of the row's name


def methods(bits: list[int], names: list[str] | None = None) -> Iterator[Method]:
    """The rows of the table; names: only these calibrators."""
    for width in bits:
        for name, settings in CALIBRATORS:
            if names is None or name in names:
                yield Method(name, width, **settings)


def label(method: Method) -> str:
    """A row's name, such as "percentile 99.9, 8 bits"."""
    setting = f" {method.percentile:g}" if method.name == "percentile" else ""
    setting = setting if method.share is None else f" {method.share:g}"
    plain = " without equalisation" if method.sensitive and not method.equalise else ""
    return f"{method.name}{setting}{plain}, {method.bits} bits"


def recipe_of(method: Method) -> Recipe:
    """As `quantize` makes it by default; the other calibrators are shown alone."""
    return Recipe(method, correct=method.sensitive)


class Study:
    """The rows of one bundle, each written as soon as it is measured.

    Args:
        run: the command's arguments.
        seed: index of the bundle among the command's.
        result: of all bundles; "runs" grows.
        folder: for the bundles that are measured.
    """

    def __init__(self, run: argparse.Namespace, seed: int, result: dict[str, Any], folder: Path) -> None:
        self._run, self._seed, self._folder, self.result = run, seed, folder, result
        self._source_options = parse_options(run.option)
        state = run.state / f"{seed}.npz" if run.state else None
        bundle, split = run.bundles[seed], run.calibration_split
        options, every = self._source_options, slice(run.subset[0], None, run.subset[1])
        self.calibration = calibrate(bundle, run.data, split, options, run.frames, state, run.threads, bar, every)
        result.update(frames=self.calibration.frames.names, stress=self.calibration.frames.stress)

    def row(self, title: str, make_bundle: Callable[[], Bundle], **settings: Any) -> Bundle | None:
        """Makes and measures a bundle; None where the file has this row already."""
        if any((row["row"], row["seed"]) == (title, self._seed) for row in self.result["runs"]):
            return None
        bundle = make_bundle()
        measured = self._evaluate(bundle)
        card = bundle.manifest["provenance"].get("quantization")
        if card:
            sizes = {name: entry["bytes"] for name, entry in bundle.manifest["files"].items()}
            settings |= {"bytes": sizes, "int8_share": card["int8_share"]}
        draws = {metric: np.round(values, 3).tolist() for metric, values in measured.get("bootstrap", {}).items()}
        row = {"row": title, "seed": self._seed, **settings, "metrics": measured["metrics"], "bootstrap": draws}
        if bundle is not self.calibration.bundle:
            row["fidelity"] = self._fidelity(bundle)
        self.result["runs"].append(plain(row))
        self.result["summary"] = summaries(self.result["runs"])
        text = strict_json(self.result, indent=1, sort_keys=True) + "\n"
        write_atomically(self._run.out, text.encode())
        log().print(f"{self._run.bundles[self._seed]}: {title}")
        return bundle

    def _evaluate(self, bundle: Bundle) -> dict[str, Any]:
        run, kitti_protocol = self._run, self.calibration.source.kind == "astyx"
        options = EvalOptions(
            split=run.split,
            limit=run.limit,
            per_block=kitti_protocol,
            per_radar=kitti_protocol,
            resamples=kitti.RESAMPLES,
        )
        return evaluate_bundle(
            str(bundle.path),
            run.data,
            options,
            source_options=self._source_options,
            run=RunOptions(threads=run.threads),
            track=bar("eval"),
        )

    def _fidelity(self, bundle: Bundle) -> dict[str, Any]:
        """`Fidelity.row` on frames of the measured split."""
        options = CompareOptions(split=self._run.split)
        result = compare(
            self.calibration.bundle,
            bundle,
            self._run.data,
            options,
            source_options=self._source_options,
            threads=self._run.threads,
            track=bar("compare"),
        )
        return result["engines"]["onnxruntime"]["fidelity"]

    def calibrators(self) -> None:
        """The float bundle, every method at every width, the default refined and trained."""
        self.row("float", lambda: self.calibration.bundle)
        for method in methods(self._run.bits, self._run.methods):
            reference = method == Method()
            bundle = self.row(label(method), self._maker(recipe_of(method)), **asdict(method))
            if bundle and reference:
                self.result["speed"] = speed(self.calibration.bundle, bundle, self._run.threads)
            if method.sensitive and method.equalise:
                self.row(f"{label(method)}, not corrected", self._maker(Recipe(method)), **asdict(method))
        for bits, (steps, weights) in product(self._run.bits, ((self._run.refine, False), (self._run.qat, True))):
            if steps:
                self.trained(Method("fisher", bits), Training(steps, seed=self._seed, weights=weights))

    def trained(self, method: Method, training: Training) -> None:
        """Training, or refinement, from a method's scales."""
        from imkd_edge.quantization.qat import train_parts

        suffix = "" if training.weights else ".scales"
        state = (self._run.state or self._folder) / f"{self._seed}.{method.bits}{suffix}.pt"

        def make_bundle() -> Bundle:
            solved = self._solved(Recipe(method))
            parts = train_parts(self.calibration, solved, training, state, self._run.threads, bar)
            return write(self.calibration, parts, self._folder / "row.imkd", Recipe(method, training))

        title = f"{TRAINING_ROWS[training.weights]}, {method.bits} bits"
        self.row(title, make_bundle, **asdict(method), training=asdict(training))

    def radar(self) -> None:
        """fisher, and riac with each share of the radar's map, of its mirror image, and of another frame's map."""
        fisher = [Method("fisher", bits) for bits in self._run.bits]
        for method in fisher:
            self.row(label(method), self._maker(recipe_of(method)), **asdict(method))
        for kind in KINDS:
            state = self._run.state and self._run.state / f"{self._seed}.{kind}.npz"
            weighted = radar_collection(self.calibration, kind, state, self._run.threads, bar)
            for bits, share in product(self._run.bits, self._run.radar_share):
                method = Method("riac", bits, share=share)
                collection = blend(self.calibration.collection, weighted, share)
                title = label(method) + ("" if kind == OWN else f", {kind} map")
                self.row(title, self._maker(recipe_of(method), collection, kind), **asdict(method), map=kind)

    def rivals(self) -> None:
        """fisher, and other tools on the same frames with the same layers in float."""
        from imkd_edge.quantization.rivals import rival_bundle, rival_name

        self.row(label(Method()), self._maker(recipe_of(Method())), **asdict(Method()))
        out, threads = self._folder / "rival.imkd", self._run.threads
        for name in self._run.rivals:
            make_bundle = functools.partial(rival_bundle, self.calibration, name, out, threads, self._run.modelopt)
            self.row(rival_name(name), make_bundle, rival=name)

    def jitter(self) -> None:
        """Changes at random that are no better and no worse: the spread of their metrics is noise."""
        from imkd_edge.quantization.rivals import unchecked_bundle

        def noisy_float(draw: int) -> Bundle:
            parts = {name: noisy_weights(part, draw).model for name, part in self.calibration.parts.items()}
            files = {name: model.SerializeToString() for name, model in parts.items()}
            return unchecked_bundle(self.calibration, files, self._folder / "row.imkd", jitter=draw)

        def jittered_int8(draw: int, method: Method) -> Bundle:
            recipe = Recipe(method)
            parts = {name: jittered(part, draw).quantized() for name, part in self._solved(recipe).items()}
            return write(self.calibration, parts, self._folder / "row.imkd", recipe)

        self.row("float", lambda: self.calibration.bundle)
        for draw in range(self._run.jitter):
            self.row(f"float, noise {draw}", functools.partial(noisy_float, draw), jitter=draw)
            for method in self._selected_methods():
                make_bundle = functools.partial(jittered_int8, draw, method)
                self.row(f"{label(method)}, jitter {draw}", make_bundle, **asdict(method), jitter=draw)

    def gates(self) -> None:
        """Methods with the most sensitive layers in float."""
        held_out = HeldOut(self.calibration, self._run.threads, bar)
        for gate, method in product(self._run.gate, self._selected_methods()):
            recipe = recipe_of(method)
            accepted = accept(self.calibration, self._solved(recipe), gate, held_out.fidelity)
            parts = {name: part.quantized() for name, part in accepted.parts.items()}
            make_bundle = functools.partial(self._write, parts, recipe, accepted)
            returned = [asdict(item) for item in accepted.returned]
            self.row(f"{label(method)}, gate {gate:g}", make_bundle, **asdict(method), gate=gate, returned=returned)

    def _solved(self, recipe: Recipe, collection: Collection | None = None, kind: str = OWN) -> dict[str, SolvedPart]:
        """The parts by the recipe; collection: instead of the calibration's; kind: of the radar's map."""
        calibration = replace(self.calibration, collection=collection or self.calibration.collection)
        return solve_parts(calibration, recipe, threads=self._run.threads, bar=bar, kind=kind)

    def _write(self, parts: Mapping[str, QuantizedPart], recipe: Recipe, accepted: Accepted | None = None) -> Bundle:
        return write(self.calibration, parts, self._folder / "int8.imkd", recipe, accepted=accepted)

    def _maker(self, recipe: Recipe, collection: Collection | None = None, kind: str = OWN) -> Callable[[], Bundle]:
        """A function that makes one row's bundle; see `_solved`."""

        def make_bundle() -> Bundle:
            parts = {name: part.quantized() for name, part in self._solved(recipe, collection, kind).items()}
            return self._write(parts, recipe)

        return make_bundle

    def _selected_methods(self) -> list[Method]:
        return [Method(name, bits) for bits in self._run.bits for name in self._run.methods or ["percentile", "fisher"]]


def summaries(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the seeds: every row against float, and against "fisher" at the same bits (ablation_report.summary)."""
    by_reference = {"float": summary(runs)}
    for bits in sorted({run["bits"] for run in runs if "bits" in run}, reverse=True):
        reference = label(Method("fisher", bits))
        same_bits = [run for run in runs if run.get("bits") == bits]
        if any(run["row"] == reference for run in same_bits):
            by_reference[reference] = summary(sorted(same_bits, key=lambda run: run["row"] != reference))
    return by_reference


def main(arguments: list[str] | None = None) -> None:
    """Writes one JSON file of rows, and their table to the log."""
    run = parser(__doc__).parse_args(arguments)
    if run.state:
        run.state.mkdir(parents=True, exist_ok=True)
    result = begin(run)
    for seed in range(len(run.bundles)):
        with tempfile.TemporaryDirectory() as folder:
            study = Study(run, seed, result, Path(folder))
            asked = [run.radar_share, run.rivals, run.jitter, run.gate, True]
            instead = [study.radar, study.rivals, study.jitter, study.gates, study.calibrators]
            next(rows for rows, wanted in zip(instead, asked, strict=True) if wanted)()
    for rows in summaries(result["runs"]).values():
        log().print(table(rows))


def begin(run: argparse.Namespace) -> dict[str, Any]:
    """The file's content, or an empty result; raises Error write_failed where it is of other bundles or frames."""
    manifests = [(Bundle.load(bundle).path / "manifest.json").read_bytes() for bundle in run.bundles]
    asked = {key: getattr(run, key) for key in ("calibration_split", "frames", "option", "subset")}
    asked["manifests"] = [hashlib.sha256(manifest).hexdigest()[:16] for manifest in manifests]
    fresh: dict[str, Any] = {
        "bundles": [Path(bundle).name for bundle in run.bundles],
        "split": run.split,
        "limit": run.limit,
        "asked": asked,
        "runs": [],
        "summary": {},
    }
    if not run.out.is_file():
        return fresh
    fix = "name another --out, or repeat the first command to resume it"
    saved, same = read_json(run.out, Code.write_failed, fix), ("bundles", "split", "limit", "asked")
    if not isinstance(saved, dict) or any(saved.get(key) != fresh[key] for key in same):
        raise Error(Code.write_failed, "the file holds rows of other bundles or frames", str(run.out), fix)
    return saved


if __name__ == "__main__":
    main()
