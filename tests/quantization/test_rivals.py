"""Rows of other tools: the same frames, the same layers in float."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from imkd_edge.bundle.golden import read_golden
from imkd_edge.errors import Error
from imkd_edge.quantization.graph import Part
from imkd_edge.quantization.noise import noisy_weights
from imkd_edge.quantization.rivals import rival_bundle, unchecked_bundle


def test_onnxruntime_quantizes_the_layers_that_we_quantize(calibration: Any, tmp_path: Path) -> None:
    bundle = rival_bundle(calibration, "MinMax", tmp_path / "rival.imkd", threads=1)
    for name, part in calibration.parts.items():
        graph = onnx.load_from_string(bundle.read(f"{name}.onnx")).graph
        produced_by = {output: node.op_type for node in graph.node for output in node.output}
        inputs = {node.name: node.input for node in graph.node}
        for group in part.groups():
            weight = produced_by.get(inputs[group.name][1])
            assert (weight == "DequantizeLinear") == (not group.float_because), group.name
    assert bundle.manifest["provenance"]["rival"] == "onnxruntime.quantization, MinMax"
    assert sum(len(frame.arrays["scores"]) for frame in read_golden(bundle)) > 0


def test_modelopt_without_its_environment_is_refused_with_the_way_to_name_one(calibration: Any, tmp_path: Path) -> None:
    with pytest.raises(Error, match="--modelopt PYTHON") as refused:
        rival_bundle(calibration, "modelopt-max", tmp_path / "rival.imkd", threads=1)
    assert refused.value.code == "E0701"


def test_a_noisy_copy_of_the_float_model_has_noise_of_a_quarter_step_on_the_weights_of_int8_layers_alone(
    calibration: Any, tmp_path: Path
) -> None:
    copies = {name: noisy_weights(part, seed=0) for name, part in calibration.parts.items()}
    deviations = [change for name, part in calibration.parts.items() for change in weight_changes(part, copies[name])]
    assert np.std(deviations) == pytest.approx(0.25, rel=0.01)
    files = {name: part.model.SerializeToString() for name, part in copies.items()}
    bundle = unchecked_bundle(calibration, files, tmp_path / "noisy.imkd", jitter=0)
    assert sum(len(frame.arrays["scores"]) for frame in read_golden(bundle)) > 0


def weight_changes(part: Part, copy: Part) -> list[float]:
    """Changes of each INT8 layer's weights by 1/127 of the output channel's largest; other weights are equal."""
    integer = {group.name for group in part.groups() if not group.float_because}
    weights = {node.input[1] for node in part.graph.node if node.name in integer}
    changes: list[float] = []
    for name in part.weights:
        before, after = (numpy_helper.to_array(tensors[name]) for tensors in (part.weights, copy.weights))
        if name not in weights:
            np.testing.assert_array_equal(before, after)
            continue
        for channel, change in zip(before, after - before, strict=True):  # convolutions: output channels first
            if np.abs(channel).max() > 0:
                changes += list((change / (np.abs(channel).max() / 127)).ravel())
    return changes
