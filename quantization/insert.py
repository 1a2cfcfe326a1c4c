"""Explicit symmetric Q/DQ pairs in a float part, before the inputs where TensorRT fuses them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from imkd_edge.quantization.graph import Group, Part

SMALLEST = 2.0**-20  # lower limit of a scale, for channels that are all zero; exact in float16


@dataclass
class Scales:
    """Steps of one part, exact in float16: of activations by tensor, of weights (channels,) by initializer."""

    activations: dict[str, float] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict)


def step(amax: float | np.ndarray, levels: int) -> np.ndarray:
    """The scale with which `levels` steps reach amax: float32 and exact in float16, hence the same in either."""
    return np.maximum(np.asarray(amax, np.float64) / levels, SMALLEST).astype(np.float16).astype(np.float32)


def channel_steps(weight: np.ndarray, axis: int, levels: int) -> np.ndarray:
    """The step of each output channel of a weight, (channels,), from its largest value."""
    return step(np.abs(weight).max(tuple(i for i in range(weight.ndim) if i != axis)), levels)


def quantized_tensors(part: Part, groups: list[Group]) -> list[str]:
    """Activations that get a Q/DQ pair."""
    return list(dict.fromkeys(item.tensor for item in quantized_inputs(part, groups) if item.axis is None))


def residuals(part: Part, integer: set[str]) -> list[tuple[onnx.NodeProto, int]]:
    """Additions that fuse into an INT8 layer, with the index of the operand that is not the layer's output."""
    order = {node.name: i for i, node in enumerate(part.graph.node)}
    additions = []
    for node in part.graph.node:
        if node.op_type != "Add" or part.constants & set(node.input):
            continue
        fusing = [i for i, name in enumerate(node.input) if _only_added(part, name, integer)]
        if fusing:  # the later one of two layers fuses the addition
            layer = max(fusing, key=lambda i: order[part.producer[node.input[i]].name])
            additions.append((node, 1 - layer))
    return additions


def _only_added(part: Part, name: str, integer: set[str]) -> bool:
    """Whether a tensor is the output of an INT8 layer and has one reader."""
    layer = part.producer.get(name)
    return layer is not None and layer.name in integer and len(part.readers[name]) == 1 and name not in part.outputs


def shared_scales(part: Part, tensors: list[str]) -> list[set[str]]:
    """Tensors with one common scale: inputs and output of each concatenation with a quantized tensor.

    Concatenations that share a tensor are one set.
    """
    groups: list[set[str]] = []
    for node in part.graph.node:
        if node.op_type != "Concat":
            continue
        members = {name for name in [*node.input, *node.output] if name not in part.constants}
        if members & set(tensors):
            overlapping = [group for group in groups if group & members]
            groups = [group for group in groups if not group & members] + [members.union(*overlapping)]
    return groups


@dataclass(frozen=True)
class QuantizedInput:
    """An input of a node that reads integers."""

    node: str
    index: int
    tensor: str
    axis: int | None = None  # of a weight: that of its output channels; None: an activation


def quantized_inputs(part: Part, groups: list[Group]) -> list[QuantizedInput]:
    """Where pairs are inserted: at data and weight of INT8 layers, and at the addend that a residual layer fuses."""
    integer = {group.name for group in groups if not group.float_because}
    inputs = []
    for node in part.layers():
        if node.name in integer:
            data, weight = node.input[:2]
            inputs += [QuantizedInput(node.name, 0, data), QuantizedInput(node.name, 1, weight, _channel_axis(node))]
    return inputs + [QuantizedInput(node.name, k, node.input[k]) for node, k in residuals(part, integer)]


def insert(
    part: Part,
    groups: list[Group],
    amax: Mapping[str, float],
    levels: int = 127,
    weight_steps: Mapping[str, np.ndarray] | None = None,
    weight_levels: int | None = None,
) -> tuple[onnx.ModelProto, Scales]:
    """Inserts Q/DQ pairs into a part.

    Args:
        groups: precision of each layer.
        amax: range of every tensor of `quantized_tensors`.
        levels: largest integer; below 127 values are clipped before they are quantized, for a study of fewer bits.
        weight_levels: of weights, where they have fewer than activations.
        weight_steps: (channels,) of weights with trained steps; otherwise a channel's range is its largest value.

    Returns:
        The model (opset 18; weights stored as int8 behind a DequantizeLinear), and its scales.
    """
    writer = _Writer(part, amax, levels, weight_steps or {}, weight_levels or levels)
    nodes = {node.name: node for node in writer.model.graph.node}
    for item in quantized_inputs(part, groups):
        pair = writer.activation(item.tensor) if item.axis is None else writer.weight(item.tensor, item.axis)
        nodes[item.node].input[item.index] = pair
    return writer.finish(), writer.scales


def _channel_axis(node: onnx.NodeProto) -> int:
    """Axis of the output channels in a layer's weight."""
    return 1 if node.op_type == "Gemm" and not any(a.name == "transB" and a.i for a in node.attribute) else 0


class _Writer:
    """A copy of a part with pairs; each tensor is quantized once, for all its readers."""

    def __init__(
        self,
        part: Part,
        amax: Mapping[str, float],
        levels: int,
        weight_steps: Mapping[str, np.ndarray],
        weight_levels: int,
    ) -> None:
        self.model, self.scales = onnx.ModelProto(), Scales()
        self.model.CopyFrom(part.model)
        self._weights, self._amax, self._levels, self._steps = part.weights, amax, levels, weight_steps
        self._weight_levels = weight_levels
        self._pairs: dict[str, str] = {}
        self._nodes: list[onnx.NodeProto] = []

    def activation(self, name: str) -> str:
        """Adds a pair for an activation; returns the dequantized tensor."""
        if name not in self._pairs:
            scale = step(self._amax[name], self._levels)
            self.scales.activations[name] = float(scale)
            self._constant(f"{name}_scale", scale)
            self._constant(f"{name}_zero", np.int8(0))
            self._add("QuantizeLinear", [self._clipped(name, scale), f"{name}_scale", f"{name}_zero"], f"{name}_q")
            self._pairs[name] = self._dequantized(name)
        return self._pairs[name]

    def weight(self, name: str, axis: int) -> str:
        """Replaces a weight by its integers and a DequantizeLinear; returns the dequantized tensor."""
        if name not in self._pairs:
            values = numpy_helper.to_array(self._weights[name])
            levels = self._weight_levels
            scale = self._steps[name] if name in self._steps else channel_steps(values, axis, levels)
            along = scale.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
            integers = np.clip(np.rint(values / along), -levels - 1, levels).astype(np.int8)
            self.scales.weights[name] = scale
            self._constant(f"{name}_scale", scale)
            self._constant(f"{name}_zero", np.zeros(scale.shape, np.int8))
            self._constant(f"{name}_q", integers)
            self._pairs[name] = self._dequantized(name, axis=axis)
        return self._pairs[name]

    def _clipped(self, name: str, scale: np.ndarray) -> str:
        if self._levels == 127:
            return name  # int8 saturates by itself
        self._constant(f"{name}_low", np.float32(-(self._levels + 1) * scale))
        self._constant(f"{name}_high", np.float32(self._levels * scale))
        return self._add("Clip", [name, f"{name}_low", f"{name}_high"], f"{name}_clipped")

    def _dequantized(self, name: str, **attributes: int) -> str:
        return self._add("DequantizeLinear", [f"{name}_q", f"{name}_scale", f"{name}_zero"], f"{name}_dq", **attributes)

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: int) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, name: str, values: np.ndarray | np.generic) -> None:
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))

    def finish(self) -> onnx.ModelProto:
        """The model; each new node is before its first reader, and initializers that no node reads are gone."""
        graph = self.model.graph
        pending = {node.output[0]: node for node in self._nodes}
        order: list[onnx.NodeProto] = []

        def schedule(name: str) -> None:
            if node := pending.pop(name, None):
                for source in node.input:
                    schedule(source)
                order.append(node)

        for node in list(graph.node):
            for name in node.input:
                schedule(name)
            order.append(node)

        read = {name for node in order for name in node.input}
        initializers = [item for item in graph.initializer if item.name in read]
        for target, items in ((graph.node, order), (graph.initializer, initializers)):
            copies = [type(item).FromString(item.SerializeToString()) for item in items]
            del target[:]
            target.extend(copies)
        onnx.checker.check_model(self.model, full_check=True)
        return self.model
