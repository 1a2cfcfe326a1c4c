"""Post-training quantization of a part: ranges from the observed histograms, and the part in INT8 with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

import onnx

from imkd_edge.calibration.collect import Collection, ObservedTensor
from imkd_edge.calibration.solvers import Method, solve
from imkd_edge.quantization.graph import Group, Part
from imkd_edge.quantization.insert import Scales, insert, quantized_tensors, shared_scales, step


@dataclass(frozen=True)
class QuantizedPart:
    """One part in INT8."""

    model: onnx.ModelProto
    scales: Scales
    shared: dict[str, float]  # tensor -> step, inputs of concatenations included
    groups: list[Group]


def tensors_to_observe(part: Part) -> list[ObservedTensor]:
    """Every activation that may be quantized, and every tensor that shares a scale with one."""
    tensors = quantized_tensors(part, part.groups())
    return part.observed_tensors({*tensors, *(name for group in shared_scales(part, tensors) for name in group)})


def quantize_part(
    part: Part, collection: Collection, method: Method, keep_float: tuple[str, ...] = ()
) -> QuantizedPart:
    """A part in INT8 with the ranges that the method finds in the collection."""
    groups = part.groups(keep_float)
    return with_amax(part, groups, solve_all(part, quantized_tensors(part, groups), collection, method), method)


def with_amax(part: Part, groups: list[Group], amax: Mapping[str, float], method: Method) -> QuantizedPart:
    """A part in INT8 with these ranges, one for every tensor of `quantized_tensors`."""
    model, scales = insert(part, groups, amax, method.levels)
    shared = {name: float(step(value, method.levels)) for name, value in amax.items()}
    return QuantizedPart(model, scales, shared, groups)


def solve_all(part: Part, tensors: list[str], collection: Collection, method: Method) -> dict[str, float]:
    """amax of the tensors, and of the tensors that share a scale with one.

    The range of a concatenation is solved on the sum of its inputs' histograms.
    """
    histograms = collection.histograms
    amax = {name: solve(histograms[f"{part.name}/{name}"], method) for name in tensors}
    concatenations = {out for node in part.graph.node if node.op_type == "Concat" for out in node.output}
    for group in shared_scales(part, tensors):
        leaves = sorted(group - concatenations)
        total = reduce(add, (histograms[f"{part.name}/{name}"] for name in leaves))
        amax |= dict.fromkeys(sorted(group), solve(total, method))
    return amax
