"""Channels that carry a common factor through a part, and that factor folded into the weights on both sides.

relu(W x / e) = relu(W x) / e: the activations between two convolutions may be divided by any e > 0 per channel if the
next weights are multiplied by it (Nagel et al., ICCV 2019). Additions, pooling, resizing, concatenations and gates
carry the factor along; sigmoids, softmax and the part's inputs and outputs hold it at 1. A ReLU6 clips at 6 e instead,
so its channels may only be stretched, and no further than the values that were observed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from imkd_edge.calibration.histogram import Histogram
from imkd_edge.quantization.graph import Part

CLIP = 6.0  # upper limit of a ReLU6
DIGITS = 4  # of a factor, as it is written into the manifest


class Channels:
    """ids: tensor -> (C,) number of each channel's factor.

    Args:
        histograms: of the part's quantized tensors. A channel that never fires in them keeps the factor 1.
    """

    def __init__(self, part: Part, histograms: Mapping[str, Histogram]) -> None:
        self.part = part
        self.ids: dict[str, np.ndarray] = {}
        self._parent: list[int] = []
        self._fixed: set[int] = set()
        self._clipped: list[str] = []  # outputs of ReLU6
        self._arrays = {name: numpy_helper.to_array(part.weights[name]) for name in part.weights}
        for item in part.graph.input:
            self.ids[item.name] = self._new(part.shapes[item.name][1], fixed=True)
        for node in part.graph.node:
            if node.output[0] not in part.constants:
                self._visit(node)
        for name in part.outputs:
            self._fix(name)
        self.ids = {name: np.array([self._root(i) for i in ids]) for name, ids in self.ids.items()}
        self.count = len(self._parent)
        self.lowest, self.free = self._limits(histograms)

    def _visit(self, node: onnx.NodeProto) -> None:
        out, given = node.output[0], [name for name in node.input if name in self.ids]
        kind = node.op_type
        if kind == "Conv" and self._own_constants(node):
            self.ids[out] = self._new(self.part.shapes[out][1])
        elif kind in ("Relu", "MaxPool", "Resize") or (kind == "Clip" and self._is_relu6(node)):
            self.ids[out] = self.ids[given[0]]
            self._clipped += [out] * (kind == "Clip")
        elif kind == "Add" and len(given) == 2 and len(self.ids[given[0]]) == len(self.ids[given[1]]):
            for a, b in zip(*(self.ids[name] for name in given), strict=True):
                self._join(a, b)
            self.ids[out] = self.ids[given[0]]
        elif kind == "Mul" and len(given) == 2:
            gate, data = sorted(given, key=lambda name: len(self.ids[name]))
            self._fix(gate)
            self.ids[out] = self.ids[data]
        elif kind == "Concat" and len(given) == len(node.input) and _attributes(node)["axis"] == 1:
            self.ids[out] = np.concatenate([self.ids[name] for name in node.input])
        elif kind == "Slice" and (part := self._channel_slice(node)) is not None:
            self.ids[out] = self.ids[given[0]][part]
        else:
            for name in given:
                self._fix(name)
            for name in node.output:
                shape = self.part.shapes[name]
                self.ids[name] = self._new(shape[1] if len(shape) > 1 else 1, fixed=True)

    def _own_constants(self, node: onnx.NodeProto) -> bool:
        """Whether no other node reads the layer's weight and bias."""
        return all(name in self._arrays and len(self.part.readers[name]) == 1 for name in node.input[1:])

    def _is_relu6(self, node: onnx.NodeProto) -> bool:
        low, high = (self._arrays.get(name) for name in node.input[1:3])
        return low is not None and high is not None and float(low) == 0 and float(high) == CLIP

    def _channel_slice(self, node: onnx.NodeProto) -> slice | None:
        arrays = [self._arrays[name] for name in node.input[1:] if name in self._arrays]
        if len(arrays) < max(3, len(node.input) - 1) or any(a.size != 1 for a in arrays):
            return None
        start, end, axis, *step = (int(a.ravel()[0]) for a in arrays)
        return slice(start, end) if axis == 1 and step in ([], [1]) else None

    def _new(self, count: int, fixed: bool = False) -> np.ndarray:
        new = np.arange(len(self._parent), len(self._parent) + count)
        self._parent += new.tolist()
        self._fixed |= set(new.tolist()) if fixed else set()
        return new

    def _root(self, i: int) -> int:
        while self._parent[i] != i:
            i = self._parent[i]
        return i

    def _join(self, a: int, b: int) -> None:
        low, high = sorted((self._root(int(a)), self._root(int(b))))
        self._parent[high] = low

    def _fix(self, name: str) -> None:
        self._fixed |= set(self.ids[name].tolist())

    def _limits(self, histograms: Mapping[str, Histogram]) -> tuple[np.ndarray, np.ndarray]:
        """(ids,) the lowest factor of ReLU6's channels, 0 of all others; and (ids,) bool which factors may change."""
        lowest, highest = np.zeros(self.count), np.zeros(self.count)
        for name, histogram in histograms.items():
            np.maximum.at(highest, self.ids[name], histogram.highest)
        for name in self._clipped:
            observed = histograms[name].highest if name in histograms else np.full(len(self.ids[name]), CLIP)
            np.maximum.at(lowest, self.ids[name], observed / CLIP)
        free = highest > 0
        free[[self._root(i) for i in self._fixed]] = False
        return np.minimum(lowest, 1.0), free

    def layers(self) -> Iterator[tuple[onnx.NodeProto, np.ndarray, np.ndarray]]:
        """Of each convolution the node, its weight (O, I, ...), and the numbers of its inputs' factors (O, I)."""
        for node in self.part.layers():
            if node.op_type != "Conv" or node.input[1] not in self._arrays:
                continue
            weight = self._arrays[node.input[1]]
            yield node, weight, self.ids[node.input[0]][input_channels(node, weight)]

    def fold(self, factor: np.ndarray) -> Part:
        """The part whose activations are divided by factor[id]; factor (ids,) has 1 at all that may not change."""
        changed = {}
        for node, weight, inner in self.layers():
            outer = factor[self.ids[node.output[0]]]
            ratio = factor[inner] / outer[:, None]
            changed[node.input[1]] = weight * ratio.reshape(*ratio.shape, *[1] * (weight.ndim - 2))
            for bias in node.input[2:]:
                changed[bias] = self._arrays[bias] / outer
        return self.part.with_weights(changed)

    def factors(self, factor: np.ndarray) -> dict[str, np.ndarray]:
        """Tensor -> (C,) what its channels are divided by, where that is not 1."""
        found = {name: factor[ids] for name, ids in self.ids.items()}
        return {name: values for name, values in found.items() if (values != 1).any()}


def input_channels(node: onnx.NodeProto, weight: np.ndarray) -> np.ndarray:
    """(O, I) which channel of a convolution's input each kernel of its weight (O, I, ...) reads."""
    outputs, inputs = weight.shape[:2]
    group = np.arange(outputs) // (outputs // _attributes(node).get("group", 1))
    return group[:, None] * inputs + np.arange(inputs)


def rounded(factor: np.ndarray) -> np.ndarray:
    """Factors of DIGITS digits, so that the manifest holds them exactly."""
    return np.array([float(f"{value:.{DIGITS}g}") for value in factor])


def _attributes(node: onnx.NodeProto) -> dict:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}
