"""Scales for a float part from what was observed, and the part in INT8 with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

import onnx

from imkd_edge.calibration.collect import Collection, Watched
from imkd_edge.calibration.solvers import Method, solve
from imkd_edge.quantization.graph import Group, Part
from imkd_edge.quantization.insert import Scales, insert, quantized_tensors, shared_scales, step


@dataclass(frozen=True)
class Quantized:
    """One part in INT8."""

    model: onnx.ModelProto
    scales: Scales
    shared: dict[str, float]  # steps of every tensor that has one, those of concatenations' inputs included
    groups: list[Group]


def watch(part: Part) -> list[Watched]:
    """Every activation that may be quantized, and what is concatenated to one."""
    tensors = quantized_tensors(part, part.groups())
    return part.watched({*tensors, *(name for group in shared_scales(part, tensors) for name in group)})


def quantize_part(part: Part, collection: Collection, method: Method, keep_float: tuple[str, ...] = ()) -> Quantized:
    """A part in INT8 with the scales that the method finds in the collection."""
    groups = part.groups(keep_float)
    return with_amax(part, groups, solve_all(part, quantized_tensors(part, groups), collection, method), method)


def with_amax(part: Part, groups: list[Group], amax: Mapping[str, float], method: Method) -> Quantized:
    """A part in INT8 with these ranges, of every tensor of `quantized_tensors`."""
    model, scales = insert(part, groups, amax, method.levels)
    shared = {name: float(step(value, method.levels)) for name, value in amax.items()}
    return Quantized(model, scales, shared, groups)


def solve_all(part: Part, tensors: list[str], collection: Collection, method: Method) -> dict[str, float]:
    """amax of the tensors; a concatenation's are solved on the sum of its inputs' histograms and given to its inputs too."""
    histograms = collection.histograms
    amax = {name: solve(histograms[f"{part.name}/{name}"], method) for name in tensors}
    for group in shared_scales(part, tensors):
        joined = {out for node in part.graph.node if node.op_type == "Concat" for out in node.output}
        leaves = sorted(group - joined)
        amax |= dict.fromkeys(
            sorted(group), solve(reduce(add, (histograms[f"{part.name}/{name}"] for name in leaves)), method)
        )
    return amax
