"""An ONNX part as the layers that TensorRT runs: a convolution takes what follows it element by element along, and Q/DQ disappear."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import onnx

ANCHORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
POINTWISE = (
    *(
        "Relu",
        "LeakyRelu",
        "PRelu",
        "Sigmoid",
        "Tanh",
        "HardSwish",
        "HardSigmoid",
        "Clip",
        "Exp",
        "Log",
        "Softplus",
        "Erf",
        "Sqrt",
        "Cast",
    ),
    *(
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Min",
        "Max",
        "Neg",
        "Reciprocal",
        "BatchNormalization",
        "Where",
        "Greater",
        "Less",
    ),
)
VIEWS = (
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "Constant",
    "Shape",
    "Gather",
    "ConstantOfShape",
    "Dropout",
)
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Layer:
    """What one kernel does: counts of values, not of bytes."""

    name: str
    kind: str  # ONNX operator, "pointwise" for a chain of such
    multiply_adds: int = 0
    depth: int = 0  # input channels of a group, which tensor cores take in steps
    read: int = 0  # values of the activations
    written: int = 0
    weights: int = 0
    int8: bool = False  # the arithmetic, and what is read
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
    if node.op_type == "ConvTranspose":  # weight (in, out / group, *kernel): each input value goes into that many sums
        return math.prod(data) * math.prod(weight[1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(out) * data[0 if transposed else -1]


def layers(model: bytes) -> list[Layer]:
    """The layers of an ONNX part, in order.

    Args:
        model: static shapes; Q/DQ pairs say what runs in INT8.
    """
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model), strict_mode=True, data_prop=True).graph
    return _Fusion(graph).layers()


class _Fusion:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self._nodes = list(graph.node)
        self._shapes = {
            x.name: [d.dim_value for d in x.type.tensor_type.shape.dim]
            for x in [*graph.input, *graph.value_info, *graph.output]
        }
        self._constants = {w.name for w in graph.initializer}
        self._shapes |= {w.name: list(w.dims) for w in graph.initializer}
        self._makers = {name: node for node in self._nodes for name in node.output}
        self._users: dict[str, list[onnx.NodeProto]] = {}
        for node in self._nodes:
            for name in node.input:
                self._users.setdefault(name, []).append(node)
        self._outputs = {x.name for x in graph.output}
        self._done: set[int] = set()
        for node in self._nodes:  # weights through Q/DQ, shapes and other sums of constants are folded
            if node.op_type in ("Constant", "Shape") or all(name in self._constants for name in node.input if name):
                self._constants.update(node.output)

    def layers(self) -> list[Layer]:
        found = []
        for node in self._nodes:
            if (
                id(node) in self._done
                or node.op_type in (*VIEWS, *QUANTIZERS, "Concat")
                or node.output[0] in self._constants
            ):
                continue  # a concatenation's inputs are written into place
            found.append(self._layer(node))
        return found

    def _layer(self, node: onnx.NodeProto) -> Layer:
        end, extra = self._chain(node)
        inputs = [name for name in node.input if name and name not in self._constants]
        product = node.op_type in ANCHORS
        weights = [name for name in node.input[1:2] if product and name in self._constants]
        kind = node.op_type if product or node.op_type not in POINTWISE else "pointwise"
        return Layer(
            name=node.name or node.output[0],
            kind=kind,
            multiply_adds=multiply_adds(node, self._shapes),
            depth=self._shapes[node.input[1]][0 if node.op_type == "ConvTranspose" else 1]
            if product and weights
            else 0,
            read=sum(self._size(name) for name in inputs) + extra,
            written=self._size(end),
            weights=sum(math.prod(self._shape(name)) for name in weights),
            int8=product
            and self._makers.get(node.input[0]) is not None
            and self._makers[node.input[0]].op_type == "DequantizeLinear",
            int8_out=any(user.op_type == "QuantizeLinear" for user in self._users.get(end, [])),
        )

    def _chain(self, node: onnx.NodeProto) -> tuple[str, int]:
        """The last tensor of what is fused behind this node, and how many more values that reads."""
        end, extra = node.output[0], 0
        if node.op_type not in (*ANCHORS, *POINTWISE):
            return end, extra
        while (
            end not in self._outputs and len(users := self._users.get(end, [])) == 1 and users[0].op_type in POINTWISE
        ):
            user = users[0]
            others = [name for name in user.input if name and name != end and name not in self._constants]
            if any(not self._is_ready(name, node) for name in others):
                break  # the other branch is computed later: it will be that branch's to fuse
            extra += sum(self._size(name) for name in others)
            self._done.add(id(user))
            end = user.output[0]
        return end, extra

    def _is_ready(self, name: str, node: onnx.NodeProto) -> bool:
        maker = self._makers.get(name)
        return maker is None or self._nodes.index(maker) < self._nodes.index(node)

    def _shape(self, name: str) -> list[int]:
        while name not in self._shapes and name in self._makers:
            name = self._makers[name].input[0]
        return self._shapes.get(name, [0])

    def _size(self, name: str) -> int:
        return math.prod(self._shape(name))


def in_int8(found: list[Layer]) -> list[Layer]:
    """The same layers as a quantized network would have them: every product but the first and the last."""
    products = [i for i, layer in enumerate(found) if layer.kind in ANCHORS]
    keeps = {products[0], products[-1]} if products else set()
    return [
        replace(layer, int8=layer.kind in ANCHORS and i not in keeps, int8_out=i not in keeps)
        for i, layer in enumerate(found)
    ]
