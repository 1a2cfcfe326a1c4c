"""An ONNX part in PyTorch, node by node, for training and `compare`.

It shares no code with ONNX Runtime or with the insertion of Q/DQ.
"""

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

Values = dict[str, Any]  # name -> tensor; NumPy array for shapes and regions
Read = Callable[[onnx.NodeProto, int, torch.Tensor], torch.Tensor]  # node, index of the input, value -> new value


def constants(graph: onnx.GraphProto) -> Values:
    """The initializers as tensors; sizes and regions as NumPy arrays, so that torch.export finds static shapes."""
    fixed = {name for node in graph.node if node.op_type in ("Resize", "Slice") for name in node.input[1:]}
    arrays = {item.name: numpy_helper.to_array(item).copy() for item in graph.initializer}
    return {name: array if name in fixed else torch.from_numpy(array) for name, array in arrays.items()}


def execute(graph: onnx.GraphProto, values: Values, read: Read | None = None) -> Values:
    """Computes every tensor of the graph.

    Args:
        values: inputs and initializers; the other tensors are added to it.
        read: replaces the inputs of nodes.

    Raises:
        Error: engine_load for an operator that is not in OPERATORS.
    """
    for node in graph.node:
        if node.op_type not in OPERATORS:
            what = f"the torch engine has no operator {node.op_type}"
            raise Error(Code.engine_load, what, node.name, "use the engine onnxruntime")
        inputs = [values[name] if name else None for name in node.input]
        if read is not None:
            inputs = [value if value is None else read(node, i, value) for i, value in enumerate(inputs)]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        values[node.output[0]] = OPERATORS[node.op_type](inputs, attributes)
    return values


class GraphModule(nn.Module):
    """A part as a module, for torch.export and torch-tensorrt. Takes and returns tensors in the graph's order."""

    def __init__(self, graph: onnx.GraphProto):
        super().__init__()
        self.graph, self.fixed, self.buffer_of = graph, Values(), dict[str, str]()
        for number, (name, value) in enumerate(constants(graph).items()):
            if isinstance(value, torch.Tensor):
                self.buffer_of[name] = f"constant{number}"
                self.register_buffer(f"constant{number}", value)
            else:
                self.fixed[name] = value

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        known = {name: getattr(self, buffer) for name, buffer in self.buffer_of.items()} | self.fixed
        values = execute(self.graph, known | dict(zip((item.name for item in self.graph.input), inputs, strict=True)))
        return tuple(values[item.name] for item in self.graph.output)


def run(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output of a part in the float32 typing."""
    with torch.no_grad():
        outputs = GraphModule(model.graph)(*(torch.from_numpy(inputs[item.name]) for item in model.graph.input))
    return {item.name: value.numpy() for item, value in zip(model.graph.output, outputs, strict=True)}


def _padded(inputs: list, attributes: dict, value: float = 0.0) -> torch.Tensor:
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    return F.pad(inputs[0], (left, right, top, bottom), value=value) if any((top, left, bottom, right)) else inputs[0]


def _conv(inputs: list, attributes: dict) -> torch.Tensor:
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    even = top == bottom and left == right
    x, pads = (inputs[0], (top, left)) if even else (_padded(inputs, attributes), (0, 0))
    bias = inputs[2] if len(inputs) > 2 else None
    strides, dilations = attributes.get("strides", 1), attributes.get("dilations", 1)
    return F.conv2d(x, inputs[1], bias, strides, pads, dilations, attributes.get("group", 1))


def _conv_transpose(inputs: list, attributes: dict) -> torch.Tensor:
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    if (top, left) != (bottom, right) or attributes.get("output_shape"):
        what = "a ConvTranspose with uneven pads or an output_shape"
        raise Error(Code.engine_load, what, "ConvTranspose", "use the engine onnxruntime")
    return F.conv_transpose2d(
        inputs[0],
        inputs[1],
        inputs[2] if len(inputs) > 2 else None,
        attributes.get("strides", 1),
        (top, left),
        attributes.get("output_padding", 0),
        attributes.get("group", 1),
        attributes.get("dilations", 1),
    )


def along(values: torch.Tensor, like: torch.Tensor, axis: int) -> torch.Tensor:
    """(n,) values reshaped to broadcast along one axis of another tensor; a scalar stays a scalar."""
    return values if values.ndim == 0 else values.reshape([-1 if i == axis else 1 for i in range(like.ndim)])


def _quantize(inputs: list, attributes: dict) -> torch.Tensor:
    x, scale, zero = inputs
    assert zero.dtype == torch.int8
    # Divides and rounds half to even, as ONNX does.
    return torch.clamp(torch.round(x / scale) + zero, -128, 127).to(torch.int8)


def _dequantize(inputs: list, attributes: dict) -> torch.Tensor:
    x, scale, zero = inputs
    axis = attributes.get("axis", 1)
    return (x.float() - along(zero, x, axis)) * along(scale, x, axis)


def _resize(inputs: list, attributes: dict) -> torch.Tensor:
    x, _, scales, sizes = (inputs + [None] * 4)[:4]
    assert attributes["mode"] == b"nearest"
    if sizes is not None:
        target = [int(size) for size in sizes[2:]]
    else:
        target = [round(extent * float(scale)) for extent, scale in zip(x.shape[2:], scales[2:])]
    return F.interpolate(x, size=target, mode="nearest")


def _slice(inputs: list, attributes: dict) -> torch.Tensor:
    x, starts, ends, axes, steps = inputs
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
