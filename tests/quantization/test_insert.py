"""Positions and scales of Q/DQ pairs; the graph is the same function in ONNX Runtime, in PyTorch and in float16."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from imkd_edge.bundle import PARTS, Bundle, shipped
from imkd_edge.engines import torch_graph
from imkd_edge.engines.float16 import to_half
from imkd_edge.errors import Error
from imkd_edge.quantization.graph import Part
from imkd_edge.quantization.insert import SMALLEST, insert, quantized_tensors, shared_scales, step

SHIPPED_PARTS = [(name, part) for name in shipped() for part in PARTS]


def shipped_part(name: str, part: str) -> Part:
    return Part(Bundle.load(name).file(f"{part}.onnx").read_bytes(), part)


def ranges(part: Part) -> dict[str, float]:
    """Any amax for every tensor, equal where concatenations share a scale."""
    tensors = quantized_tensors(part, part.groups())
    amax = {name: 2.0 + 0.1 * i for i, name in enumerate(tensors)}
    for group in shared_scales(part, tensors):
        amax |= dict.fromkeys(group, 7.0)
    return amax


def inserted(part: Part) -> onnx.ModelProto:
    return insert(part, part.groups(), ranges(part))[0]


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def small_part(nodes: list, weights: dict[str, np.ndarray], outputs: list[str], channels: int = 4) -> Part:
    """images (1, C, 8, 8) -> the outputs; every tensor keeps that size."""
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 8, 8]) for name in outputs]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, channels, 8, 8])
    initializers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "camera", [image], info, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return Part(model.SerializeToString(), "camera")


def conv(source: str, out: str) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, f"{out}_w"], [out], name=out, kernel_shape=[3, 3], pads=[1] * 4)


def weights(*names: str, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {f"{name}_w": random.normal(0, 0.3, (4, 4, 3, 3)) for name in names}


@pytest.mark.parametrize(("name", "part"), SHIPPED_PARTS)
def test_every_pair_is_symmetric_with_a_positive_scale(name: str, part: str) -> None:
    model = inserted(shipped_part(name, part))
    known, pairs = constants(model), 0
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = known[node.input[1]], known[node.input[2]]
            assert (scale > 0).all() and zero.dtype == np.int8 and not zero.any() and scale.shape == zero.shape
            assert np.array_equal(scale, scale.astype(np.float16))  # the same number in both precisions
            pairs += 1
    assert pairs > 20


@pytest.mark.parametrize(("name", "part"), SHIPPED_PARTS)
def test_weights_are_per_output_channel_and_activations_per_tensor(name: str, part: str) -> None:
    model = inserted(shipped_part(name, part))
    known = constants(model)
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            integers, scale = known.get(node.input[0]), known[node.input[1]]
            axis = [a.i for a in node.attribute if a.name == "axis"]
            if integers is None:
                assert scale.shape == () and not axis
            else:
                assert axis == [0] and scale.shape == (integers.shape[0],) and integers.dtype == np.int8


@pytest.mark.parametrize(("name", "part"), SHIPPED_PARTS)
def test_a_tensor_has_one_pair_whoever_reads_it(name: str, part: str) -> None:
    model = inserted(shipped_part(name, part))
    for kind in ("QuantizeLinear", "DequantizeLinear"):
        assert set(Counter(node.input[0] for node in model.graph.node if node.op_type == kind).values()) == {1}


@pytest.mark.parametrize(("name", "part"), SHIPPED_PARTS)
def test_outputs_of_layers_are_not_quantized_by_themselves_and_biases_stay_float(name: str, part: str) -> None:
    source = shipped_part(name, part)
    model = inserted(source)
    outputs = {item.name for item in source.graph.output}
    for node in model.graph.node:
        if node.op_type == "Conv" and len(node.input) > 2:
            assert not node.input[2].endswith("_dq")
        if node.op_type == "DequantizeLinear":
            assert not outputs & set(node.output)


@pytest.mark.parametrize("name", shipped())
def test_what_must_stay_float_stays_float(name: str) -> None:
    camera, bev = (inserted(shipped_part(name, part)) for part in PARTS)
    assert {item.name for item in bev.graph.output} >= {"heatmap", "box"}  # and i_cam, i_rad of a model with gates
    for model in (camera, bev):
        producer = {out: node for node in model.graph.node for out in node.output}
        for output in model.graph.output:
            if output.name == "fused":  # stored for later frames: an inner map of the network, INT8 as they are
                continue
            node = producer[output.name]
            while node.op_type != "Conv":
                node = producer[node.input[0]]
            assert not any(name.endswith("_dq") for name in node.input)
    assert not any("radar_grid" in node.input for node in bev.graph.node if node.op_type == "QuantizeLinear")
    assert sum(group.multiply_adds for group in shipped_part(name, "bev").groups() if not group.float_because) > 0


def test_the_addend_of_a_residual_layer_is_quantized_and_the_layer_is_not() -> None:
    nodes = [
        conv("images", "a"),
        helper.make_node("Relu", ["a"], ["r"], name="r"),
        conv("r", "b"),
        helper.make_node("Add", ["b", "images"], ["sum"], name="sum"),
        conv("sum", "end"),
    ]
    part = small_part(nodes, weights("a", "b", "end"), ["end"])
    model, scales = insert(part, part.groups(), {"images": 1.0, "r": 2.0, "sum": 3.0})
    addition = next(node for node in model.graph.node if node.op_type == "Add")
    assert list(addition.input) == ["b", "images_dq"] and set(scales.activations) == {"images", "r", "sum"}


def test_of_two_layers_the_later_one_fuses_the_addition() -> None:
    nodes = [
        conv("images", "a"),
        conv("images", "b"),
        helper.make_node("Add", ["a", "b"], ["sum"], name="sum"),
        conv("sum", "end"),
    ]
    part = small_part(nodes, weights("a", "b", "end"), ["end"])
    model, _ = insert(part, part.groups(), {"images": 1.0, "a": 2.0, "sum": 3.0})
    addition = next(node for node in model.graph.node if node.op_type == "Add")
    assert list(addition.input) == ["a_dq", "b"]


def test_an_addition_that_no_layer_fuses_gets_no_pair() -> None:
    nodes = [
        conv("images", "a"),
        helper.make_node("Relu", ["a"], ["r"], name="r"),
        helper.make_node("Add", ["r", "images"], ["sum"], name="sum"),
        conv("sum", "end"),
    ]
    part = small_part(nodes, weights("a", "end"), ["end"])
    assert quantized_tensors(part, part.groups()) == ["images", "sum"]


def test_concatenations_that_overlap_share_one_scale() -> None:
    nodes = [
        conv("images", "a"),
        conv("images", "b"),
        helper.make_node("Concat", ["a", "images"], ["one"], name="one", axis=1),
        helper.make_node("Concat", ["b", "images"], ["two"], name="two", axis=1),
        helper.make_node("Conv", ["one", "end_w"], ["end"], name="end", kernel_shape=[1, 1]),
        helper.make_node("Conv", ["two", "fin_w"], ["fin"], name="fin", kernel_shape=[3, 3], pads=[1] * 4),
    ]
    wide = {"end_w": np.ones((4, 8, 1, 1)), "fin_w": np.ones((4, 8, 3, 3))}
    part = small_part(nodes, {**weights("a", "b"), **wide}, ["end", "fin"])
    tensors = quantized_tensors(part, part.groups())
    assert tensors == ["images", "two"]  # end is a last 1x1 layer and stays float
    assert shared_scales(part, tensors) == [{"a", "images", "one", "b", "two"}]


def test_a_channel_and_a_tensor_of_zeros_have_a_positive_scale() -> None:
    values = weights("a", "end")
    values["a_w"][2] = 0
    part = small_part([conv("images", "a"), conv("a", "end")], values, ["end"])
    model, scales = insert(part, part.groups(), {"images": 0.0, "a": 1.0})
    assert scales.activations["images"] == SMALLEST and scales.weights["a_w"][2] == SMALLEST > 0
    assert np.float16(SMALLEST) == SMALLEST
    assert (constants(model)["a_w_q"][2] == 0).all()


def test_fewer_bits_use_only_their_levels() -> None:
    import onnxruntime as ort

    part = small_part([conv("images", "a"), conv("a", "end")], weights("a", "end"), ["end"])
    model, _ = insert(part, part.groups(), {"images": 2.0, "a": 1.0}, levels=31)
    assert max(np.abs(constants(model)["a_w_q"]).max(), np.abs(constants(model)["end_w_q"]).max()) == 31
    model.graph.output.append(helper.make_tensor_value_info("images_dq", TensorProto.FLOAT, [1, 4, 8, 8]))
    image = np.random.default_rng(0).normal(0, 3, (1, 4, 8, 8)).astype(np.float32)
    dequantized = ort.InferenceSession(model.SerializeToString()).run(["images_dq"], {"images": image})[0]
    integers = np.unique(np.rint(dequantized / step(2.0, 31)))
    assert integers.min() == -32 and integers.max() == 31


def test_weights_of_fewer_bits_leave_activations_at_eight() -> None:
    part = shipped_part("tiny", "camera")
    whole, few = inserted(part), insert(part, part.groups(), ranges(part), 127, weight_levels=7)[0]
    assert [node.op_type for node in few.graph.node] == [node.op_type for node in whole.graph.node]  # no value clipped
    weights = [values for values in constants(few).values() if values.dtype == np.int8 and values.ndim == 4]
    assert weights and {(values.min(), values.max()) for values in weights} <= {
        (a, b) for a in (-7, -8) for b in (7, 6)
    }


def test_what_is_quantized_already_is_refused() -> None:
    part = small_part([conv("images", "a")], weights("a"), ["a"])
    model, _ = insert(part, part.groups(), {"images": 1.0})
    with pytest.raises(Error) as error:
        Part(model.SerializeToString(), "camera")
    assert error.value.code == "E0614"


def test_a_batch_normalisation_that_is_not_folded_is_refused() -> None:
    bn = helper.make_node("BatchNormalization", ["a", *["v"] * 4], ["n"], name="n")
    with pytest.raises(Error) as error:
        small_part([conv("images", "a"), bn], {**weights("a"), "v": np.ones(4)}, ["n"])
    assert error.value.code == "E0410"


def test_keep_float_keeps_a_layer_and_its_addition_float() -> None:
    nodes = [conv("images", "a"), helper.make_node("Add", ["a", "images"], ["sum"], name="sum"), conv("sum", "end")]
    part = small_part(nodes, weights("a", "end"), ["end"])
    assert quantized_tensors(part, part.groups(("a",))) == ["sum"]
    assert [group.float_because for group in part.groups(("a",))] == ["chosen", ""]
    assert part.groups()[0].nodes == ("a", "sum")


# ---- engines and float16 ----
def exact_session(model: bytes):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(model, options)


def golden_inputs(session, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {item.name: random.normal(0, 1, item.shape).astype(np.float32) for item in session.get_inputs()}


@pytest.mark.parametrize("part", PARTS)
def test_torch_and_onnxruntime_agree_where_no_value_is_on_an_edge(part: str) -> None:
    """Sums in another order move a few values over a rounding edge, and their effect spreads.

    How many cross depends on the order, and so on the processor. The bound does not: a float32 sum of n terms is off by
    at most n 2^-24 of the sum of their magnitudes, in any order (Higham, Accuracy and Stability of Numerical
    Algorithms, section 4.2). Here n is at most 1152, which makes 7e-5. So the two differ by no more than one of them
    does from itself where each input is off by 1e-4.
    """
    model = inserted(shipped_part("tiny", part))
    session = exact_session(model.SerializeToString())
    inputs = golden_inputs(session)
    kernels = [item for item in model.graph.initializer if len(item.dims) == 4 and item.data_type == TensorProto.INT8]
    longest = max(math.prod(item.dims[1:]) for item in kernels)
    assert longest * 2**-24 <= 1e-4
    random = np.random.default_rng(1)
    moved = {name: value * random.uniform(1 - 1e-4, 1 + 1e-4, value.shape) for name, value in inputs.items()}
    outputs, expected = session.run(None, inputs), torch_graph.run(model, inputs)
    off = session.run(None, {name: value.astype(np.float32) for name, value in moved.items()})
    for item, values, bound in zip(session.get_outputs(), outputs, off, strict=True):
        reference = expected[item.name]
        assert ((values - reference) ** 2).sum() <= ((values - bound) ** 2).sum(), item.name
        assert ((values - reference) ** 2).sum() <= 1e-3 * (reference**2).sum(), item.name
        assert np.median(np.abs(values - reference)) <= np.median(np.abs(values - bound)), item.name


def test_torch_and_onnxruntime_agree_to_1e_4_on_values_that_are_off_the_edges() -> None:
    """Integer weights, steps of powers of two and images on their grid: sums are exact, in any order."""
    random = np.random.default_rng(3)
    values = {f"{name}_w": random.integers(-127, 128, (4, 4, 3, 3)) / 128 for name in ("a", "end")}
    nodes = [conv("images", "a"), helper.make_node("Add", ["a", "images"], ["sum"], name="sum"), conv("sum", "end")]
    part = small_part(nodes, values, ["end"])
    model, _ = insert(part, part.groups(), {"images": 127 / 32, "sum": 127 / 2})
    image = (random.integers(-200, 200, (1, 4, 8, 8)) / 32).astype(np.float32)
    output = exact_session(model.SerializeToString()).run(None, {"images": image})[0]
    assert np.abs(output - torch_graph.run(model, {"images": image})["end"]).max() <= 1e-4


@pytest.mark.parametrize(("name", "part"), SHIPPED_PARTS)
def test_in_half_it_is_float16_between_its_ends(name: str, part: str) -> None:
    model = to_half(inserted(shipped_part(name, part)))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    items = [*inferred.value_info, *inferred.input, *inferred.output]
    types = {item.name: item.type.tensor_type.elem_type for item in items}
    assert {types[item.name] for item in [*inferred.input, *inferred.output]} == {TensorProto.FLOAT}
    for node in inferred.node:
        if node.op_type in ("Conv", "Relu", "Add", "Concat", "DequantizeLinear"):
            assert types[node.output[0]] == TensorProto.FLOAT16
        if node.op_type == "Softmax":
            assert types[node.input[0]] == TensorProto.FLOAT
