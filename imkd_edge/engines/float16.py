"""An ONNX part whose float operators compute in float16: strongly typed networks of TensorRT take their types from it.

Q/DQ pairs keep their integers. Inputs, outputs and softmax stay float32.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from imkd_edge.bundle.half import restore_float

OPSET = 19  # the first whose QuantizeLinear takes float16; TensorRT 10.3 and later read it
FLOAT32 = ("Softmax",)  # operators that compute in float32
COORDINATES = {"Resize": (1, 2, 3)}  # operator -> inputs that hold regions, scales or sizes: never float16


def half_bytes(part: bytes) -> bytes:
    """`to_half` on the bytes of an ONNX file."""
    return to_half(onnx.load_from_string(part)).SerializeToString()


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an opset 18 part with float16 between its inputs and outputs; its weights may be stored in 16 bits."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    restore_float(inferred.graph)
    items = [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]
    types = {item.name: item.type.tensor_type.elem_type for item in items}
    types |= {item.name: item.data_type for item in inferred.graph.initializer}
    writer = _Writer(inferred, {name for name, kind in types.items() if kind == TensorProto.FLOAT})
    for node in inferred.graph.node:
        writer.add(node)
    return writer.finish()


class _Writer:
    """The float16 graph under construction.

    Args:
        floats: names of the float32 tensors of the model.
    """

    def __init__(self, model: onnx.ModelProto, floats: set[str]) -> None:
        self._model, self._floats = model, floats
        self._weights = {item.name: item for item in model.graph.initializer}
        self._half: set[str] = set()  # tensors of the new graph that are float16
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._casts: dict[tuple[str, bool], str] = {}

    def add(self, node: onnx.NodeProto) -> None:
        """Copies a node; its float inputs and outputs become float16."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        half = node.op_type not in FLOAT32
        fixed = COORDINATES.get(node.op_type, ())
        copy.input[:] = [self._input(name, half, i in fixed) for i, name in enumerate(node.input)]
        for attribute in copy.attribute:
            if copy.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
        if half:
            self._half |= {name for name in node.output if name in self._floats}
        self._nodes.append(copy)

    def _input(self, name: str, half: bool, fixed: bool) -> str:
        """The name of an input in the type that its reader computes in; fixed: a constant that keeps its type."""
        if name in self._weights:
            return self._constant(name, half and not fixed and name in self._floats)
        if name not in self._floats or (name in self._half) == half:
            return name
        return self._cast(name, half)

    def _constant(self, name: str, half: bool) -> str:
        values = numpy_helper.to_array(self._weights[name])
        copy = f"{name}_half" if half else name
        self._constants[copy] = numpy_helper.from_array(values.astype(np.float16) if half else values, copy)
        return copy

    def _cast(self, name: str, half: bool) -> str:
        if (name, half) not in self._casts:
            cast = f"{name}_{'half' if half else 'full'}"
            to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
            self._nodes.append(helper.make_node("Cast", [name], [cast], name=cast, to=to))
            self._casts[name, half] = cast
        return self._casts[name, half]

    def finish(self) -> onnx.ModelProto:
        """The model, with float16 outputs cast to float32."""
        graph = self._model.graph
        for name in [out.name for out in graph.output if out.name in self._half]:
            self._rename(name, f"{name}_half_out")
            cast = helper.make_node("Cast", [f"{name}_half_out"], [name], name=name, to=TensorProto.FLOAT)
            self._nodes.append(cast)
        constants = list(self._constants.values())
        half = helper.make_graph(self._nodes, graph.name, graph.input, graph.output, constants)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(half, opset_imports=opsets, ir_version=self._model.ir_version)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _rename(self, old: str, new: str) -> None:
        for node in self._nodes:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]
