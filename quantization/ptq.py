"""Post-training quantization of a part: ranges from the observed histograms, and the part in INT8 with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from operator import add

import numpy as np
import onnx
from onnx import numpy_helper

from imkd_edge.calibration.collect import Collection, ObservedTensor
from imkd_edge.calibration.histogram import Histogram
from imkd_edge.calibration.solvers import Method, error_at, relative_error, solve
from imkd_edge.quantization.equalise import Channels, input_channels
from imkd_edge.quantization.graph import Group, Part
from imkd_edge.quantization.insert import Scales, channel_steps, insert, quantized_tensors, shared_scales, step


@dataclass(frozen=True)
class QuantizedPart:
    """One part in INT8."""

    model: onnx.ModelProto
    scales: Scales
    shared: dict[str, float]  # tensor of the float part -> step; inputs of concatenations included
    groups: list[Group]
    factors: dict[str, np.ndarray] = field(default_factory=dict)  # tensor -> (C,) what its channels are divided by


@dataclass(frozen=True)
class Correction:
    """Of one INT8 layer; in float it keeps its own weight and bias."""

    values: dict[str, np.ndarray]  # initializer -> other values
    steps: dict[str, np.ndarray]  # weight -> (channels,) steps of the grid that it lies on


@dataclass(frozen=True)
class SolvedPart:
    """A part with its ranges, ready for the pairs."""

    part: Part  # float, equalised
    groups: list[Group]
    method: Method
    amax: dict[str, float]  # of `part`'s quantized tensors and of those that share a scale with one
    factors: dict[str, np.ndarray]  # as QuantizedPart's
    plain: dict[str, float]  # amax of the part as it was before, for tools that take no Q/DQ
    corrections: dict[str, Correction] = field(default_factory=dict)  # by layer

    def quantized(self) -> QuantizedPart:
        """The part in INT8."""
        used = [self.corrections[g.name] for g in self.groups if not g.float_because and g.name in self.corrections]
        values = {name: array for correction in used for name, array in correction.values.items()}
        steps = {name: array for correction in used for name, array in correction.steps.items()}
        part = self.part.with_weights(values) if values else self.part
        method = self.method
        model, scales = insert(part, self.groups, self.amax, method.levels, steps, method.weight_levels)
        return QuantizedPart(model, scales, self.shared(), self.groups, self.factors)

    def shared(self) -> dict[str, float]:
        """Steps of `plain`."""
        return {name: float(step(value, self.method.levels)) for name, value in self.plain.items()}


def tensors_to_observe(part: Part) -> list[ObservedTensor]:
    """Every activation that may be quantized."""
    return part.observed_tensors(set(quantized_tensors(part, part.groups())))


def quantize_part(
    part: Part, collection: Collection, method: Method, keep_float: tuple[str, ...] = ()
) -> QuantizedPart:
    """A part in INT8 with the ranges that the method finds in the collection."""
    return solve_part(part, collection, method, keep_float).quantized()


def solve_part(part: Part, collection: Collection, method: Method, keep_float: tuple[str, ...] = ()) -> SolvedPart:
    """The ranges that the method finds in the collection, and with them the channels' factors."""
    groups, method = part.groups(keep_float), method.of_part(part.name)
    histograms = histograms_of(part, collection)
    sharing = shared_ranges(part, quantized_tensors(part, groups))
    plain: dict[str, float] = {}
    for tensors, everyone in sharing:
        plain |= dict.fromkeys(everyone, solve(reduce(add, (histograms[name] for name in tensors)), method))
    if not (method.sensitive and method.equalise and collection.layers and plain):
        return SolvedPart(part, groups, method, plain, {}, plain)

    from imkd_edge.quantization.joint import Joint  # PyTorch only here

    channels = Channels(part, histograms)
    members = [tensors for tensors, _ in sharing]
    clipped = [any(name in part.producer and part.producer[name].op_type == "Clip" for name in m) for m in members]
    integer = {group.name for group in groups if not group.float_because}
    joint = Joint(channels, histograms, _layers(part, collection), members, integer, clipped, method)
    factor, ranges = joint.solve()
    amax = {name: float(value) for (_, everyone), value in zip(sharing, ranges, strict=True) for name in everyone}
    amax |= {name: 0.0 for name, value in plain.items() if value == 0}
    return SolvedPart(channels.fold(factor), groups, method, amax, channels.factors(factor), plain)


def histograms_of(part: Part, collection: Collection) -> dict[str, Histogram]:
    """The part's histograms by tensor."""
    start = f"{part.name}/"
    return {key.removeprefix(start): h for key, h in collection.histograms.items() if key.startswith(start)}


def _layers(part: Part, collection: Collection) -> dict[str, np.ndarray]:
    start = f"{part.name}/"
    return {key.removeprefix(start): v for key, v in collection.layers.items() if key.startswith(start)}


def shared_ranges(part: Part, tensors: list[str]) -> list[tuple[list[str], list[str]]]:
    """Quantized tensors that have one range, and with them all that it is given to."""
    groups = shared_scales(part, tensors)
    alone = [([name], [name]) for name in tensors if not any(name in group for group in groups)]
    return [*alone, *(([name for name in tensors if name in group], sorted(group)) for group in groups)]


def modelled_errors(solved: SolvedPart, collection: Collection) -> dict[str, float]:
    """What each INT8 layer adds to the loss of the outputs, as the collection models it.

    The error of a tensor is divided among the layers that read its integers. Without sensitivity it is that of a
    layer's input by the input's power.
    """
    part, groups, levels = solved.part, solved.groups, solved.method.levels
    histograms, layers = histograms_of(part, collection), _layers(part, collection)
    nodes = {node.name: node for node in part.layers()}
    integer = [nodes[group.name] for group in groups if not group.float_because]
    found = {}
    for node in integer:
        tensor, out = node.input[0], node.output[0]
        histogram = histograms[tensor]
        if not collection.layers:
            found[node.name] = relative_error(histogram, levels, solved.amax[tensor])
            continue
        factor = solved.factors.get(tensor, np.ones(histogram.channels))
        readers = sum(other.input[0] == tensor for other in integer)
        error = error_at(histogram, levels, solved.amax[tensor] * factor).sum() / readers
        if node.op_type == "Conv" and out in layers:
            squares = layers[out] * solved.factors.get(out, np.ones(len(layers[out]))) ** 2
            error += (
                _weight_noise(part, node, solved.method.weight_levels, histogram.power() / factor**2) * squares
            ).sum()
        found[node.name] = float(error / 2 / max(collection.objects, 1e-9))
    return found


def _weight_noise(part: Part, node: onnx.NodeProto, levels: int, power: np.ndarray) -> np.ndarray:
    """(O,) variance of a convolution's outputs from rounding its weights; power: (C,) of its input."""
    weight = numpy_helper.to_array(part.weights[node.input[1]])
    steps = channel_steps(weight, 0, levels).astype(np.float64)
    return steps**2 / 12 * power[input_channels(node, weight)].sum(1) * weight[0, 0].size
