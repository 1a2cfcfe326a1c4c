"""Weights of an ONNX part stored in 16 bits, for half the size; the arithmetic stays float32."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

MIN_SIZE = 1024  # values; smaller weights stay float32


def store_half(graph: onnx.GraphProto) -> None:
    """Stores large weights as float16 and casts them to float32 in the graph; runtimes fold the cast at load."""
    floats = [item for item in graph.initializer if item.data_type == onnx.TensorProto.FLOAT]
    for weight in floats:
        name, values = weight.name, numpy_helper.to_array(weight)
        if values.size < MIN_SIZE:
            continue
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        graph.node.insert(0, onnx.helper.make_node("Cast", [weight.name], [name], to=onnx.TensorProto.FLOAT))


def restore_float(graph: onnx.GraphProto) -> bool:
    """Undoes `store_half`; True where a weight was float16. A node without a name gets the name of its output."""
    weights = {item.name: item for item in graph.initializer}
    stored_half = False
    for node in list(graph.node):
        node.name = node.name or node.output[0]
        if node.op_type == "Cast" and node.input[0] in weights:
            to = onnx.helper.tensor_dtype_to_np_dtype(next(a.i for a in node.attribute if a.name == "to"))
            values = numpy_helper.to_array(weights[node.input[0]]).astype(to)
            graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
            graph.node.remove(node)
            stored_half = True

    read = {name for node in graph.node for name in node.input}
    initializers = [item for item in graph.initializer if item.name in read]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    return stored_half
