"""What an ONNX part costs: its parameters and its arithmetic, from the graph's static shapes."""

from __future__ import annotations

import math
from typing import Any

import onnx
from onnx import numpy_helper

from imkd_edge.predict.layers import multiply_adds


def cost(model: bytes) -> dict[str, Any]:
    """Parameters and GFLOPs of one run of a part.

    Args:
        model: a float ONNX model with static shapes.

    Returns:
        {"parameters": values of its floating-point weights, "gflops": 1e-9 x 2 x multiply-adds of Conv, ConvTranspose, Gemm and MatMul};
        what is done between those layers is not counted, as is usual.
    """
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model), strict_mode=True, data_prop=True).graph
    shapes = {
        x.name: [d.dim_value for d in x.type.tensor_type.shape.dim]
        for x in [*graph.input, *graph.value_info, *graph.output]
    }
    shapes |= {w.name: list(w.dims) for w in graph.initializer}
    weights = [w for w in graph.initializer if numpy_helper.to_array(w).dtype.kind == "f"]
    products = sum(multiply_adds(node, shapes) for node in graph.node)
    return {"parameters": sum(math.prod(w.dims) for w in weights), "gflops": round(2e-9 * products, 4)}
