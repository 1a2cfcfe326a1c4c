"""The float16 typing beside the float32 one: the same integers give the same values; elsewhere values change their integer.

`pytest tests/quantization/test_half.py -rP` prints the errors that are bounded here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from imkd_edge.calibration.solvers import Method
from imkd_edge.quantization.half import to_half
from imkd_edge.quantization.ptq import quantize_part
from imkd_edge.quantization.quantize import Calibrated, calibrate
from imkd_edge.quantization.sensitivity import Probe, exact_session

FRAMES = 3


@dataclass(frozen=True)
class Typed:
    """A part without pairs and in INT8, and its inputs on some frames."""

    plain: onnx.ModelProto
    int8: onnx.ModelProto
    probe: Probe


def typed(seen: Calibrated, name: str) -> Typed:
    part = seen.parts[name]
    probe = Probe.of(seen.bundle, part, seen.source, seen.frames.names[:FRAMES], 1)
    return Typed(part.model, quantize_part(part, seen.collection, Method()).model, probe)


@pytest.fixture(scope="module")
def real(few_real: Path, tmp_path_factory: pytest.TempPathFactory) -> Calibrated:
    """astyx-lite, calibrated on sixteen real frames."""
    return calibrate(
        "astyx-lite", str(few_real), "val", {}, 16, tmp_path_factory.mktemp("real") / "c.npz", threads=1
    )


@pytest.fixture(scope="module", params=["tiny", "astyx-lite"])
def parts(request: pytest.FixtureRequest) -> dict[str, Typed]:
    calibrated = request.getfixturevalue("seen" if request.param == "tiny" else "real")
    return {name: typed(calibrated, name) for name in ("camera", "bev")}


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    return dict(zip(names, exact_session(model, 1).run(names, inputs), strict=True))


def nmse(found: list[dict[str, np.ndarray]], expected: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """Of each tensor, over all frames."""
    square = lambda values: float((values.astype(np.float64) ** 2).sum())  # noqa: E731
    apart = {k: sum(square(a[k] - b[k]) for a, b in zip(found, expected, strict=True)) for k in expected[0]}
    return {k: error / sum(square(values[k]) for values in expected) for k, error in apart.items()}


def both(model: onnx.ModelProto, probe: Probe) -> dict[str, float]:
    """NMSE of the float16 typing's outputs."""
    names = [item.name for item in model.graph.output]
    half = to_half(model)
    return nmse(
        [run(half, given, names) for given in probe.inputs], [run(model, given, names) for given in probe.inputs]
    )


def with_integers(model: onnx.ModelProto, given: bool) -> onnx.ModelProto:
    """The integers of every pair as outputs; given: what reads them takes them from inputs "NAME_given" instead."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    made = {node.output[0] for node in copy.graph.node if node.op_type == "QuantizeLinear"}
    shapes = onnx.shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True).graph.value_info
    integers = [item for item in shapes if item.name in made]
    assert len(integers) == len(made)
    copy.graph.output.extend(integers)
    for node in copy.graph.node if given else ():
        node.input[:] = [f"{name}_given" if name in made else name for name in node.input]
    for item in integers if given else ():
        copy.graph.input.add().CopyFrom(onnx.helper.make_value_info(f"{item.name}_given", item.type))
    return copy


# ---- no rounding edge is crossed: the bound of 1e-4 holds ----
@pytest.mark.parametrize("name", ["camera", "bev"])
def test_a_part_without_pairs_is_the_same(parts: dict[str, Typed], name: str) -> None:
    errors = both(parts[name].plain, parts[name].probe)
    print("without pairs", errors)
    assert max(errors.values()) <= 1e-4


@pytest.mark.parametrize("name", ["camera", "bev"])
def test_the_same_integers_give_the_same_values(parts: dict[str, Typed], name: str) -> None:
    """Each layer is given the float32 typing's integers: it says the same, and few of its own integers are one or two away."""
    model, probe = parts[name].int8, parts[name].probe
    outputs = [item.name for item in model.graph.output]
    full, half = with_integers(model, False), with_integers(to_half(model), True)
    integers = [item.name for item in full.graph.output if item.name not in outputs]
    expected = [run(full, given, outputs + integers) for given in probe.inputs]
    found = [
        run(half, {**given, **{f"{k}_given": wanted[k] for k in integers}}, outputs + integers)
        for given, wanted in zip(probe.inputs, expected, strict=True)
    ]
    errors = nmse([{k: f[k] for k in outputs} for f in found], [{k: e[k] for k in outputs} for e in expected])
    apart = {
        k: np.stack([np.abs(f[k].astype(int) - e[k]) for f, e in zip(found, expected, strict=True)]) for k in integers
    }
    moved = {key: (steps > 0).mean() for key, steps in apart.items()}
    every = sum((steps > 0).sum() for steps in apart.values()) / sum(steps.size for steps in apart.values())
    print("the same integers", errors, "moved", every, "most", max(moved.items(), key=lambda item: item[1]))
    assert max(errors.values()) <= 1e-5
    assert max(moved.values()) <= 0.05 and max(steps.max() for steps in apart.values()) <= 2


# ---- and where edges are crossed ----
@pytest.mark.parametrize("name", ["camera", "bev"])
def test_both_typings_are_as_far_from_float(parts: dict[str, Typed], name: str) -> None:
    """Moved integers add up over a deep part: the typings are nearer to each other than to float, and float16 is no farther from it."""
    model, probe = parts[name].int8, parts[name].probe
    names = [item.name for item in model.graph.output]
    exact = [dict(zip(names, values, strict=True)) for values in probe.outputs]
    full, half = ([run(form, given, names) for given in probe.inputs] for form in (model, to_half(model)))
    moved, first, second = nmse(half, full), nmse(full, exact), nmse(half, exact)
    print("whole", moved, "float32 typing against float", first, "float16 typing against float", second)
    for key in names:
        assert moved[key] < first[key] and second[key] <= 1.1 * first[key], (key, moved[key], first[key], second[key])
