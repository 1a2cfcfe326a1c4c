"""Weights of a trained student, from a checkpoint or read back from the ONNX parts of a bundle.

The exporter folds each batch norm into the convolution before it: y = W' x + b'. A bundle therefore has no statistics
of its batch norms; `statistics.py` measures them anew.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from imkd_edge.bundle.format import PARTS, Bundle
from imkd_edge.bundle.half import restore_float
from imkd_edge.errors import Code, Error
from imkd_edge.spec import ModelSpec
from imkd_edge.training.checkpoint import CHECKPOINT, load_student

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class SourceWeights:
    """A trained student to start from."""

    name: str  # as the user wrote it
    spec: ModelSpec
    backbone: str  # of [model]; empty: unknown
    tensors: Tensors  # by the names of Student.state_dict
    folded: Tensors = field(default_factory=dict)  # convolution -> b' (C,) of the batch norm behind it; bundles only
    licence: str = ""  # of the data that it was trained on


def read_source(name: str) -> SourceWeights:
    """Reads the averaged student of a checkpoint or of a run's folder, or the weights of a bundle.

    Args:
        name: a file of `imkd-edge train`, its folder, a bundle's folder, or the name of a shipped bundle.

    Raises:
        Error: train_checkpoint for a teacher, a damaged file or a quantized bundle; bundle_* of Bundle.load.
    """
    path = Path(name)
    if (path / CHECKPOINT).is_file():
        path = path / CHECKPOINT
    if not path.is_file():
        return _read_bundle(name)
    student, settings, _ = load_student(path)
    return SourceWeights(
        name, settings.spec, settings.model.backbone, student.state_dict(), licence=settings.data.licence
    )


def _read_bundle(name: str) -> SourceWeights:
    bundle = Bundle.load(name)
    tensors: Tensors = {}
    folded: Tensors = {}
    for part in PARTS:
        graph = onnx.load_from_string(bundle.read(f"{part}.onnx")).graph
        restore_float(graph)
        if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.node):
            what, fix = "a quantized bundle, whose weights are rounded", "name the float bundle that it was made of"
            raise Error(Code.train_checkpoint, what, name, fix)
        _read_part(graph, f"{part}.", bundle.spec, tensors, folded)
    backbone = _entry(bundle.manifest, "provenance", "config", "model", "backbone")
    licence = _entry(bundle.manifest, "provenance", "data", "licence")
    return SourceWeights(name, bundle.spec, backbone, tensors, folded, licence)


def _entry(tree: Any, *keys: str) -> str:
    """A text of a manifest whose provenance may have any form; empty where it is not there."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree if isinstance(tree, str) else ""


def _read_part(graph: onnx.GraphProto, prefix: str, spec: ModelSpec, tensors: Tensors, folded: Tensors) -> None:
    """Adds the convolutions of a part, which the exporter names as torch does, and its folded maps of coordinates."""
    values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    for node in graph.node:
        weight = node.input[1] if node.op_type == "Conv" else ""
        if weight not in values or not weight.endswith(".weight"):
            continue
        layer = weight.removesuffix(".weight")
        tensors[prefix + weight] = _tensor(values[weight])
        if len(node.input) > 2:
            has_bias = node.input[2] == f"{layer}.bias"
            target, key = (tensors, f"{layer}.bias") if has_bias else (folded, layer)
            target[prefix + key] = _tensor(values[node.input[2]])
    layer, axes = coordinates(prefix, spec)
    if f"{layer}.weight" not in tensors:
        for constant in _added_constants(graph, values, [len(axis) for axis in axes]):
            tensors |= _fit(layer, constant, axes)


def coordinates(prefix: str, spec: ModelSpec) -> tuple[str, list[np.ndarray]]:
    """The layer of a part that reads coordinates, and their values along rows and columns."""
    if prefix == "camera.":
        return "camera.row_weight", [
            np.linspace(-1, 1, spec.image.feature_height()),
            np.zeros(spec.image.feature_width()),
        ]
    rows, columns = np.linspace(-1, 1, spec.grid.height()), np.linspace(-1, 1, spec.grid.width())
    return "bev.position_weight", [rows, columns]


def _added_constants(graph: onnx.GraphProto, values: dict[str, np.ndarray], shape: list[int]) -> Iterator[np.ndarray]:
    """Constants (1,C,*shape) that the graph adds to a map: the folded convolution of the coordinates."""
    names = itertools.chain.from_iterable(node.input for node in graph.node if node.op_type == "Add")
    for name in names:
        value = values.get(name)
        if value is not None and value.ndim == 4 and list(value.shape[2:]) == shape:
            yield value[0]


def _fit(layer: str, constant: np.ndarray, axes: list[np.ndarray]) -> Tensors:
    """Weight and bias of the 1x1 convolution whose output is the constant (C,h,w): least squares over its cells.

    Coordinates are columns, then rows; a coordinate that is 0 everywhere is no input of the layer.
    """
    rows, columns = np.meshgrid(*axes, indexing="ij")
    inputs = [grid.ravel() for grid in (columns, rows) if grid.any()]
    design = np.stack([*inputs, np.ones(rows.size)], 1)
    solution = np.linalg.lstsq(design, constant.reshape(len(constant), -1).T.astype(np.float64), rcond=None)[0]
    weight = solution[:-1].T[:, :, None, None]
    return {f"{layer}.weight": _tensor(weight), f"{layer}.bias": _tensor(solution[-1])}


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(values, np.float32))
