"""An ONNX part as quantization sees it: float weights, who makes and who reads each tensor, and what must share a precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

import numpy as np
import onnx
from onnx import numpy_helper

from imkd_edge.bundle.half import restore_float
from imkd_edge.calibration.collect import Watched
from imkd_edge.calibration.weights import REACH
from imkd_edge.checks.observe import Observable
from imkd_edge.errors import Code, Error
from imkd_edge.predict.layers import multiply_adds

WEIGHTED = ("Conv", "Gemm")  # what has INT8 kernels worth the name; ConvTranspose stays float
ARITHMETIC = (*WEIGHTED, "ConvTranspose", "MatMul")
ACTIVATIONS = ("Relu", "Clip")


@dataclass(frozen=True)
class Group:
    """A weighted layer and what a kernel does with it at once; its precision is one."""

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
            what = f"{name}.onnx holds a batch normalisation that is not folded"
            raise Error(Code.bundle_bad_value, what, name, "export the checkpoint with imkd-edge export")
        self.stored_half = restore_float(model.graph)
        self.name, self.model, self.graph = name, model, model.graph

    @cached_property
    def weights(self) -> dict[str, onnx.TensorProto]:
        """Initializers by name."""
        return {item.name: item for item in self.graph.initializer}

    @cached_property
    def producer(self) -> dict[str, onnx.NodeProto]:
        """The node that makes each tensor; inputs and initializers have none."""
        return {out: node for node in self.graph.node for out in node.output}

    @cached_property
    def readers(self) -> dict[str, list[onnx.NodeProto]]:
        """The nodes that read each tensor, in the graph's order; twice a node that reads it twice."""
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def outputs(self) -> set[str]:
        return {item.name for item in self.graph.output}

    @cached_property
    def shapes(self) -> dict[str, list[int]]:
        """Of every tensor, initializers included."""
        graph = onnx.shape_inference.infer_shapes(self.model, strict_mode=True, data_prop=True).graph
        every = [*graph.input, *graph.value_info, *graph.output]
        known = {item.name: [d.dim_value for d in item.type.tensor_type.shape.dim] for item in every}
        return {**known, **{name: list(item.dims) for name, item in self.weights.items()}}

    @cached_property
    def constants(self) -> set[str]:
        """Tensors that no input reaches."""
        found = set(self.weights)
        for node in self.graph.node:
            if all(name in found or not name for name in node.input):
                found |= set(node.output)
        return found

    def layers(self) -> list[onnx.NodeProto]:
        """Weighted nodes of data that the inputs reach, with a constant weight."""
        return [n for n in self.graph.node if n.op_type in ARITHMETIC and n.input[0] not in self.constants]

    def reached(self, source: str) -> dict[str, float]:
        """Tensors that depend on an input -> radius of their receptive field in its cells."""
        found, shapes = {source: 0.0}, self.shapes
        for node in self.graph.node:
            radii = [found[name] for name in node.input if name in found]
            if radii:
                grown = max(radii) + _half_kernel(node) * shapes[source][-2] / max(1, shapes[node.input[0]][-2])
                found |= dict.fromkeys(node.output, grown)
        return found

    def watched(self, names: set[str]) -> list[Watched]:
        """How to observe these tensors, in the graph's order; only radar's are weighted."""
        radar = self.reached("radar_grid") if "radar_grid" in self.shapes else {}
        order = [item.name for item in self.graph.input] + [out for node in self.graph.node for out in node.output]
        found = []
        for name in order:
            if name in names:
                shape = tuple(self.shapes[name])
                cells = radar.get(name, 0.0) * (shape[-2] / self.shapes["radar_grid"][-2] if radar else 0)
                found.append(
                    Watched(self.name, name, shape, name in radar and len(shape) == 4, min(REACH, int(np.ceil(cells))))
                )
        return found

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
        """Fusion groups in the graph's order; keep_float: names of groups that stay float beside those that stay float by rule."""
        raw = self._unweighted_from("radar_grid")
        last = self._last_layers()
        found = []
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
            found.append(Group(node.name, self._fused(node), multiply_adds(node, self.shapes), because))
        return found

    def _fused(self, node: onnx.NodeProto) -> tuple[str, ...]:
        """The layer, then the addition and activation that only follow it."""
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
        found = {source}
        for node in self.graph.node:
            if node.op_type not in ARITHMETIC and found & set(node.input):
                found |= set(node.output)
        return found

    def _last_layers(self) -> set[str]:
        """1x1 layers with an output of the part behind them and no further layer in between."""
        ends, found = set(self.outputs), set()
        for node in reversed(self.graph.node):
            if not ends & set(node.output):
                continue
            if node.op_type not in ARITHMETIC:
                ends |= set(node.input)
            elif node.op_type != "Conv" or self.shapes[node.input[1]][2:] == [1, 1]:
                found.add(node.name)
        return found


def layers_called(names: Sequence[str], parts: Mapping[str, Part]) -> dict[str, tuple[str, ...]]:
    """Of each part the layers that the names mean, LAYER or PART/LAYER; raises Error spec_bad_value for one that means none, or several."""
    known = {(part, node.name): f"{part}/{node.name}" for part in parts for node in parts[part].layers()}
    layers = list(dict.fromkeys(layer for _, layer in known))
    found: dict[str, list[str]] = {part: [] for part in parts}
    for name in names:
        meant = [place for place, full in known.items() if name in (place[1], full)]
        if len(meant) > 1:  # exporters number the nodes of each part anew
            fix = f"say which: {' or '.join(known[place] for place in meant)}"
            raise Error(Code.spec_bad_value, f"{len(meant)} layers are called {name!r}", "--keep-float", fix)
        if not meant:
            near = get_close_matches(name.removeprefix("camera/").removeprefix("bev/"), layers)
            fix = f"near ones are {', '.join(full for layer in near or layers[:3] for place, full in known.items() if place[1] == layer)}"
            raise Error(Code.spec_bad_value, f"no layer is called {name!r}", "--keep-float", fix)
        found[meant[0][0]].append(meant[0][1])
    return {part: tuple(layers) for part, layers in found.items()}


def _half_kernel(node: onnx.NodeProto) -> float:
    """Half the extent of what one output value reads, in cells of the input."""
    if node.op_type not in ("Conv", "ConvTranspose", "MaxPool", "AveragePool"):
        return 0.0
    kernel = next((a.ints for a in node.attribute if a.name == "kernel_shape"), [1])
    dilation = next((a.ints for a in node.attribute if a.name == "dilations"), [1] * len(kernel))
    return max(d * (k - 1) / 2 for k, d in zip(kernel, dilation, strict=True))
