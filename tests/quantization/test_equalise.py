"""Equalisation: the same function in float, whatever carries the factors along, and factors that must not change."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from imkd_edge.bundle import PARTS
from imkd_edge.calibration.histogram import Histogram
from imkd_edge.calibration.solvers import Method
from imkd_edge.engines import torch_graph
from imkd_edge.quantization.equalise import Channels
from imkd_edge.quantization.graph import Part
from imkd_edge.quantization.ptq import modelled_errors, solve_part
from imkd_edge.quantization.state import Calibration

C = 4


def node(kind: str, inputs: list[str], out: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [out], name=out, **attributes)


def conv(source: str, out: str, **attributes: object) -> onnx.NodeProto:
    return node("Conv", [source, f"{out}_w", f"{out}_b"], out, kernel_shape=[3, 3], pads=[1] * 4, **attributes)


def part_of(nodes: list[onnx.NodeProto], more: Mapping[str, np.ndarray] | None = None, channels: int = C) -> Part:
    """images (1, C, 8, 8) -> y (1, channels, 8, 8); convolutions of C channels with random weights and biases."""
    random, constants = np.random.default_rng(0), dict(more or {})
    for item in nodes:
        if item.op_type == "Conv":
            shape = (C, 1 if any(a.name == "group" for a in item.attribute) else C, 3, 3)
            constants.setdefault(item.input[1], random.normal(0, 0.4, shape).astype(np.float32))
            constants.setdefault(item.input[2], random.normal(0, 0.4, C).astype(np.float32))
    info = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n, 8, 8])
        for name, n in (("images", C), ("y", channels))
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "camera", info[:1], info[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return Part(model.SerializeToString(), "camera")


def values_of(part: Part, image: np.ndarray) -> dict[str, np.ndarray]:
    import torch

    values = torch_graph.execute(part.graph, {**torch_graph.constants(part.graph), "images": torch.from_numpy(image)})
    return {name: value.numpy() for name, value in values.items() if isinstance(value, torch.Tensor)}


def observed(part: Part, values: Mapping[str, np.ndarray]) -> dict[str, Histogram]:
    """Histograms of every tensor that a node makes or that comes in."""
    found = {}
    for name in [*(item.name for item in part.graph.input), *part.producer]:
        found[name] = Histogram(values[name].shape[1])
        found[name].add(values[name])
    return found


IMAGE = np.random.default_rng(1).normal(0, 1, (1, C, 8, 8)).astype(np.float32)
SIX = {"zero": np.float32(0), "six": np.float32(6)}
HALF = {"start": np.array([1]), "end": np.array([3]), "axis": np.array([1]), "step": np.array([1])}
SIGMOID = [node("Sigmoid", ["b"], "gate"), conv("a", "c"), node("Relu", ["c"], "d"), node("Mul", ["gate", "d"], "e")]
GRAPHS = {
    "relu": ([conv("images", "a"), node("Relu", ["a"], "b"), conv("b", "y")], {}),
    "depthwise": ([conv("images", "a"), node("Relu", ["a"], "b"), conv("b", "c", group=C), conv("c", "y")], {}),
    "residual": (
        [conv("images", "a"), node("Relu", ["a"], "b"), conv("b", "c"), node("Add", ["c", "b"], "d"), conv("d", "y")],
        {},
    ),
    "relu6": ([conv("images", "a"), node("Clip", ["a", "zero", "six"], "b"), conv("b", "y")], SIX),
    "gate": ([conv("images", "a"), conv("images", "b"), *SIGMOID, conv("e", "y")], {}),
    "concat": (
        [
            *(conv("images", name) for name in "ab"),
            node("Concat", ["a", "b"], "c", axis=1),
            node("Slice", ["c", "start", "end", "axis", "step"], "d"),
            node("Slice", ["c", "start", "end", "axis", "step"], "f"),
            node("Concat", ["d", "f"], "e", axis=1),
            conv("e", "y"),
        ],
        HALF,
    ),
    "pool": (
        [
            conv("images", "a"),
            node("MaxPool", ["a"], "b", kernel_shape=[3, 3], pads=[1] * 4),
            node("Relu", ["b"], "c"),
            conv("c", "y"),
        ],
        {},
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_any_factors_of_free_channels_leave_the_function_as_it_is(name: str) -> None:
    nodes, constants = GRAPHS[name]
    part = part_of(nodes, constants)
    before = values_of(part, IMAGE)
    channels = Channels(part, observed(part, before))
    factor = np.exp2(np.random.default_rng(2).uniform(-2, 2, channels.count))
    factor = np.where(channels.lowest > 0, np.maximum(channels.lowest, np.minimum(factor, 1)), factor)
    factor[~channels.free] = 1
    assert channels.free.any() and (factor != 1).any()
    after, factors = values_of(channels.fold(factor), IMAGE), channels.factors(factor)
    assert np.abs(after["y"] - before["y"]).max() <= 1e-5 * np.abs(before["y"]).max()
    for tensor, divisors in factors.items():  # tensor by tensor, as `compare` undoes it
        expected = before[tensor]
        assert np.allclose(after[tensor] * divisors.reshape(1, -1, 1, 1), expected, atol=1e-5 * np.abs(expected).max())
    assert not {"images", "y", "gate"} & set(factors)


def test_a_relu6_is_stretched_no_further_than_its_values() -> None:
    nodes, constants = GRAPHS["relu6"]
    weight = np.zeros((C, C, 3, 3), np.float32)
    part = part_of(nodes, {**constants, "a_w": weight, "a_b": np.float32([9, 3, 0.5, -1])})
    channels = Channels(part, observed(part, values_of(part, IMAGE)))
    ids = channels.ids["b"]
    assert channels.lowest[ids].tolist() == pytest.approx([1, 3 / 6, 0.5 / 6, 0])
    assert channels.free[ids[:3]].all()


def test_a_channel_that_never_fires_keeps_its_factor() -> None:
    nodes, _ = GRAPHS["relu"]
    bias = np.float32([5, -99, 5, 5])
    part = part_of(nodes, {"a_b": bias})
    histograms = observed(part, values_of(part, IMAGE))
    channels = Channels(part, {"b": histograms["b"], "images": histograms["images"]})
    assert channels.free[channels.ids["b"]].tolist() == [True, False, True, True]


def test_what_a_weight_shared_by_two_layers_makes_is_not_scaled() -> None:
    shared = [
        helper.make_node("Conv", [s, "w", "b0"], [o], name=o, kernel_shape=[3, 3], pads=[1] * 4)
        for s, o in ("ab", "bc")
    ]
    random = np.random.default_rng(0)
    constants = {"w": random.normal(0, 1, (C, C, 3, 3)).astype(np.float32), "b0": np.zeros(C, np.float32)}
    part = part_of([conv("images", "a"), *shared, conv("c", "y")], constants)
    channels = Channels(part, observed(part, values_of(part, IMAGE)))
    assert not any(channels.free[channels.ids[name]].any() for name in "abc")


def test_the_history_and_what_is_fused_for_it_keep_their_scale() -> None:
    from imkd_edge.bundle import Bundle

    part = Part(Bundle.load("tiny-t4").file("bev.onnx").read_bytes(), "bev")
    ones = {
        name: Histogram(part.shapes[name][1], highest=np.ones(part.shapes[name][1]), counts=np.zeros((2, 1, 1)))
        for name in [*(i.name for i in part.graph.input), *part.producer]
        if name not in part.constants
    }
    channels = Channels(part, ones)
    for name in ("history", "camera_bev", "fused", "heatmap", "box"):
        assert not channels.free[channels.ids[name]].any(), name
    assert channels.free.sum() > 100


@pytest.mark.parametrize("name", PARTS)
def test_the_shipped_parts_are_equalised_exactly_and_lose_less(calibration: Calibration, name: str) -> None:
    part, collection = calibration.parts[name], calibration.collection
    solved = solve_part(part, collection, Method())
    assert len(solved.factors) > 3 and all((f > 0).all() for f in solved.factors.values())
    random = np.random.default_rng(0)
    inputs = {i.name: random.normal(0, 1, part.shapes[i.name]).astype(np.float32) for i in part.graph.input}
    one, two = (torch_graph.run(p.model, inputs) for p in (part, solved.part))
    for output, expected in one.items():
        assert np.abs(two[output] - expected).max() <= 1e-5 * max(np.abs(expected).max(), 1), output
    plain = solve_part(part, collection, Method(equalise=False))
    assert sum(modelled_errors(solved, collection).values()) < 0.9 * sum(modelled_errors(plain, collection).values())


def test_the_same_histograms_give_the_same_ranges(calibration: Calibration) -> None:
    one, two = (solve_part(calibration.parts["bev"], calibration.collection, Method()) for _ in range(2))
    assert one.amax == two.amax and one.part.model.SerializeToString() == two.part.model.SerializeToString()
