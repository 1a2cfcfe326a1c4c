"""Parameters and arithmetic of an ONNX part, from the graph's static shapes."""

from __future__ import annotations

import math
from typing import Any

from onnx import numpy_helper

from imkd_edge.bundle.shapes import infer_shapes, static_shapes
from imkd_edge.predict.layers import multiply_adds


def cost(model: bytes) -> dict[str, Any]:
    """Parameters and GFLOPs of one run of a part.

    Args:
        model: a float ONNX model with static shapes.

    Returns:
        {"parameters": values of its floating-point weights, "gflops": 1e-9 x 2 x multiply-adds of Conv, ConvTranspose,
        Gemm and MatMul}; other operators are not counted, as is usual.
    """
    graph = infer_shapes(model)
    shapes = static_shapes(graph)
    weights = [item for item in graph.initializer if numpy_helper.to_array(item).dtype.kind == "f"]
    products = sum(multiply_adds(node, shapes) for node in graph.node)
    return {"parameters": sum(math.prod(item.dims) for item in weights), "gflops": round(2e-9 * products, 4)}
