"""Runs an ONNX part in PyTorch, node by node: a reference for Q/DQ graphs that shares nothing with ONNX Runtime or the inserter."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional as F


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output of a float32-typed part."""
    values = {item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in model.graph.initializer}
    values |= {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.no_grad():
        for node in model.graph.node:
            given = [values[name] if name else None for name in node.input]
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            values[node.output[0]] = OPERATORS[node.op_type](given, attributes)
    return {item.name: values[item.name].numpy() for item in model.graph.output}


def _conv(given: list, attributes: dict) -> torch.Tensor:
    x, weight = given[:2]
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    bias = given[2] if len(given) > 2 else None
    x = F.pad(x, (left, right, top, bottom))
    return F.conv2d(x, weight, bias, attributes.get("strides", 1), 0, attributes.get("dilations", 1), attributes.get("group", 1))


def _along(values: torch.Tensor, like: torch.Tensor, axis: int) -> torch.Tensor:
    return values if values.ndim == 0 else values.reshape([-1 if i == axis else 1 for i in range(like.ndim)])


def _quantize(given: list, attributes: dict) -> torch.Tensor:
    x, scale, zero = given
    assert zero.dtype == torch.int8
    return torch.clamp(torch.round(x / scale) + zero, -128, 127).to(torch.int8)  # rounds half to even, and divides, as ONNX does


def _dequantize(given: list, attributes: dict) -> torch.Tensor:
    x, scale, zero = given
    axis = attributes.get("axis", 1)
    return (x.float() - _along(zero, x, axis)) * _along(scale, x, axis)


def _resize(given: list, attributes: dict) -> torch.Tensor:
    x, _, scales, sizes = (given + [None] * 4)[:4]
    target = [int(s) for s in sizes[2:]] if sizes is not None else [round(n * float(s)) for n, s in zip(x.shape[2:], scales[2:])]
    assert attributes["mode"] == b"nearest"
    return F.interpolate(x, size=target, mode="nearest")


def _slice(given: list, attributes: dict) -> torch.Tensor:
    x, starts, ends, axes, steps = given
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(*(v.tolist() for v in (starts, ends, axes, steps)), strict=True):
        index[axis] = slice(start, end, step)
    return x[tuple(index)]


OPERATORS: dict[str, Any] = {
    "Conv": _conv,
    "Relu": lambda g, a: torch.relu(g[0]),
    "Clip": lambda g, a: torch.clamp(g[0], g[1], g[2]),
    "Add": lambda g, a: g[0] + g[1],
    "Mul": lambda g, a: g[0] * g[1],
    "Sigmoid": lambda g, a: torch.sigmoid(g[0]),
    "Softmax": lambda g, a: torch.softmax(g[0], a.get("axis", -1)),
    "Concat": lambda g, a: torch.cat(g, a["axis"]),
    "Gather": lambda g, a: torch.index_select(g[0], a.get("axis", 0), g[1]),
    "MaxPool": lambda g, a: F.max_pool2d(g[0], a["kernel_shape"], a["strides"]),
    "Cast": lambda g, a: g[0].to({1: torch.float32, 10: torch.float16}[a["to"]]),
    "Resize": _resize,
    "Slice": _slice,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}
