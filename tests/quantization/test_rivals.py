"""Rows of other tools: the same frames, the same layers in float."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from imkd_edge.bundle.golden import read_golden
from imkd_edge.quantization.rivals import onnxruntime_bundle


def test_onnxruntime_quantizes_the_layers_that_we_quantize(calibration: Any, tmp_path: Path) -> None:
    bundle = onnxruntime_bundle(calibration, "MinMax", tmp_path / "rival.imkd", threads=1)
    for name, part in calibration.parts.items():
        graph = onnx.load_from_string(bundle.read(f"{name}.onnx")).graph
        produced_by = {output: node.op_type for node in graph.node for output in node.output}
        inputs = {node.name: node.input for node in graph.node}
        for group in part.groups():
            weight = produced_by.get(inputs[group.name][1])
            assert (weight == "DequantizeLinear") == (not group.float_because), group.name
    assert bundle.manifest["provenance"]["rival"] == "onnxruntime.quantization, MinMax"
    assert sum(len(frame.arrays["scores"]) for frame in read_golden(bundle)) > 0
