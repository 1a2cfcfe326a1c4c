"""Two bundles of one model, tensor by tensor, on any engines: on the golden frame and on frames of a source."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from imkd_edge.bundle.format import PARTS, Bundle
from imkd_edge.bundle.golden import golden_rig
from imkd_edge.checks.observe import Observable, observe
from imkd_edge.checks.selftest import replay
from imkd_edge.detector import Detector
from imkd_edge.engines.load import EngineFactory, engine_names
from imkd_edge.engines.onnxruntime import OnnxRuntimeEngine
from imkd_edge.errors import Code, Error
from imkd_edge.result import Result
from imkd_edge.sources.select import select

INNER = ("onnxruntime", "torch", "torch-tensorrt")  # engines that show inner tensors
MATCH = 1.0  # m between the centres of two boxes that are one
Shapes = dict[str, tuple[int, ...]]
Track = Callable[[list[str]], Iterable[str]]  # wraps names in a progress bar


@dataclass
class Difference:
    """Of one tensor, over all frames."""

    part: str
    name: str
    output: bool
    largest: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    reference: float = 0.0
    count: int = 0

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        """One more frame: the reference a, and b of the same shape."""
        reference = a.astype(np.float64)
        apart = np.abs(reference - b)
        apart[np.isnan(apart)] = np.inf  # a NaN is never close
        self.largest = max(self.largest, float(apart.max(initial=0.0)))
        self.total, self.count = self.total + float(apart.sum()), self.count + a.size
        self.squares, self.reference = (
            self.squares + float((apart**2).sum()),
            self.reference + float((reference**2).sum()),
        )

    @property
    def nmse(self) -> float:
        """Squared error over squared reference; infinite where only the reference is all zero."""
        return self.squares / self.reference if self.reference else (np.inf if self.squares else 0.0)

    def row(self) -> dict[str, Any]:
        """Its entry of the report; max and mean are of the absolute difference."""
        mean = self.total / self.count
        return {
            "part": self.part,
            "tensor": self.name,
            "output": self.output,
            "max": self.largest,
            "mean": mean,
            "nmse": self.nmse,
        }


@dataclass
class Boxes:
    """How the boxes of both agree, over all frames."""

    a: int = 0
    b: int = 0
    distances: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def add(self, one: Result, other: Result) -> None:
        """Each box of the first takes the nearest free one of its class in the second."""
        self.a, self.b = self.a + len(one.boxes), self.b + len(other.boxes)
        free = np.ones(len(other.boxes), bool)
        for box, score, label in zip(one.boxes, one.scores, one.labels, strict=True):
            apart = np.linalg.norm(other.boxes[:, :3] - box[:3], axis=1)
            apart[~free | (other.labels != label)] = np.inf
            if len(apart) and apart.min() <= MATCH:
                best = int(apart.argmin())
                free[best] = False
                self.distances.append(float(apart[best]))
                self.scores.append(abs(float(score - other.scores[best])))

    def row(self) -> dict[str, Any]:
        """Their entry of the report: boxes of each, matches, and of these mean and largest distance of centres (m), largest of scores."""
        found: dict[str, Any] = {"a": self.a, "b": self.b, "matched": len(self.distances)}
        if self.distances:
            found |= {
                "mean_m": float(np.mean(self.distances)),
                "max_m": max(self.distances),
                "max_score": max(self.scores),
            }
        return found


def compare(
    a: str | os.PathLike[str] | Bundle,
    b: str | os.PathLike[str] | Bundle,
    data: str | None = None,
    *,
    split: str | None = None,
    options: Mapping[str, Any] | None = None,
    limit: int = 8,
    tolerance: float = 0.1,
    engines: Sequence[str] = ("onnxruntime",),
    threads: int = 0,
    track: Track | None = None,
) -> dict[str, Any]:
    """Runs both on the golden frame of the first, and on frames spread over a source.

    The first on the first engine is the reference; the second is compared with it on each of the engines.

    Args:
        data, split, options: of the source; None: the golden frame only.
        limit: frames of the source.
        tolerance: largest NMSE of an output; boxes' regressions are mostly read where nothing is, so that 0.05 may change no box.
        engines: onnxruntime, torch, or another of `engine_names`, of which only outputs are seen: TensorRT fuses inner tensors away.

    Returns:
        {"frames", "tolerance", "within", "reference", "engines": {name: {"within", "worst_output_nmse", "first_divergence": {"part",
        "tensor", ...} or None, "tensors": in the graph's order, "boxes"}}}; first_divergence: the first tensor above the tolerance.

    Raises:
        Error: bundle_tensor_mismatch where the bundles are not of one model; engine_unavailable, missing_extra, engine_load, engine_stale
            for an engine that cannot be opened; those of the source and the bundles.
    """
    bundles = Bundle.load(a), Bundle.load(b)
    if bundles[0].spec.to_json() != bundles[1].spec.to_json():
        fix = "compare two forms of one model, such as NAME.imkd and NAME.int8.imkd"
        raise Error(Code.bundle_tensor_mismatch, "the bundles' specs differ", str(bundles[1].path), fix)
    shapes = _common(bundles)
    outputs = {name for part in PARTS for name in _outputs(bundles[0], part)}
    found = {engine: Comparison.empty(shapes, outputs) for engine in dict.fromkeys(engines)}
    frames = 0
    with ExitStack() as stack:
        wanted = [(bundles[0], engines[0]), *((bundles[1], engine) for engine in found)]
        reference, *others = (open_side(bundle, engine, shapes, threads, stack) for bundle, engine in wanted)
        detectors = [side.detector for side in (reference, *others)]
        for results in _frames(bundles[0], detectors, data, split, options or {}, limit, track):
            for comparison, side, result in zip(found.values(), others, results[1:], strict=True):
                comparison.add(reference, side, results[0], result)
            frames += 1
    rows = {engine: comparison.row(tolerance) for engine, comparison in found.items()}
    within = all(row["within"] for row in rows.values())
    return {"frames": frames, "tolerance": tolerance, "within": within, "reference": engines[0], "engines": rows}


@dataclass
class Side:
    """A bundle on an engine."""

    detector: Detector
    seen: Callable[
        [Difference], np.ndarray | None
    ]  # the tensor on the last frame; None where the engine does not show it


def open_side(bundle: Bundle, engine: str, shapes: Mapping[str, Shapes], threads: int, stack: ExitStack) -> Side:
    """Opens a bundle; onnxruntime and torch show inner tensors, also torch-tensorrt, which makes them outputs and so fuses less."""
    if engine in INNER:
        parts = {part: _observable(bundle.file(f"{part}.onnx"), shapes[part]) for part in PARTS}
        detector, engines = observe(bundle.spec, golden_rig(bundle), parts, shapes, threads, _inner(engine))
        return Side(stack.enter_context(detector), lambda item: engines[item.part].tensors[item.name])
    if engine not in engine_names():
        fix = f"choose of: {', '.join([*INNER[1:], *engine_names()])}"
        raise Error(Code.engine_unavailable, f'there is no engine "{engine}" in this installation', "--engines", fix)
    outer = stack.enter_context(Detector(bundle, golden_rig(bundle), engine=engine, threads=threads))

    def seen(item: Difference) -> np.ndarray | None:
        found = outer.tensors().get(item.name) if item.output else None
        return None if found is None else found.reshape(shapes[item.part][item.name])

    return Side(outer, seen)


def _inner(engine: str) -> EngineFactory:
    if engine == "onnxruntime":
        return OnnxRuntimeEngine
    try:
        from imkd_edge.engines.torch import TorchEngine
    except ModuleNotFoundError as error:
        raise Error(
            Code.missing_extra, f"this needs {error.name}", "--engines torch", 'pip install "imkd-edge[train]"'
        ) from error
    return functools.partial(TorchEngine, compiler=engine)


@dataclass
class Comparison:
    """Of two sides, over all frames."""

    differences: list[Difference]
    boxes: Boxes

    @classmethod
    def empty(cls, shapes: Mapping[str, Shapes], outputs: set[str]) -> Comparison:
        """Before the first frame; `shapes` holds each part's tensors, `outputs` the names of those that are outputs."""
        return cls([Difference(part, name, name in outputs) for part in PARTS for name in shapes[part]], Boxes())

    def add(self, a: Side, b: Side, one: Result, other: Result) -> None:
        """The last frame of both sides and its results, a and `one` being the reference; tensors that a side does not show are left out."""
        for item in self.differences:
            values = a.seen(item), b.seen(item)
            if values[0] is not None and values[1] is not None:
                item.add(values[0], values[1])
        self.boxes.add(one, other)

    def row(self, tolerance: float) -> dict[str, Any]:
        """An engine's entry of the report; it is "within" where no output's NMSE is above the tolerance."""
        shown = [item for item in self.differences if item.count]
        first = next((item for item in shown if not item.nmse <= tolerance), None)
        worst = float(np.max([item.nmse for item in shown if item.output]))  # nan where one is, which max() may drop
        return {
            "within": bool(worst <= tolerance),
            "worst_output_nmse": worst,
            "first_divergence": first and first.row(),
            "boxes": self.boxes.row(),
            "tensors": [item.row() for item in shown],
        }


def _frames(
    bundle: Bundle,
    detectors: Sequence[Detector],
    data: str | None,
    split: str | None,
    options: Mapping[str, Any],
    limit: int,
    track: Track | None,
) -> Iterator[list[Result]]:
    yield [replay(bundle, detector) for detector in detectors]
    if data is None:
        return
    chosen = select(data, split=split, options=options)
    names = chosen.names[:: max(1, len(chosen.names) // limit)][:limit]
    for detector in detectors:
        detector.reset()
    for name in names if track is None else track(names):
        sample = chosen.source[name]
        yield [detector.infer_sample(sample) for detector in detectors]


def _observable(path: Path, shapes: Shapes) -> Observable:
    model = onnx.load(str(path))
    own = {item.name for item in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
        if name not in own
    )
    return Observable(model.SerializeToString(), own)


def _outputs(bundle: Bundle, part: str) -> list[str]:
    return [item.name for item in onnx.load(str(bundle.file(f"{part}.onnx"))).graph.output]


def _common(bundles: tuple[Bundle, Bundle]) -> dict[str, Shapes]:
    """Tensors that both have, in the first one's order."""
    found = {}
    for part in PARTS:
        one, other = (_tensors(bundle.file(f"{part}.onnx")) for bundle in bundles)
        found[part] = {name: shape for name, shape in one.items() if other.get(name) == shape}
    return found


def _tensors(path: Path) -> Shapes:
    """Float tensors that an input reaches, in the graph's order."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(path)), strict_mode=True, data_prop=True).graph
    every = {item.name: item.type.tensor_type for item in [*graph.value_info, *graph.output]}
    reached, found = {item.name for item in graph.input}, {}
    for node in graph.node:
        if not reached & set(node.input):
            continue
        reached |= set(node.output)
        for name in node.output:
            if name in every and every[name].elem_type == onnx.TensorProto.FLOAT:
                found[name] = tuple(d.dim_value for d in every[name].shape.dim)
    return found
