"""An ONNX part in PyTorch, node by node: what training and `compare` run. It shares nothing with ONNX Runtime or the inserter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

from imkd_edge.errors import Code, Error

Values = dict[str, Any]  # tensors, but for a few constants
Read = Callable[
    [onnx.NodeProto, int, torch.Tensor], torch.Tensor
]  # node, which input, its value -> what the node reads instead


def constants(graph: onnx.GraphProto) -> Values:
    """The initializers; what only says how large or where, as NumPy arrays, so that torch.export finds shapes that are fixed."""
    fixed = {name for node in graph.node if node.op_type in ("Resize", "Slice") for name in node.input[1:]}
    arrays = {item.name: numpy_helper.to_array(item).copy() for item in graph.initializer}
    return {name: array if name in fixed else torch.from_numpy(array) for name, array in arrays.items()}


def execute(graph: onnx.GraphProto, values: Values, read: Read | None = None) -> Values:
    """Adds every tensor of the graph to the values, which hold its inputs and initializers, and returns them.

    Raises:
        Error: engine_load for an operator that no part of ours has.
    """
    for node in graph.node:
        if node.op_type not in OPERATORS:
            raise Error(
                Code.engine_load,
                f"PyTorch is not told how to run {node.op_type}",
                node.name,
                "use the engine onnxruntime",
            )
        given = [values[name] if name else None for name in node.input]
        if read is not None:
            given = [value if value is None else read(node, i, value) for i, value in enumerate(given)]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        values[node.output[0]] = OPERATORS[node.op_type](given, attributes)
    return values


class Part(nn.Module):
    """A part as a module: what torch.export reads, and torch-tensorrt compiles. Takes and returns tensors in the graph's order."""

    def __init__(self, graph: onnx.GraphProto):
        super().__init__()
        self.graph, self.fixed, self.buffer_of = graph, Values(), dict[str, str]()
        for number, (name, value) in enumerate(constants(graph).items()):
            if isinstance(value, torch.Tensor):
                self.buffer_of[name] = f"constant{number}"
                self.register_buffer(f"constant{number}", value)
            else:
                self.fixed[name] = value

    def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        known = {name: getattr(self, buffer) for name, buffer in self.buffer_of.items()} | self.fixed
        values = execute(self.graph, known | dict(zip((item.name for item in self.graph.input), given, strict=True)))
        return tuple(values[item.name] for item in self.graph.output)


def run(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output of a float32-typed part."""
    with torch.no_grad():
        found = Part(model.graph)(*(torch.from_numpy(inputs[item.name]) for item in model.graph.input))
    return {item.name: value.numpy() for item, value in zip(model.graph.output, found, strict=True)}


def _padded(given: list, attributes: dict, value: float = 0.0) -> torch.Tensor:
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    return F.pad(given[0], (left, right, top, bottom), value=value) if top or left or bottom or right else given[0]


def _conv(given: list, attributes: dict) -> torch.Tensor:
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    even = top == bottom and left == right
    x, pads = (given[0], (top, left)) if even else (_padded(given, attributes), (0, 0))
    bias = given[2] if len(given) > 2 else None
    return F.conv2d(
        x,
        given[1],
        bias,
        attributes.get("strides", 1),
        pads,
        attributes.get("dilations", 1),
        attributes.get("group", 1),
    )


def _conv_transpose(given: list, attributes: dict) -> torch.Tensor:
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    if (top, left) != (bottom, right) or attributes.get("output_shape"):
        raise Error(
            Code.engine_load,
            "a ConvTranspose with uneven pads or an output_shape",
            "ConvTranspose",
            "use the engine onnxruntime",
        )
    bias = given[2] if len(given) > 2 else None
    more, group, apart = attributes.get("output_padding", 0), attributes.get("group", 1), attributes.get("dilations", 1)
    return F.conv_transpose2d(given[0], given[1], bias, attributes.get("strides", 1), (top, left), more, group, apart)


def along(values: torch.Tensor, like: torch.Tensor, axis: int) -> torch.Tensor:
    """(n,) values shaped so that they lie along one axis of another tensor; a scalar stays one."""
    return values if values.ndim == 0 else values.reshape([-1 if i == axis else 1 for i in range(like.ndim)])


def _quantize(given: list, attributes: dict) -> torch.Tensor:
    x, scale, zero = given
    assert zero.dtype == torch.int8
    return torch.clamp(torch.round(x / scale) + zero, -128, 127).to(
        torch.int8
    )  # rounds half to even, and divides, as ONNX does


def _dequantize(given: list, attributes: dict) -> torch.Tensor:
    x, scale, zero = given
    axis = attributes.get("axis", 1)
    return (x.float() - along(zero, x, axis)) * along(scale, x, axis)


def _resize(given: list, attributes: dict) -> torch.Tensor:
    x, _, scales, sizes = (given + [None] * 4)[:4]
    target = (
        [int(s) for s in sizes[2:]]
        if sizes is not None
        else [round(n * float(s)) for n, s in zip(x.shape[2:], scales[2:])]
    )
    assert attributes["mode"] == b"nearest"
    return F.interpolate(x, size=target, mode="nearest")


def _slice(given: list, attributes: dict) -> torch.Tensor:
    x, starts, ends, axes, steps = given
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(*(v.tolist() for v in (starts, ends, axes, steps)), strict=True):
        index[axis] = slice(start, end, step)
    return x[tuple(index)]


OPERATORS: dict[str, Callable[[list, dict], Any]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Relu": lambda g, a: torch.relu(g[0]),
    "Clip": lambda g, a: torch.clamp(g[0], g[1], g[2]),
    "Add": lambda g, a: g[0] + g[1],
    "Mul": lambda g, a: g[0] * g[1],
    "Sigmoid": lambda g, a: torch.sigmoid(g[0]),
    "Softmax": lambda g, a: torch.softmax(g[0], a.get("axis", -1)),
    "Concat": lambda g, a: torch.cat(g, a["axis"]),
    "Gather": lambda g, a: torch.index_select(g[0], a.get("axis", 0), g[1]),
    "MaxPool": lambda g, a: F.max_pool2d(_padded(g, a, float("-inf")), a["kernel_shape"], a.get("strides", 1)),
    "Cast": lambda g, a: g[0].to({1: torch.float32, 10: torch.float16}[a["to"]]),
    "Resize": _resize,
    "Slice": _slice,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}
