"""Parts in float16 and in float32: equal integers give equal values; elsewhere some values change theirs.

`pytest tests/quantization/test_float16.py -rP` prints the errors that are bounded here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from imkd_edge import Detector
from imkd_edge.bundle import PARTS
from imkd_edge.calibration.solvers import Method
from imkd_edge.engines.float16 import to_half
from imkd_edge.quantization.calibrate import calibrate
from imkd_edge.quantization.ptq import quantize_part
from imkd_edge.quantization.qat import exact_session
from imkd_edge.quantization.state import Calibration

FRAMES = 3


@dataclass(frozen=True)
class Typed:
    """A part without pairs and in INT8, and its inputs on some frames."""

    plain: onnx.ModelProto
    int8: onnx.ModelProto
    frames: list[dict[str, np.ndarray]]


def typed(calibration: Calibration, name: str) -> Typed:
    part = calibration.parts[name]
    shapes = {item.name: part.shapes[item.name] for item in part.graph.input}
    names, frames = calibration.frames.names[:FRAMES], []
    with Detector(calibration.bundle, calibration.source[names[0]].rig, threads=1) as detector:
        for sample in (calibration.source[frame] for frame in names):
            detector.infer_sample(sample)
            frames.append({key: detector.tensors()[key].reshape(shape).copy() for key, shape in shapes.items()})
    return Typed(part.model, quantize_part(part, calibration.collection, Method()).model, frames)


@pytest.fixture(scope="module")
def real(few_real: Path, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    """astyx-lite, calibrated on sixteen real frames."""
    return calibrate("astyx-lite", str(few_real), "val", {}, 16, tmp_path_factory.mktemp("real") / "c.npz", threads=1)


@pytest.fixture(scope="module", params=["tiny", "astyx-lite"])
def parts(request: pytest.FixtureRequest) -> dict[str, Typed]:
    calibration = request.getfixturevalue("calibration" if request.param == "tiny" else "real")
    return {name: typed(calibration, name) for name in PARTS}


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    return dict(zip(names, exact_session(model, 1).run(names, inputs), strict=True))


def nmse(values: list[dict[str, np.ndarray]], expected: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """Of each tensor, over all frames."""
    square = lambda values: float((values.astype(np.float64) ** 2).sum())  # noqa: E731
    errors = {k: sum(square(a[k] - b[k]) for a, b in zip(values, expected, strict=True)) for k in expected[0]}
    return {k: error / sum(square(frame[k]) for frame in expected) for k, error in errors.items()}


def both(model: onnx.ModelProto, frames: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """NMSE of the outputs in float16."""
    names = [item.name for item in model.graph.output]
    half = to_half(model)
    values, expected = ([run(form, frame, names) for frame in frames] for form in (half, model))
    return nmse(values, expected)


def with_integers(model: onnx.ModelProto, as_inputs: bool) -> onnx.ModelProto:
    """The integers of every pair as outputs; as_inputs: their readers read inputs "NAME_given" instead."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    names = {node.output[0] for node in copy.graph.node if node.op_type == "QuantizeLinear"}
    shapes = onnx.shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True).graph.value_info
    integers = [item for item in shapes if item.name in names]
    assert len(integers) == len(names)
    copy.graph.output.extend(integers)
    for node in copy.graph.node if as_inputs else ():
        node.input[:] = [f"{name}_given" if name in names else name for name in node.input]
    for item in integers if as_inputs else ():
        copy.graph.input.add().CopyFrom(onnx.helper.make_value_info(f"{item.name}_given", item.type))
    return copy


# ---- no value crosses a rounding edge: the bound of 1e-4 holds ----
@pytest.mark.parametrize("name", PARTS)
def test_a_part_without_pairs_is_the_same(parts: dict[str, Typed], name: str) -> None:
    errors = both(parts[name].plain, parts[name].frames)
    print("without pairs", errors)
    assert max(errors.values()) <= 1e-4


@pytest.mark.parametrize("name", PARTS)
def test_the_same_integers_give_the_same_values(parts: dict[str, Typed], name: str) -> None:
    """Each layer reads the integers of float32: outputs are equal, few of its integers are one or two off."""
    model, frames = parts[name].int8, parts[name].frames
    outputs = [item.name for item in model.graph.output]
    full, half = with_integers(model, False), with_integers(to_half(model), True)
    integers = [item.name for item in full.graph.output if item.name not in outputs]
    expected = [run(full, frame, outputs + integers) for frame in frames]
    values = [
        run(half, {**frame, **{f"{k}_given": reference[k] for k in integers}}, outputs + integers)
        for frame, reference in zip(frames, expected, strict=True)
    ]
    errors = nmse([{k: v[k] for k in outputs} for v in values], [{k: e[k] for k in outputs} for e in expected])
    steps = {
        k: np.stack([np.abs(v[k].astype(int) - e[k]) for v, e in zip(values, expected, strict=True)]) for k in integers
    }
    moved = {key: (step > 0).mean() for key, step in steps.items()}
    share = sum((step > 0).sum() for step in steps.values()) / sum(step.size for step in steps.values())
    print("the same integers", errors, "moved", share, "most", max(moved.items(), key=lambda item: item[1]))
    assert max(errors.values()) <= 1e-5
    assert max(moved.values()) <= 0.05 and max(step.max() for step in steps.values()) <= 2


# ---- values cross rounding edges ----
@pytest.mark.parametrize("name", PARTS)
def test_both_forms_are_as_far_from_float(parts: dict[str, Typed], name: str) -> None:
    """Moved integers add up over a deep part, but both forms stay closer to each other than to float.

    Float16 is at most 15 % farther from float than float32 is.
    """
    model, frames = parts[name].int8, parts[name].frames
    names = [item.name for item in model.graph.output]
    exact = [run(parts[name].plain, frame, names) for frame in frames]
    full, half = ([run(form, frame, names) for frame in frames] for form in (model, to_half(model)))
    moved, first, second = nmse(half, full), nmse(full, exact), nmse(half, exact)
    print("whole", moved, "float32 against float", first, "float16 against float", second)
    for key in names:
        assert moved[key] < first[key] and second[key] <= 1.15 * first[key], (key, moved[key], first[key], second[key])
