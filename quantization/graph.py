"""A float ONNX part for quantization: its weights, the producer and readers of each tensor, its fusion groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

import numpy as np
import onnx
from onnx import numpy_helper

from imkd_edge.bundle.half import restore_float
from imkd_edge.bundle.shapes import infer_shapes, static_shapes
from imkd_edge.calibration.collect import ObservedTensor
from imkd_edge.checks.observe import Observable
from imkd_edge.errors import Code, Error
from imkd_edge.predict.layers import multiply_adds

WEIGHTED = ("Conv", "Gemm")  # layers with fast INT8 kernels; ConvTranspose has none and stays float
ARITHMETIC = (*WEIGHTED, "ConvTranspose", "MatMul")
ACTIVATIONS = ("Relu", "Clip")


@dataclass(frozen=True)
class Group:
    """A weighted layer and the nodes that its kernel fuses; they share one precision."""

    name: str  # of the weighted node
    nodes: tuple[str, ...]
    multiply_adds: int
    float_because: str = ""  # empty: INT8


class Part:
    """A float part of a bundle.

    Args:
        data: the ONNX file.
        name: "camera" or "bev".

    Raises:
        Error: quantized_already; bundle_bad_value where a batch normalisation is not folded into its convolution.
    """

    def __init__(self, data: bytes, name: str) -> None:
        model = onnx.load_from_string(data)
        kinds = {node.op_type for node in model.graph.node}
        if kinds & {"QuantizeLinear", "DequantizeLinear"}:
            raise Error(Code.quantized_already, f"{name}.onnx holds Q/DQ pairs", name, "quantize the float bundle")
        if "BatchNormalization" in kinds:
            what = f"{name}.onnx holds a batch normalisation that is not folded into its convolution"
            raise Error(Code.bundle_bad_value, what, name, "export the checkpoint with imkd-edge export")
        self.stored_half = restore_float(model.graph)
        self.name, self.model, self.graph = name, model, model.graph

    @cached_property
    def weights(self) -> dict[str, onnx.TensorProto]:
        """Initializers by name."""
        return {item.name: item for item in self.graph.initializer}

    @cached_property
    def producer(self) -> dict[str, onnx.NodeProto]:
        """Tensor -> the node that computes it; inputs and initializers have none."""
        return {out: node for node in self.graph.node for out in node.output}

    @cached_property
    def readers(self) -> dict[str, list[onnx.NodeProto]]:
        """Tensor -> the nodes that read it, in the graph's order; a node that reads it twice comes twice."""
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        return readers

    @cached_property
    def outputs(self) -> set[str]:
        """Names of the part's outputs."""
        return {item.name for item in self.graph.output}

    @cached_property
    def shapes(self) -> dict[str, list[int]]:
        """Tensor -> shape, initializers included."""
        return static_shapes(infer_shapes(self.model))

    @cached_property
    def constants(self) -> set[str]:
        """Tensors that depend on no input."""
        names = set(self.weights)
        for node in self.graph.node:
            if all(name in names or not name for name in node.input):
                names |= set(node.output)
        return names

    def layers(self) -> list[onnx.NodeProto]:
        """Weighted nodes whose data depends on an input."""
        return [n for n in self.graph.node if n.op_type in ARITHMETIC and n.input[0] not in self.constants]

    def observed_tensors(self, names: set[str]) -> list[ObservedTensor]:
        """How to observe these tensors, in the graph's order."""
        order = [item.name for item in self.graph.input] + [out for node in self.graph.node for out in node.output]
        return [ObservedTensor(self.name, name, tuple(self.shapes[name])) for name in order if name in names]

    def with_outputs(self, names: list[str]) -> Observable:
        """The part with these tensors among its outputs."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        present = self.outputs | {item.name for item in self.graph.input}
        model.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, self.shapes[name])
            for name in names
            if name not in present
        )
        return Observable(model.SerializeToString(), self.outputs)

    def with_weights(self, values: Mapping[str, np.ndarray]) -> Part:
        """The part with other values of some initializers."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        for item in model.graph.initializer:
            if item.name in values:
                item.ClearField("float_data")
                item.raw_data = numpy_helper.from_array(np.asarray(values[item.name], np.float32)).raw_data
        return Part(model.SerializeToString(), self.name)

    def groups(self, keep_float: tuple[str, ...] = ()) -> list[Group]:
        """Fusion groups in the graph's order.

        Args:
            keep_float: names of groups that stay float beside those that stay float by rule.
        """
        raw = self._unweighted_from("radar_grid")
        last = self._last_layers()
        groups = []
        for node in self.layers():
            because = ""
            if node.op_type not in WEIGHTED or node.input[1] not in self.weights:
                because = "no INT8 kernel"
            elif node.input[0] in raw:
                because = "reads the radar grid, whose units are mixed"
            elif node.name in last:
                because = "last layer of an output"
            elif node.name in keep_float:
                because = "chosen"
            groups.append(Group(node.name, self._fused(node), multiply_adds(node, self.shapes), because))
        return groups

    def _fused(self, node: onnx.NodeProto) -> tuple[str, ...]:
        """The layer, then the additions and the activation that are its only readers."""
        nodes = [node.name]
        while len(readers := self.readers.get(node.output[0], [])) == 1 and node.output[0] not in self.outputs:
            node = readers[0]
            if node.op_type not in (*ACTIVATIONS, "Add"):
                break
            nodes.append(node.name)
            if node.op_type in ACTIVATIONS:
                break
        return tuple(nodes)

    def _unweighted_from(self, source: str) -> set[str]:
        """Tensors between an input and the first weighted layers."""
        names = {source}
        for node in self.graph.node:
            if node.op_type not in ARITHMETIC and names & set(node.input):
                names |= set(node.output)
        return names

    def _last_layers(self) -> set[str]:
        """1x1 layers with an output of the part behind them and no further layer in between."""
        ends, names = set(self.outputs), set()
        for node in reversed(self.graph.node):
            if not ends & set(node.output):
                continue
            if node.op_type not in ARITHMETIC:
                ends |= set(node.input)
            elif node.op_type != "Conv" or self.shapes[node.input[1]][2:] == [1, 1]:
                names.add(node.name)
        return names


def resolve_layers(names: Sequence[str], parts: Mapping[str, Part]) -> dict[str, tuple[str, ...]]:
    """The named layers of each part.

    Args:
        names: LAYER or PART/LAYER.

    Raises:
        Error: spec_bad_value for a name that fits no layer, or several.
    """
    known = [(part, node.name) for part in parts for node in parts[part].layers()]
    layers: dict[str, list[str]] = {part: [] for part in parts}
    for name in names:
        matches = [(part, layer) for part, layer in known if name in (layer, f"{part}/{layer}")]
        if len(matches) > 1:  # exporters number the nodes of each part from 0
            fix = f"give the part: {' or '.join('/'.join(match) for match in matches)}"
            raise Error(Code.spec_bad_value, f"{len(matches)} layers are called {name!r}", "--keep-float", fix)
        if not matches:
            fix = f"similar names: {', '.join(_similar(name, known))}"
            raise Error(Code.spec_bad_value, f"no layer is called {name!r}", "--keep-float", fix)
        part, layer = matches[0]
        layers[part].append(layer)
    return {part: tuple(names) for part, names in layers.items()}


def _similar(name: str, known: Sequence[tuple[str, str]]) -> list[str]:
    """PART/LAYER of the layers whose names are most like this one; the first layers where none is."""
    names = list(dict.fromkeys(layer for _, layer in known))
    close = get_close_matches(name.removeprefix("camera/").removeprefix("bev/"), names) or names[:3]
    return [f"{part}/{layer}" for match in close for part, layer in known if layer == match]
