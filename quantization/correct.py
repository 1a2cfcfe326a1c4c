"""Behind the ranges: weights rounded so that errors cancel in a layer's output (GPTQ: Frantar et al., ICLR 2023), and
the mean error taken back by the bias.

Both see each layer's input as it is quantized, and weigh every place of its output by the outputs' sensitivity to it:
weighing all places alike does harm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch.nn import functional as F

from imkd_edge.detector import Detector
from imkd_edge.progress import Bar
from imkd_edge.quantization.chain import Chain
from imkd_edge.quantization.insert import channel_steps, residuals, step
from imkd_edge.quantization.ptq import Correction, SolvedPart
from imkd_edge.quantization.radar_weight import RadarWeight
from imkd_edge.quantization.state import Calibration
from imkd_edge.quantization.threads import torch_threads
from imkd_edge.sources.timeline import Timeline, infer_with_past

FRAMES = 12  # of the calibration
PLACES = 2048  # of a layer's output in a frame that the second moment is taken over, drawn by their weight
CLIPPED = 31  # levels of a weight, below which it pays to clip the largest values
SHRUNK = np.linspace(0.4, 1, 13)  # ranges that are tried there, by the largest value
DAMP = 0.01  # of a column's own power, added to the second moment


@dataclass
class Moments:
    """Of one convolution's input patches (K values: channels of a group by kernel), weighted by place."""

    second: np.ndarray | float = 0.0  # (K, K) of the quantized patches; 0 of grouped convolutions
    quantized: np.ndarray | float = 0.0  # (groups * K,) sum of the quantized patches
    exact: np.ndarray | float = 0.0  # the same of the float ones
    addend: np.ndarray | float = 0.0  # (O,) sum of the error of what is added to the layer's output
    total: float = 0.0  # of the weights


def correct(
    calibration: Calibration,
    solved: Mapping[str, SolvedPart],
    threads: int = 0,
    bar: Bar | None = None,
    weight: RadarWeight | None = None,
) -> dict[str, SolvedPart]:
    """The parts with other weights and biases in their INT8 convolutions, by the first calibration frames.

    Args:
        weight: of the outputs' errors; None: all cells alike.
    """
    with torch_threads(threads):
        seen = _observe(calibration, solved, threads, bar, weight)
    return {name: _corrected(part, seen[name]) for name, part in solved.items()}


def _observe(
    calibration: Calibration,
    solved: Mapping[str, SolvedPart],
    threads: int,
    bar: Bar | None,
    weight: RadarWeight | None,
) -> dict[str, dict[str, Moments]]:
    """Moments of every INT8 convolution, by part and layer."""
    spec, frames, source = calibration.bundle.spec, calibration.frames, calibration.source
    chain = Chain(spec, {name: part.part for name, part in solved.items()}, threads, weight)
    names, timeline = frames.names[:FRAMES], Timeline(source, spec.history, frames.unusable)
    layers = {name: _Layers(part) for name, part in solved.items()}
    with Detector(calibration.bundle, source[names[0]].rig, engine="onnxruntime", threads=threads) as detector:
        for number, name in enumerate(bar("correct")(names) if bar else names):
            infer_with_past(detector, timeline.walk(name))
            tensors = detector.tensors()
            outputs = chain.run(tensors, detector.rig)
            gradients = chain.layer_gradients(tensors, outputs, number)
            for observer in layers.values():
                observer.add(chain.sites, gradients)
    return {part: observer.moments for part, observer in layers.items()}


class _Layers:
    """Observes the INT8 convolutions of a part."""

    def __init__(self, solved: SolvedPart) -> None:
        self._solved, part = solved, solved.part
        integer = {group.name for group in solved.groups if not group.float_because}
        self._nodes = [n for n in part.layers() if n.name in integer and n.op_type == "Conv"]
        self._added = {part.producer[n.input[1 - k]].name: n.input[k] for n, k in residuals(part, integer)}
        self.moments = {node.name: Moments() for node in self._nodes}

    def add(self, sites: Mapping[str, torch.Tensor], gradients: Mapping[str, np.ndarray]) -> None:
        """Adds a frame."""
        start = self._solved.part.name
        for node in self._nodes:
            gradient = gradients.get(f"{start}/{node.output[0]}")
            if gradient is None:
                continue
            weight = torch.from_numpy((gradient**2).sum(1))  # (N, H, W)
            x = sites[f"{start}/{node.input[0]}"].detach()
            moments = self.moments[node.name]
            _add_patches(moments, node, self._solved, x, weight.flatten())
            if node.name in self._added:
                name = self._added[node.name]
                v = sites[f"{start}/{name}"].detach()
                error = (self._quantized(v, name) - v) * weight[:, None]
                moments.addend = moments.addend + error.sum((0, 2, 3)).double().numpy()

    def _quantized(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return quantized(x, self._solved.amax[name], self._solved.method.levels)


def quantized(x: torch.Tensor, amax: float, levels: int) -> torch.Tensor:
    """The values that a pair lets through."""
    s = float(step(amax, levels))
    return torch.round(x / s).clamp_(-levels - 1, levels).mul_(s)


def _add_patches(
    moments: Moments, node: onnx.NodeProto, solved: SolvedPart, x: torch.Tensor, weight: torch.Tensor
) -> None:
    """weight: (places,) of the layer's output."""
    a = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    kernel = solved.part.shapes[node.input[1]][2:]
    q, exact = (_patches(v, a, kernel) for v in (quantized(x, solved.amax[node.input[0]], solved.method.levels), x))
    moments.quantized = moments.quantized + (q @ weight).double().numpy()
    moments.exact = moments.exact + (exact @ weight).double().numpy()
    total = float(weight.sum())
    moments.total += total
    if a.get("group", 1) == 1 and total > 0:
        if len(weight) > PLACES:
            drawn = torch.multinomial(weight, PLACES, True, generator=torch.Generator().manual_seed(0))
            q, weight = q[:, drawn], torch.full((PLACES,), total / PLACES)
        moments.second = moments.second + ((q * weight) @ q.t()).double().numpy()


def _patches(x: torch.Tensor, a: Mapping, kernel: list[int]) -> torch.Tensor:
    """(C * kernel, places) what each place of a convolution's output reads."""
    top, left, bottom, right = a.get("pads", [0] * 4)
    x = F.pad(x, (left, right, top, bottom))
    found = F.unfold(x, tuple(kernel), tuple(a.get("dilations", [1, 1])), 0, tuple(a.get("strides", [1, 1])))
    return found.permute(1, 0, 2).flatten(1)


def _corrected(solved: SolvedPart, seen: Mapping[str, Moments]) -> SolvedPart:
    part, levels, found = solved.part, solved.method.weight_levels, {}
    for node in part.layers():
        moments = seen.get(node.name)
        if moments is None or moments.total == 0:
            continue
        weight = numpy_helper.to_array(part.weights[node.input[1]]).astype(np.float64)
        flat = weight.reshape(len(weight), -1)
        power = np.diag(moments.second) if np.ndim(moments.second) else np.ones(flat.shape[1])
        steps = clipped_steps(flat, power, levels) if levels < CLIPPED else channel_steps(weight, 0, levels)
        if np.ndim(moments.second):
            grid = gptq(flat, np.asarray(moments.second), steps.astype(np.float64), levels)
        else:
            grid = np.clip(np.rint(flat / steps[:, None]), -levels - 1, levels) * steps[:, None]
        values = {node.input[1]: grid.reshape(weight.shape).astype(np.float32)}
        for bias in node.input[2:]:
            b = numpy_helper.to_array(part.weights[bias])
            values[bias] = (b - _mean_error(moments, grid, flat)).astype(np.float32)
        found[node.name] = Correction(values, {node.input[1]: steps})
    return replace(solved, corrections=found)


def _mean_error(moments: Moments, grid: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """(O,) of a layer's output, with weights (O, K) on the grid and exact."""
    of_group = len(np.atleast_1d(moments.quantized)) // exact.shape[1]
    group = np.arange(len(exact)) // (len(exact) // of_group)
    q, f = (np.reshape(m, (of_group, -1))[group] for m in (moments.quantized, moments.exact))
    return ((grid * q).sum(1) - (exact * f).sum(1) + moments.addend) / moments.total


def clipped_steps(weight: np.ndarray, power: np.ndarray, levels: int) -> np.ndarray:
    """(O,) steps with which rounded weights (O, K) give a layer's output the least error; power: (K,) of its input."""
    tried = np.stack([channel_steps(share * weight, 0, levels) for share in SHRUNK])
    along = tried[..., None].astype(np.float64)
    grid = np.clip(np.rint(weight / along), -levels - 1, levels) * along
    best = ((grid - weight) ** 2 * power).sum(-1).argmin(0)
    return np.take_along_axis(tried, best[None], 0)[0]


def gptq(weight: np.ndarray, second: np.ndarray, steps: np.ndarray, levels: int) -> np.ndarray:
    """Weights (O, K) on the grid of the steps (O,).

    Columns are rounded in the order of their power, and each error is passed on to those that are left.

    Args:
        second: (K, K) moment of the inputs.
    """
    order = np.argsort(-np.diag(second), kind="stable")
    left, h = weight[:, order].astype(np.float64), second[np.ix_(order, order)].astype(np.float64)
    scale = np.sqrt(np.maximum(np.diag(h), 1e-9 * max(np.diag(h).max(), 1e-30)))  # so that DAMP means the same to all
    h = (h + h.T) / 2 / np.outer(scale, scale) + DAMP * np.eye(len(h))
    inverse = np.linalg.inv(h) / np.outer(scale, scale)
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
    grid = np.zeros_like(left)
    for i in range(len(h)):
        grid[:, i] = np.clip(np.rint(left[:, i] / steps), -levels - 1, levels) * steps
        left[:, i + 1 :] -= ((left[:, i] - grid[:, i]) / upper[i, i])[:, None] * upper[i, i + 1 :]
    back = np.empty_like(grid)
    back[:, order] = grid
    return back
