"""An ONNX part as the layers that TensorRT runs: pointwise operators fuse into the layer before them, Q/DQ vanish."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import onnx

from imkd_edge.bundle.shapes import infer_shapes, static_shapes

ANCHORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# fmt: off
POINTWISE = (
    "Relu", "LeakyRelu", "PRelu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Clip", "Exp", "Log", "Softplus",
    "Erf", "Sqrt", "Cast", "Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Neg", "Reciprocal", "BatchNormalization",
    "Where", "Greater", "Less",
)
VIEWS = (
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Constant", "Shape", "Gather", "ConstantOfShape",
    "Dropout",
)
# fmt: on
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Layer:
    """The work of one kernel; numbers of values, not of bytes."""

    name: str
    kind: str  # ONNX operator, "pointwise" for a chain of such
    multiply_adds: int = 0
    depth: int = 0  # input channels of a group, which tensor cores process in steps
    read: int = 0  # values of the activations
    written: int = 0
    weights: int = 0
    int8: bool = False  # arithmetic and inputs
    int8_out: bool = False


def multiply_adds(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    """Of one ONNX node; 0 where it is no matrix product.

    Args:
        shapes: tensor name -> shape.
    """
    if node.op_type not in ANCHORS:
        return 0
    data, weight, out = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
    if node.op_type == "Conv":  # weight (out, in / group, *kernel): each output value is a sum of that many products
        return math.prod(out) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":  # weight (in, out / group, *kernel): each input value is in that many sums
        return math.prod(data) * math.prod(weight[1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(out) * data[0 if transposed else -1]


def layers(model: bytes) -> list[Layer]:
    """The layers of an ONNX part, in order.

    Args:
        model: with static shapes; products behind Q/DQ pairs run in INT8.
    """
    return _Fusion(infer_shapes(model)).layers()


class _Fusion:
    """Fuses the nodes of a graph into layers."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._nodes = list(graph.node)
        self._shapes = static_shapes(graph)
        self._constants = {item.name for item in graph.initializer}
        self._producers = {name: node for node in self._nodes for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self._nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._outputs = {item.name for item in graph.output}
        self._fused: set[int] = set()
        for node in self._nodes:  # TensorRT folds constants: weights behind Q/DQ, shapes, sums of constants
            if node.op_type in ("Constant", "Shape") or all(name in self._constants for name in node.input if name):
                self._constants.update(node.output)

    def layers(self) -> list[Layer]:
        """The layers, in the graph's order."""
        free = (*VIEWS, *QUANTIZERS, "Concat")  # a concatenation's inputs are written directly into its output
        result = []
        for node in self._nodes:
            if id(node) not in self._fused and node.op_type not in free and node.output[0] not in self._constants:
                result.append(self._layer(node))
        return result

    def _layer(self, node: onnx.NodeProto) -> Layer:
        end, extra = self._chain(node)
        inputs = [name for name in node.input if name and name not in self._constants]
        product = node.op_type in ANCHORS
        weights = [name for name in node.input[1:2] if product and name in self._constants]
        depth = 0
        if weights:
            depth = self._shapes[node.input[1]][0 if node.op_type == "ConvTranspose" else 1]
        producer = self._producers.get(node.input[0]) if product else None
        return Layer(
            name=node.name or node.output[0],
            kind=node.op_type if product or node.op_type not in POINTWISE else "pointwise",
            multiply_adds=multiply_adds(node, self._shapes),
            depth=depth,
            read=sum(self._size(name) for name in inputs) + extra,
            written=self._size(end),
            weights=sum(math.prod(self._shape(name)) for name in weights),
            int8=producer is not None and producer.op_type == "DequantizeLinear",
            int8_out=any(reader.op_type == "QuantizeLinear" for reader in self._readers.get(end, [])),
        )

    def _chain(self, node: onnx.NodeProto) -> tuple[str, int]:
        """The last tensor of the nodes that are fused behind this one, and how many more values they read."""
        end, extra = node.output[0], 0
        if node.op_type not in (*ANCHORS, *POINTWISE):
            return end, extra
        while end not in self._outputs and len(readers := self._readers.get(end, [])) == 1:
            reader = readers[0]
            if reader.op_type not in POINTWISE:
                break
            others = [name for name in reader.input if name and name != end and name not in self._constants]
            if any(not self._is_before(name, node) for name in others):
                break  # the other branch is computed later and fuses the reader itself
            extra += sum(self._size(name) for name in others)
            self._fused.add(id(reader))
            end = reader.output[0]
        return end, extra

    def _is_before(self, name: str, node: onnx.NodeProto) -> bool:
        """Whether a tensor is computed before a node."""
        producer = self._producers.get(name)
        return producer is None or self._nodes.index(producer) < self._nodes.index(node)

    def _shape(self, name: str) -> list[int]:
        """Of a tensor, or of its producer's input where inference has none."""
        while name not in self._shapes and name in self._producers:
            name = self._producers[name].input[0]
        return self._shapes.get(name, [0])

    def _size(self, name: str) -> int:
        return math.prod(self._shape(name))


def in_int8(network: list[Layer]) -> list[Layer]:
    """The same layers quantized: every product but the first and the last."""
    products = [i for i, layer in enumerate(network) if layer.kind in ANCHORS]
    floats = {products[0], products[-1]} if products else set()
    return [
        replace(layer, int8=layer.kind in ANCHORS and i not in floats, int8_out=i not in floats)
        for i, layer in enumerate(network)
    ]
