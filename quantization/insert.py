"""Explicit symmetric Q/DQ in a float part, where TensorRT fuses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from imkd_edge.quantization.graph import Group, Part

SMALLEST = 2.0**-20  # a scale is never 0, not even of a dead channel; a float16 holds it exactly


@dataclass
class Scales:
    """Steps of one part: of activations by tensor, of weights (channels,) by initializer; all of them float16 numbers."""

    activations: dict[str, float] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict)


def step(amax: float | np.ndarray, levels: int) -> np.ndarray:
    """The scale that lets `levels` steps reach amax, float32 of a value that a float16 holds: both typings share it."""
    return np.maximum(np.asarray(amax, np.float64) / levels, SMALLEST).astype(np.float16).astype(np.float32)


def channel_steps(weight: np.ndarray, axis: int, levels: int) -> np.ndarray:
    """The step of each output channel of a weight, (channels,), from its largest value."""
    return step(np.abs(weight).max(tuple(i for i in range(weight.ndim) if i != axis)), levels)


def quantized_tensors(part: Part, groups: list[Group]) -> list[str]:
    """Activations that get a Q/DQ pair."""
    return list(dict.fromkeys(place.tensor for place in places(part, groups) if place.axis is None))


def residuals(part: Part, integer: set[str]) -> list[tuple[onnx.NodeProto, int]]:
    """Additions that fuse into an INT8 layer, with the index of the operand that is not that layer's own output."""
    order = {node.name: i for i, node in enumerate(part.graph.node)}
    found = []
    for node in part.graph.node:
        if node.op_type != "Add" or part.constants & set(node.input):
            continue
        fusing = [i for i, name in enumerate(node.input) if _only_added(part, name, integer)]
        if fusing:  # of two layers the later one takes the addition in
            own = max(fusing, key=lambda i: order[part.producer[node.input[i]].name])
            found.append((node, 1 - own))
    return found


def _only_added(part: Part, name: str, integer: set[str]) -> bool:
    layer = part.producer.get(name)
    return layer is not None and layer.name in integer and len(part.readers[name]) == 1 and name not in part.outputs


def shared_scales(part: Part, tensors: list[str]) -> list[set[str]]:
    """Concatenations of which any tensor is quantized: output and inputs have one scale; overlapping ones are one set."""
    found: list[set[str]] = []
    for node in part.graph.node:
        if node.op_type == "Concat":
            members = {name for name in [*node.input, *node.output] if name not in part.constants}
            if members & set(tensors):
                touching = [other for other in found if other & members]
                found = [other for other in found if not other & members] + [members.union(*touching)]
    return found


@dataclass(frozen=True)
class Place:
    """An input of a node that reads integers."""

    node: str
    index: int
    tensor: str
    axis: int | None = None  # of a weight: that of its output channels; None: an activation


def places(part: Part, groups: list[Group]) -> list[Place]:
    """Where pairs stand: before both operands of INT8 layers, and before the addend that a residual layer fuses with."""
    integer = {group.name for group in groups if not group.float_because}
    found = []
    for node in part.layers():
        if node.name in integer:
            found += [Place(node.name, 0, node.input[0]), Place(node.name, 1, node.input[1], _channel_axis(node))]
    return found + [Place(node.name, k, node.input[k]) for node, k in residuals(part, integer)]


def insert(
    part: Part,
    groups: list[Group],
    amax: Mapping[str, float],
    levels: int = 127,
    weight_steps: Mapping[str, np.ndarray] | None = None,
) -> tuple[onnx.ModelProto, Scales]:
    """The part with Q/DQ pairs written in.

    Args:
        groups: precision of each layer.
        amax: of every tensor of `quantized_tensors`.
        levels: largest integer, 127; fewer clip the values before they are quantized, for a study of fewer bits.
        weight_steps: (channels,) of weights whose steps were learnt; of others the largest value of each channel is the range.

    Returns:
        The model (opset 18; weights stored as int8 behind a DequantizeLinear), and its scales.
    """
    writer = _Writer(part, amax, levels, weight_steps or {})
    nodes = {node.name: node for node in writer.model.graph.node}
    for place in places(part, groups):
        pair = writer.activation(place.tensor) if place.axis is None else writer.weight(place.tensor, place.axis)
        nodes[place.node].input[place.index] = pair
    return writer.finish(), writer.scales


def _channel_axis(node: onnx.NodeProto) -> int:
    """Of the output channels in the weight."""
    return 1 if node.op_type == "Gemm" and not any(a.name == "transB" and a.i for a in node.attribute) else 0


class _Writer:
    """A copy of a part under change; each tensor is quantized once and read by all."""

    def __init__(
        self, part: Part, amax: Mapping[str, float], levels: int, weight_steps: Mapping[str, np.ndarray]
    ) -> None:
        self.model, self.scales = onnx.ModelProto(), Scales()
        self.model.CopyFrom(part.model)
        self._weights, self._amax, self._levels, self._steps = part.weights, amax, levels, weight_steps
        self._pairs: dict[str, str] = {}
        self._nodes: list[onnx.NodeProto] = []

    def activation(self, name: str) -> str:
        if name not in self._pairs:
            scale = step(self._amax[name], self._levels)
            self.scales.activations[name] = float(scale)
            self._constant(f"{name}_scale", scale)
            self._constant(f"{name}_zero", np.int8(0))
            self._add("QuantizeLinear", [self._clipped(name, scale), f"{name}_scale", f"{name}_zero"], f"{name}_q")
            self._pairs[name] = self._dequantized(name)
        return self._pairs[name]

    def weight(self, name: str, axis: int) -> str:
        if name not in self._pairs:
            values = numpy_helper.to_array(self._weights[name])
            scale = self._steps[name] if name in self._steps else channel_steps(values, axis, self._levels)
            along = scale.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
            integers = np.clip(np.rint(values / along), -self._levels - 1, self._levels).astype(np.int8)
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
        """Each new node stands before its first reader; weights that nothing reads any more are gone."""
        graph = self.model.graph
        made = {node.output[0]: node for node in self._nodes}
        order: list[onnx.NodeProto] = []

        def place(name: str) -> None:
            if node := made.pop(name, None):
                for source in node.input:
                    place(source)
                order.append(node)

        for node in list(graph.node):
            for name in node.input:
                place(name)
            order.append(node)
        used = {name for node in order for name in node.input}
        kept = [item for item in graph.initializer if item.name in used]
        for target, items in ((graph.node, order), (graph.initializer, kept)):
            copies = [type(item).FromString(item.SerializeToString()) for item in items]
            del target[:]
            target.extend(copies)
        onnx.checker.check_model(self.model, full_check=True)
        return self.model
