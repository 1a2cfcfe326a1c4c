"""Two bundles of one model, tensor by tensor, on any engines: on the golden drive and on frames of a source."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from imkd_edge.bundle import PARTS, Bundle, golden_rig
from imkd_edge.bundle.shapes import infer_shapes, static_shape
from imkd_edge.checks.differences import Boxes, Difference
from imkd_edge.checks.observe import Observable, observe
from imkd_edge.checks.selftest import replay
from imkd_edge.detector import Detector
from imkd_edge.engines.load import EngineFactory, engine_names
from imkd_edge.engines.onnxruntime import OnnxRuntimeEngine
from imkd_edge.errors import Code, Error
from imkd_edge.evaluation.fidelity import LOW_SCORE, Fidelity, Outputs
from imkd_edge.options import CompareOptions
from imkd_edge.progress import Track
from imkd_edge.result import Result
from imkd_edge.sources.select import Selection, select
from imkd_edge.sources.timeline import Timeline, infer_with_past
from imkd_edge.spec import ModelSpec

INNER = ("onnxruntime", "torch", "torch-tensorrt")  # engines that expose inner tensors
DEFAULTS = CompareOptions()
Shapes = dict[str, tuple[int, ...]]  # tensor -> shape


def compare(
    a: str | os.PathLike[str] | Bundle,
    b: str | os.PathLike[str] | Bundle,
    data: str | None = None,
    options: CompareOptions = DEFAULTS,
    *,
    source_options: Mapping[str, Any] | None = None,
    threads: int = 0,
    track: Track | None = None,
) -> dict[str, Any]:
    """Runs both on the golden drive of the first, and on frames spread over a source, each after its past.

    Frames that the second bundle was calibrated on are left out. The first bundle on the first engine is the reference;
    the second one is compared with it on each of the engines.

    Args:
        data: the source; None: the golden drive only.
        options: frames, tolerance and engines. Engines of `INNER` expose inner tensors, others of `engine_names` only
            outputs: TensorRT fuses inner tensors away.
        source_options: of the source's reader.

    Returns:
        {"frames", "tolerance", "gate", "within", "reference", "engines": {name: {"within", "worst_output_nmse",
        "first_divergence": {"part", "tensor", ...} or None, "tensors": in the graph's order, "boxes", "fidelity"}}};
        first_divergence: the first tensor whose NMSE is above the tolerance; fidelity: `Fidelity.row` on the source's
        frames, None without a source. "within": the loss is at most the gate; without a source no output's NMSE is
        above the tolerance.

    Raises:
        Error: bundle_tensor_mismatch where the bundles are not of one model; engine_unavailable, missing_extra,
            engine_load, engine_stale for an engine that cannot be opened; those of the source and the bundles.
    """
    engines = options.engines.split(",")
    bundles = Bundle.load(a), Bundle.load(b)
    if bundles[0].spec.to_json() != bundles[1].spec.to_json():
        fix = "compare two forms of one model, such as NAME.imkd and NAME.int8.imkd"
        raise Error(Code.bundle_tensor_mismatch, "the bundles' specs differ", str(bundles[1].path), fix)
    shapes = _common(bundles)
    outputs = {name for part in PARTS for name in _outputs(bundles[0], part)}
    comparisons = {engine: Comparison.empty(bundles[0].spec, shapes, outputs) for engine in dict.fromkeys(engines)}
    chosen = _held_out(bundles[1], data, options, source_options or {})

    frames = 0
    with ExitStack() as stack:
        reference = open_side(bundles[0], engines[0], shapes, threads, stack)
        others = [open_side(bundles[1], engine, shapes, threads, stack) for engine in comparisons]
        detectors = [side.detector for side in (reference, *others)]
        for golden, results in _frames(bundles[0], detectors, chosen, track):
            for comparison, side, result in zip(comparisons.values(), others, results[1:], strict=True):
                comparison.add(reference, side, results[0], result, golden)
            frames += 1

    rows = {engine: comparison.row(options.tolerance, options.gate) for engine, comparison in comparisons.items()}
    return {
        "frames": frames,
        "tolerance": options.tolerance,
        "gate": options.gate,
        "within": all(row["within"] for row in rows.values()),
        "reference": engines[0],
        "engines": rows,
    }


@dataclass
class Side:
    """A bundle on an engine.

    Args:
        tensor: the tensor of a Difference on the last frame, as the float model has it; None where the engine does not
            expose it.
    """

    detector: Detector
    tensor: Callable[[Difference], np.ndarray | None]


def open_side(bundle: Bundle, engine: str, shapes: Mapping[str, Shapes], threads: int, stack: ExitStack) -> Side:
    """Opens a bundle on an engine; torch-tensorrt exposes inner tensors as outputs and therefore fuses less."""
    if engine in INNER:
        parts = {part: _observable(bundle.read(f"{part}.onnx"), shapes[part]) for part in PARTS}
        detector, engines = observe(bundle.spec, golden_rig(bundle), parts, shapes, threads, _inner(engine), LOW_SCORE)
        factors = _factors(bundle, shapes)

        def inner(item: Difference) -> np.ndarray:
            return engines[item.part].tensors[item.name] * factors.get((item.part, item.name), np.float32(1))

        return Side(stack.enter_context(detector), inner)
    if engine not in engine_names():
        fix = f"choose of: {', '.join(dict.fromkeys([*INNER[1:], *engine_names()]))}"
        raise Error(Code.engine_unavailable, f'there is no engine "{engine}" in this installation', "--engines", fix)
    detector = stack.enter_context(
        Detector(bundle, golden_rig(bundle), engine=engine, threads=threads, score_threshold=LOW_SCORE)
    )

    def output(item: Difference) -> np.ndarray | None:
        values = detector.tensors().get(item.name) if item.output else None
        return None if values is None else values.reshape(shapes[item.part][item.name])

    return Side(detector, output)


def _factors(bundle: Bundle, shapes: Mapping[str, Shapes]) -> dict[tuple[str, str], np.ndarray]:
    """(part, tensor) -> what the quantization divided its channels by, for a product with the tensor."""
    parts = bundle.manifest["provenance"].get("quantization", {}).get("parts", {})
    return {
        (part, name): np.array(group["factors"], np.float32).reshape(1, -1, *[1] * (len(shapes[part][name]) - 2))
        for part, card in parts.items()
        for group in card.get("equalised", [])
        for name in group["tensors"]
        if name in shapes[part]
    }


def _inner(engine: str) -> EngineFactory:
    """An engine of INNER."""
    if engine == "onnxruntime":
        return OnnxRuntimeEngine
    try:
        from imkd_edge.engines.torch import TorchEngine
    except ModuleNotFoundError as error:
        what, fix = f"this needs {error.name}", 'pip install "imkd-edge[train]"'
        raise Error(Code.missing_extra, what, "--engines torch", fix) from error
    return functools.partial(TorchEngine, compiler=engine)


@dataclass
class Comparison:
    """Of two sides, over all frames."""

    differences: list[Difference]
    boxes: Boxes
    fidelity: Fidelity

    @classmethod
    def empty(cls, spec: ModelSpec, shapes: Mapping[str, Shapes], outputs: set[str]) -> Comparison:
        """Before the first frame.

        Args:
            shapes: of each part's tensors.
            outputs: names of the tensors that are outputs.
        """
        differences = [Difference(part, name, name in outputs) for part in PARTS for name in shapes[part]]
        return cls(differences, Boxes(spec.head.score_threshold), Fidelity(spec))

    def add(self, a: Side, b: Side, one: Result, other: Result, golden: bool) -> None:
        """Adds the last frame of both sides and its results; a and `one` are the reference.

        Tensors that a side does not expose are left out; frames of the golden drive, of the fidelity.
        """
        for item in self.differences:
            reference, values = a.tensor(item), b.tensor(item)
            if reference is not None and values is not None:
                item.add(reference, values)
        self.boxes.add(one, other)
        if not golden:
            tensors = a.detector.tensors()
            reference_outputs, other_outputs = (
                Outputs.of(a.detector.spec, side.detector.tensors(), (r.boxes, r.scores, r.names))
                for side, r in ((a, one), (b, other))
            )
            self.fidelity.add(reference_outputs, other_outputs, tensors["radar_grid"])

    def row(self, tolerance: float, gate: float) -> dict[str, Any]:
        """An engine's entry of the report; it is "within" as `compare` says."""
        compared = [item for item in self.differences if item.count]
        first = next((item for item in compared if not item.nmse <= tolerance), None)
        worst = float(np.max([item.nmse for item in compared if item.output]))  # NaN where one is; max() may drop it
        fidelity = self.fidelity.row() if self.fidelity.frames else None
        return {
            "within": bool(worst <= tolerance if fidelity is None else fidelity["loss"] <= gate),
            "fidelity": fidelity,
            "worst_output_nmse": worst,
            "first_divergence": first and first.row(),
            "boxes": self.boxes.row(),
            "tensors": [item.row() for item in compared],
        }


def _held_out(
    bundle: Bundle, data: str | None, options: CompareOptions, source_options: Mapping[str, Any]
) -> Selection | None:
    """Frames spread over the source, without those that the bundle was calibrated on."""
    if data is None:
        return None
    selection = select(data, split=options.split, options=source_options)
    calibrated = set(bundle.manifest["provenance"].get("quantization", {}).get("frames", []))
    names = [name for name in selection.names if name not in calibrated]
    if not names:
        fix = "compare on another split or recording"
        raise Error(Code.source_unknown_frame, "the bundle was calibrated on every frame", data, fix)
    return Selection(selection.source, names[:: max(1, len(names) // options.limit)][: options.limit])


def _frames(
    bundle: Bundle, detectors: Sequence[Detector], selection: Selection | None, track: Track | None
) -> Iterator[tuple[bool, list[Result]]]:
    """Whether the frame is of the golden drive, and the results of all detectors, frame by frame."""
    yield from ((True, list(results)) for results in zip(*(replay(bundle, d) for d in detectors), strict=True))
    if selection is None:
        return
    timeline = Timeline(selection.source, bundle.spec.history)
    for name in selection.names if track is None else track(selection.names):
        samples = list(timeline.walk(name))
        yield False, [infer_with_past(detector, samples) for detector in detectors]


def _observable(onnx_part: bytes, shapes: Shapes) -> Observable:
    model = onnx.load_from_string(onnx_part)
    outputs = {item.name for item in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
        if name not in outputs
    )
    return Observable(model.SerializeToString(), outputs)


def _outputs(bundle: Bundle, part: str) -> list[str]:
    return [item.name for item in onnx.load_from_string(bundle.read(f"{part}.onnx")).graph.output]


def _common(bundles: tuple[Bundle, Bundle]) -> dict[str, Shapes]:
    """Tensors of both bundles with equal shapes, by part, in the first one's order."""
    shapes = {}
    for part in PARTS:
        one, other = (_tensors(bundle.read(f"{part}.onnx")) for bundle in bundles)
        shapes[part] = {name: shape for name, shape in one.items() if other.get(name) == shape}
    return shapes


def _tensors(onnx_part: bytes) -> Shapes:
    """Float tensors that depend on an input, in the graph's order."""
    graph = infer_shapes(onnx_part)
    items = {item.name: item for item in [*graph.value_info, *graph.output]}
    floats = {name for name, item in items.items() if item.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    variable = {item.name for item in graph.input}
    shapes: Shapes = {}
    for node in graph.node:
        if variable & set(node.input):
            variable |= set(node.output)
            shapes |= {name: tuple(static_shape(items[name])) for name in node.output if name in floats}
    return shapes
