"""The predictor: its arithmetic on networks computed by hand, and its errors on published times."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from imkd_edge.errors import Error
from imkd_edge.predict import published
from imkd_edge.predict.layers import Layer, in_int8, layers
from imkd_edge.predict.roofline import COMPUTE, DEVICES, GAP, MEMORY, Constants, layer_time, predict

ORIN = DEVICES["orin-agx-64"]


def model(
    nodes, weights: dict[str, tuple[int, ...]], inputs: dict[str, list[int]], outputs: dict[str, list[int]]
) -> bytes:
    def info(shapes):
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    initializers = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()]
    initializers.append(numpy_helper.from_array(np.zeros((), np.int8), "zero"))
    graph = helper.make_graph(nodes, "hand", info(inputs), info(outputs), initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()


def conv(data: str, weight: str, out: str, **attributes):
    return helper.make_node("Conv", [data, weight], [out], pads=[1, 1, 1, 1], name=out, **attributes)


def test_a_convolution_fuses_its_activation_and_its_residual() -> None:
    nodes = [
        conv("x", "w1", "a", strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        conv("b", "w2", "c"),
        helper.make_node("Add", ["c", "b"], ["d"]),
        helper.make_node("Relu", ["d"], ["y"]),
    ]
    network = layers(model(nodes, {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3)}, {"x": [1, 3, 16, 16]}, {"y": [1, 8, 8, 8]}))
    x, b, weights1, weights2 = 3 * 16 * 16, 8 * 8 * 8, 8 * 3 * 9, 8 * 8 * 9
    assert network == [
        Layer("a", "Conv", multiply_adds=b * 27, depth=3, read=x, written=b, weights=weights1),
        Layer("c", "Conv", multiply_adds=b * 72, depth=8, read=2 * b, written=b, weights=weights2),
    ]


def test_a_tensor_with_two_readers_is_written_and_a_concatenation_is_free() -> None:
    nodes = [
        conv("x", "w", "a"),
        helper.make_node("Sigmoid", ["a"], ["s"]),
        helper.make_node("Mul", ["a", "s"], ["m"]),
        helper.make_node("Concat", ["m", "x"], ["y"], axis=1),
    ]
    network = layers(model(nodes, {"w": (4, 4, 3, 3)}, {"x": [1, 4, 6, 6]}, {"y": [1, 8, 6, 6]}))
    size = 4 * 36
    assert [(layer.kind, layer.read, layer.written) for layer in network] == [
        ("Conv", size, size),
        ("pointwise", 2 * size, size),
    ]


def test_quantized_products_are_int8_and_their_q_and_dq_cost_nothing() -> None:
    def quantized(name: str, to: str):
        return [
            helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{to}_q"]),
            helper.make_node("DequantizeLinear", [f"{to}_q", "scale", "zero"], [to]),
        ]

    nodes = [
        *quantized("x", "xd"),
        *quantized("w", "wd"),
        conv("xd", "wd", "a"),
        *quantized("a", "ad"),
        conv("ad", "w", "y"),
    ]
    weights = {"w": (4, 4, 3, 3), "scale": ()}
    network = layers(model(nodes, weights, {"x": [1, 4, 6, 6]}, {"y": [1, 4, 6, 6]}))
    assert [(layer.int8, layer.int8_out, layer.multiply_adds, layer.weights) for layer in network] == [
        (True, True, 36 * 4 * 36, 144),
        (True, False, 36 * 4 * 36, 144),
    ]


def test_a_layer_takes_the_longer_of_arithmetic_and_traffic_and_the_gap() -> None:
    heavy = Layer("heavy", "Conv", multiply_adds=10**10, depth=64, read=10**6, written=10**6, weights=10**5)
    seconds, limit = layer_time(heavy, ORIN)
    assert limit == "compute" and seconds == pytest.approx(2e10 / (42.6e12 * COMPUTE) + GAP, rel=1e-3)
    light = Layer("light", "pointwise", read=10**7, written=10**7)
    seconds, limit = layer_time(light, ORIN)
    assert limit == "memory" and seconds == pytest.approx(4e7 / (204.8e9 * MEMORY) + GAP)
    narrow = Layer("narrow", "Conv", multiply_adds=10**10, depth=3)  # tensor cores process 16 channels for three
    assert layer_time(narrow, ORIN)[0] - GAP == pytest.approx(16 / 3 * (layer_time(heavy, ORIN)[0] - GAP))
    quick = Layer("quick", "Conv", multiply_adds=10**10, depth=64, int8=True)
    assert layer_time(quick, ORIN)[0] - GAP == pytest.approx((layer_time(heavy, ORIN)[0] - GAP) / 2)


def test_int8_spares_the_first_and_the_last_product_of_a_part() -> None:
    network = in_int8([Layer(str(i), kind) for i, kind in enumerate(["Conv", "MaxPool", "Conv", "Conv", "pointwise"])])
    assert [layer.int8 for layer in network] == [False, False, True, False, False]


def test_the_layers_of_resnet50_are_those_of_the_paper() -> None:
    network = published.resnet50(1, 224, 224)
    convolutions = [layer for layer in network if layer.kind == "Conv"]
    assert len(convolutions) == 53
    # torchvision's table, less the classifier; 25,557,032 less the classifier and the batch norms.
    assert sum(layer.multiply_adds for layer in convolutions) == pytest.approx(4.09e9, rel=0.005)
    assert sum(layer.weights for layer in convolutions) == 23_454_912


def test_the_constants_are_those_of_the_fit_and_the_errors_those_that_are_documented() -> None:
    assert published.fit() == Constants()
    fitted, held_out = published.stages()
    assert all(abs(published.error(stage, Constants())) < 0.02 for stage in fitted)
    errors = {stage.name: published.error(stage, Constants()) for stage in held_out}
    beyond = errors.pop("BEVFusion R50, camera, FP16")  # documented in imkd_edge/predict/README.md
    assert 0.25 < beyond < 0.4 and all(abs(error) < 0.25 for error in errors.values())


def test_a_faster_device_and_a_smaller_type_are_never_slower() -> None:
    kinds = ("fp16", "int8")
    times = {(device, kind): predict("tiny", device, kind)["total_ms"] for device in DEVICES for kind in kinds}
    for kind in kinds:
        ordered = [times[device, kind] for device in ("thor", "orin-agx-64", "orin-nx-16", "orin-nano-8")]
        assert ordered == sorted(ordered)
    assert all(times[device, "int8"] < times[device, "fp16"] for device in DEVICES)
    assert math.isclose(times["thor", "fp16"], predict("tiny", "thor")["total_ms"])  # tiny has no Q/DQ


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(Error) as raised:
        predict("tiny", "xavier")
    assert raised.value.code == "E0511" and "orin-agx-64" in raised.value.fix
