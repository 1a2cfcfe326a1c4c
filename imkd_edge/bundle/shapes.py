"""Static shapes of an ONNX graph."""

from __future__ import annotations

import onnx


def infer_shapes(model: onnx.ModelProto | bytes) -> onnx.GraphProto:
    """A copy of a model's graph with the shape of every tensor; raises onnx's error where one cannot be inferred."""
    if isinstance(model, bytes):
        model = onnx.load_from_string(model)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph


def static_shape(item: onnx.ValueInfoProto) -> list[int]:
    """A tensor's shape; 0 for an extent that the graph does not fix."""
    return [dim.dim_value for dim in item.type.tensor_type.shape.dim]


def static_shapes(graph: onnx.GraphProto) -> dict[str, list[int]]:
    """Tensor name -> shape, of inputs, inner tensors, outputs and initializers of an inferred graph."""
    shapes = {item.name: static_shape(item) for item in [*graph.input, *graph.value_info, *graph.output]}
    return shapes | {item.name: list(item.dims) for item in graph.initializer}
