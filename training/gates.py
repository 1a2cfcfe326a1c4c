"""What a model's gates carry: their values, and its metrics with a gate replaced by its mean.

`python -m imkd_edge.training.gates BUNDLE --data DATA --condition none no_camera` prints JSON.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from imkd_edge.bundle import PARTS, Bundle
from imkd_edge.bundle.files import plain, strict_json
from imkd_edge.checks.observe import open_parts
from imkd_edge.cli.common import bar
from imkd_edge.detector import Detector
from imkd_edge.errors import Code, Error
from imkd_edge.evaluation.conditions import CONDITIONS, condition
from imkd_edge.evaluation.fidelity import seen_by_radar
from imkd_edge.evaluation.run import choose, evaluate, prediction
from imkd_edge.options import EvalOptions
from imkd_edge.sources.base import Sample

GATES = ("i_cam", "i_rad")
FRAMES = 40  # spread over the split, whose gates are measured


def gate_values(detector: Detector, samples: Iterable[Sample]) -> dict[str, dict[str, Any]]:
    """Mean and standard deviation of each gate over all cells, and its mean where the radar sees and elsewhere.

    Args:
        detector: with debug.
    """
    maps: dict[str, list[np.ndarray]] = {gate: [] for gate in GATES}
    seen = []
    for sample in samples:
        result = detector.infer_sample(sample)
        for gate in GATES:
            maps[gate].append(result.debug[gate].copy())
        seen.append(seen_by_radar(detector.tensors()["radar_grid"], *result.debug[GATES[0]].shape))
    return {gate: _summary(np.stack(values), np.stack(seen)) for gate, values in maps.items()}


def _summary(values: np.ndarray, seen: np.ndarray) -> dict[str, Any]:
    mean = {"seen": values[seen], "unseen": values[~seen]}
    return {
        "mean": float(values.mean()),
        "deviation": float(values.std()),
        **{name: float(part.mean()) if part.size else None for name, part in mean.items()},
    }


def with_constants(bev: bytes, values: Mapping[str, float]) -> bytes:
    """The BEV part whose gates have these values in every cell; its outputs i_cam and i_rad stay what they were."""
    model = onnx.load_from_string(bev)
    for gate, value in values.items():
        constant = f"{gate}_constant"
        model.graph.initializer.append(numpy_helper.from_array(np.full((1, 1, 1, 1), value, np.float32), constant))
        for node in model.graph.node:
            node.input[:] = [constant if name == gate else name for name in node.input]
    return model.SerializeToString()


class Study:
    """The frames of a split through one bundle; raises Error spec_bad_value for one without gates."""

    def __init__(self, bundle: Bundle, data: str, split: str, limit: int | None, threads: int) -> None:
        self._bundle, self._threads = bundle, threads
        self._parts = {name: bundle.file(f"{name}.onnx").read_bytes() for name in PARTS}
        if not {output.name for output in onnx.load_from_string(self._parts["bev"]).graph.output} >= set(GATES):
            fix = "train with [model] gates = true"
            raise Error(Code.spec_bad_value, "the model has no gates", str(bundle.path), fix)
        self._selection = choose(data, split, limit=limit)
        self._rig = self._selection.source[self._selection.names[0]].rig

    def values(self, name: str) -> dict[str, dict[str, Any]]:
        """`gate_values` under a condition of `eval`."""
        names = self._selection.names
        frames = bar(f"gates, {name}")(names[:: max(1, len(names) // FRAMES)])
        with Detector(self._bundle, self._rig, threads=self._threads, debug=True) as detector:
            return gate_values(detector, (condition(name)(self._selection.source[frame]) for frame in frames))

    def metrics(self, name: str, constants: Mapping[str, float]) -> dict[str, Any]:
        """Those of `eval` under a condition, with these gates constant."""
        parts = {**self._parts, "bev": with_constants(self._parts["bev"], constants)}
        title = f"{name}, constant: {' '.join(constants) or 'none'}"
        options = EvalOptions(condition=name)
        spec, rig, threads = self._bundle.spec, self._rig, self._threads
        with open_parts(spec, rig, parts, threads=threads, score_threshold=options.score) as detector:
            return evaluate(self._selection, lambda sample: prediction(detector, sample), options, bar(title))


def main(arguments: list[str] | None = None) -> None:
    """Prints the values by condition, and the metrics by the gates that are constant and by condition."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--condition", nargs="+", choices=CONDITIONS, default=["none"])
    parser.add_argument("--threads", type=int, default=0)
    run = parser.parse_args(arguments)
    study = Study(Bundle.load(run.bundle), run.data, run.split, run.limit, run.threads)
    values = {name: study.values(name) for name in dict.fromkeys(["none", *run.condition])}
    means = {gate: values["none"][gate]["mean"] for gate in GATES}
    constant = {
        " ".join(gates) or "none": {
            name: study.metrics(name, {gate: means[gate] for gate in gates}) for name in run.condition
        }
        for gates in ((), GATES[:1], GATES[1:], GATES)
    }
    print(strict_json(plain({"gates": values, "constant": constant}), indent=1))


if __name__ == "__main__":
    main()
