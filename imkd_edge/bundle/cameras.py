"""The number of cameras of an ONNX part: the batch of camera.onnx, whose weights all cameras share."""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from imkd_edge.bundle.shapes import infer_shapes, static_shape
from imkd_edge.errors import Code, Error

RESHAPES = ("Reshape", "Expand")  # their second input is a shape, which may hold the batch


def with_cameras(model: bytes, cameras: int) -> bytes:
    """The camera part for another number of cameras.

    Args:
        model: ONNX file with static shapes; the first axis of each input and output is the camera.
        cameras: the new length of that axis.

    Raises:
        Error: bundle_bad_value where the graph fixes the number of cameras in another way.
    """
    part = onnx.load_from_string(model)
    graph = part.graph
    old = static_shape(graph.input[0])[0]
    if old == cameras:
        return model
    _change_shapes(graph, old, cameras)
    del graph.value_info[:]
    for item in [*graph.input, *graph.output]:
        item.type.tensor_type.shape.dim[0].dim_value = cameras
    try:
        graph.value_info.extend(infer_shapes(part).value_info)
    except onnx.shape_inference.InferenceError as error:
        problem = f"camera.onnx cannot be changed from {old} to {cameras} cameras: {str(error).strip()}"
        raise Error(Code.bundle_bad_value, problem, "--cameras", "export the checkpoint with --cameras") from error
    return part.SerializeToString()


def _change_shapes(graph: onnx.GraphProto, old: int, new: int) -> None:
    """Replaces the batch in the constant shapes of `RESHAPES` nodes that depend on an input of the graph."""
    constants = {item.name: item for item in graph.initializer}
    variable = {item.name for item in graph.input} - set(constants)
    for index, node in enumerate(graph.node):
        if not variable.intersection(node.input):
            continue
        variable.update(node.output)
        shape = constants.get(node.input[1]) if node.op_type in RESHAPES else None
        values = None if shape is None else numpy_helper.to_array(shape).copy()
        if values is None or not len(values) or values[0] != old:
            continue
        values[0] = new  # as a constant of its own: another node may read the old one
        name = f"{node.input[1]}_cameras_{index}"
        graph.initializer.append(numpy_helper.from_array(values, name))
        node.input[1] = name
