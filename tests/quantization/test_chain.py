"""Sensitivity: gradients through camera, lift and BEV against finite differences, and as a model of the loss."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from helpers import golden_sample, random_spec
from imkd_edge import ops
from imkd_edge.checks.observe import open_parts
from imkd_edge.evaluation.fidelity import Fidelity, Outputs
from imkd_edge.quantization.chain import Chain
from imkd_edge.quantization.graph import Part

SPEC = random_spec(cameras=2)
H, W = SPEC.grid.height(), SPEC.grid.width()


def conv(source: str, out: str) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, f"{out}_w"], [out], name=out, kernel_shape=[3, 3], pads=[1] * 4)


def part(
    name: str, nodes: list, sizes: dict[str, list[int]], outputs: list[str], arrays: dict[str, np.ndarray]
) -> Part:
    info = {key: helper.make_tensor_value_info(key, TensorProto.FLOAT, size) for key, size in sizes.items()}
    inputs = [info[key] for key in sizes if key not in outputs]
    initializers = [numpy_helper.from_array(value, key) for key, value in arrays.items()]
    graph = helper.make_graph(nodes, name, inputs, [info[key] for key in outputs], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return Part(model.SerializeToString(), name)


def camera_part() -> Part:
    """A strided convolution; depth is a softmax of its first channels, context the rest."""
    random, bins, context = np.random.default_rng(0), SPEC.depth.bins, SPEC.context_channels
    s, size = SPEC.image.stride, [SPEC.image.feature_height(), SPEC.image.feature_width()]
    weight = random.normal(0, 0.03, (bins + context, 3, s, s)).astype(np.float32)
    whole = helper.make_node("Conv", ["images", "w"], ["x"], name="x", kernel_shape=[s, s], strides=[s, s])
    cuts = {"zero": 0, "bins": bins, "end": bins + context, "one": 1}
    arrays = {key: np.array([value]) for key, value in cuts.items()}
    nodes = [
        whole,
        helper.make_node("Slice", ["x", "zero", "bins", "one", "one"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["depth"], axis=1),
        helper.make_node("Slice", ["x", "bins", "end", "one", "one"], ["context"]),
    ]
    sizes = {
        "images": [SPEC.cameras, 3, SPEC.image.height, SPEC.image.width],
        "depth": [SPEC.cameras, bins, *size],
        "context": [SPEC.cameras, context, *size],
    }
    return part("camera", nodes, sizes, ["depth", "context"], {"w": weight, **arrays})


def bev_part() -> Part:
    """camera_bev -> Conv, Relu -> heat map and box, by 3x3 convolutions; the radar grid adds a pooled feature.

    A bias keeps empty cells off the corner of the ReLU.
    """
    random, channels = np.random.default_rng(1), SPEC.context_channels + 1
    classes, boxes, features = len(SPEC.head.classes), 10 * SPEC.head.groups(), len(SPEC.radar.features)
    ratio = SPEC.radar_width() // W
    shapes = {"a_w": (6, channels, 3, 3), "radar_w": (6, features, 3, 3), "heatmap_w": (classes, 6, 3, 3)}
    arrays = {
        key: random.normal(0, 0.2, s).astype(np.float32) for key, s in {**shapes, "box_w": (boxes, 6, 3, 3)}.items()
    }
    arrays["bias"] = np.linspace(-0.6, 1.5, 6, dtype=np.float32).reshape(1, 6, 1, 1)
    nodes = [
        conv("camera_bev", "a"),
        helper.make_node("MaxPool", ["radar_grid"], ["pooled"], kernel_shape=[ratio] * 2, strides=[ratio] * 2),
        conv("pooled", "radar"),
        helper.make_node("Add", ["a", "radar"], ["both"]),
        helper.make_node("Add", ["both", "bias"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["relu"]),
        conv("relu", "heatmap"),
        conv("relu", "box"),
    ]
    sizes = {
        "camera_bev": [1, channels, H, W],
        "radar_grid": [1, features, SPEC.radar_height(), SPEC.radar_width()],
        "heatmap": [1, classes, H, W],
        "box": [1, boxes, H, W],
    }
    return part("bev", nodes, sizes, ["heatmap", "box"], arrays)


@pytest.fixture(scope="module")
def frame() -> SimpleNamespace:
    """The parts, what the networks read on a frame, and the lift's table."""
    parts, sample = {"camera": camera_part(), "bev": bev_part()}, golden_sample(2)
    data = {name: item.model.SerializeToString() for name, item in parts.items()}
    with open_parts(SPEC, sample.rig, data, threads=1) as detector:
        detector.infer_sample(sample)
        shapes = {**parts["camera"].shapes, **parts["bev"].shapes}
        tensors = {k: v.reshape(shapes[k]).copy() for k, v in detector.tensors().items() if k in shapes}
    crops = [ops.image_crop(SPEC.image, c.width, c.height) for c in sample.rig.cameras]
    sessions = {k: ort.InferenceSession(d, providers=["CPUExecutionProvider"]) for k, d in data.items()}
    table = ops.lift_table(SPEC, sample.rig, crops)
    return SimpleNamespace(parts=parts, tensors=tensors, rig=sample.rig, sessions=sessions, table=table)


def of_images(frame: SimpleNamespace) -> Callable[[np.ndarray], list[np.ndarray]]:
    """images -> heat map and box, by ONNX Runtime and the runtime's lift."""

    def run(images: np.ndarray) -> list[np.ndarray]:
        depth, context = frame.sessions["camera"].run(["depth", "context"], {"images": images})
        return of_map(frame)(ops.lift(SPEC, frame.table, depth, context).reshape(1, -1, H, W))

    return run


def of_map(frame: SimpleNamespace) -> Callable[[np.ndarray], list[np.ndarray]]:
    """camera_bev -> heat map and box."""
    radar = frame.tensors["radar_grid"]
    return lambda bev: frame.sessions["bev"].run(["heatmap", "box"], {"camera_bev": bev, "radar_grid": radar})


def test_the_chain_computes_what_the_detector_does(frame: SimpleNamespace) -> None:
    outputs = Chain(SPEC, frame.parts, 1).run(frame.tensors, frame.rig)
    for name in ("depth", "context", "heatmap", "box"):
        assert np.allclose(outputs[name].detach(), frame.tensors[name], atol=1e-4), name


@pytest.mark.parametrize("tensor", ["images", "camera_bev"])
def test_gradients_are_those_of_finite_differences(frame: SimpleNamespace, tensor: str) -> None:
    """Along random directions; the probe is a fixed linear function of the outputs."""
    chain = Chain(SPEC, frame.parts, 1)
    heatmap, box = (torch.from_numpy(frame.tensors[name]) for name in ("heatmap", "box"))
    probe = [p.numpy() for p in chain._probe(heatmap, box, np.random.default_rng(7))]
    gradient = chain(frame.tensors, frame.rig, 7).tensors[f"{'camera' if tensor == 'images' else 'bev'}/{tensor}"]
    run = of_images(frame) if tensor == "images" else of_map(frame)
    probed = lambda x: sum(float((a.astype(float) * b).sum()) for a, b in zip(run(x), probe, strict=True))  # noqa: E731
    random = np.random.default_rng(1)
    for _ in range(3):
        way = gradient * (random.random(gradient.shape) < 0.5)
        way = (way / np.abs(way).max()).astype(np.float32)
        size = 0.004
        found = (probed(frame.tensors[tensor] + size * way) - probed(frame.tensors[tensor] - size * way)) / (2 * size)
        assert found == pytest.approx(float((gradient.astype(float) * way).sum()), rel=0.02)


def test_squares_of_gradients_model_the_loss(frame: SimpleNamespace) -> None:
    """Half of E[g^2] d^2, by the objects, is the loss that noise d on a tensor costs."""
    chain, noise = Chain(SPEC, frame.parts, 1), 0.01
    found = [chain(frame.tensors, frame.rig, seed) for seed in range(40)]
    modelled = sum(float((g.tensors["bev/camera_bev"].astype(float) ** 2).sum()) for g in found) / len(found)
    modelled *= noise**2 / 2 / found[0].objects
    random, fidelity, none = np.random.default_rng(0), Fidelity(SPEC), (np.zeros((0, 9)), np.zeros(0), [])
    bev = frame.tensors["camera_bev"]
    for _ in range(40):
        other = of_map(frame)((bev + noise * random.choice([-1, 1], bev.shape)).astype(np.float32))
        pair = (Outputs(*(x[0].astype(float) for x in maps), none) for maps in (of_map(frame)(bev), other))
        fidelity.add(*pair, frame.tensors["radar_grid"])
    assert fidelity.row()["loss"] == pytest.approx(modelled, rel=0.1)


def test_a_layers_squares_are_summed_by_channel_and_objects_are_expected_ones(frame: SimpleNamespace) -> None:
    chain = Chain(SPEC, frame.parts, 1)
    gradients = chain(frame.tensors, frame.rig, 3)
    assert set(gradients.layers) == {"camera/x", "bev/a", "bev/radar", "bev/heatmap", "bev/box"}
    heatmap = frame.tensors["heatmap"].astype(float)
    p = 1 / (1 + np.exp(-heatmap))
    assert gradients.layers["bev/heatmap"] == pytest.approx((p * (1 - p)).sum((0, 2, 3)), rel=1e-4)
    assert gradients.objects == pytest.approx(p.sum(), rel=1e-4)
    again = chain(frame.tensors, frame.rig, 3)
    assert all(np.array_equal(g, again.tensors[key]) for key, g in gradients.tensors.items())
