"""Which layers stay float under a gate, and in which order they are chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import random_spec, write_random_bundle
from imkd_edge import Bundle, Detector
from imkd_edge.bundle import golden_rig
from imkd_edge.calibration.collect import Collection
from imkd_edge.calibration.solvers import Method
from imkd_edge.options import QuantizeOptions
from imkd_edge.quantization.graph import Group, Part
from imkd_edge.quantization.ptq import quantize_part
from imkd_edge.quantization.quantize import quantize
from imkd_edge.quantization.sensitivity import Probe, mixed_precision, predicted_latency, sensitivities
from imkd_edge.quantization.state import Calibration
from imkd_edge.sources.synth import SynthSource

SENSITIVE = "node_Conv_364"  # reads relu_16, which no other layer does


@pytest.fixture(scope="module")
def probe(calibration: Calibration) -> Probe:
    return Probe.of(calibration.bundle, calibration.parts["bev"], calibration.source, calibration.frames.names[:1], 1)


@pytest.fixture(scope="module")
def outlier(calibration: Calibration) -> Collection:
    """Histograms with a value 100 times as large at the input of one layer."""
    histograms = dict(calibration.collection.histograms)
    histograms["bev/relu_16"] = replace(histograms["bev/relu_16"], largest=100 * histograms["bev/relu_16"].largest)
    return replace(calibration.collection, histograms=histograms)


@pytest.fixture(scope="module")
def sensitivity(calibration: Calibration, outlier: Collection, probe: Probe) -> dict[str, float]:
    return sensitivities(calibration.parts["bev"], outlier, Method("max"), probe, 1)


def test_an_output_that_is_no_number_is_no_small_error(calibration: Calibration, probe: Probe) -> None:
    broken = Probe(probe.inputs, [[np.full_like(value, np.nan) for value in frame] for frame in probe.outputs])
    model = calibration.parts["bev"].model
    assert probe.error(model, 1) < 1e-9 and broken.error(model, 1) == np.inf


def test_a_model_with_a_past_is_probed_with_its_past(tmp_path: Path) -> None:
    """The history of each probed frame, out of order, is that of a drive through the whole scene."""
    bundle = Bundle.load(write_random_bundle(tmp_path / "past.imkd", random_spec(past=2)))
    source = SynthSource(scenes=1, frames_per_scene=5, rig=golden_rig(bundle))
    names = [source.names[i] for i in (4, 1, 3)]
    part = Part(bundle.file("bev.onnx").read_bytes(), "bev")
    probe = Probe.of(bundle, part, source, names, 1)
    live = {}
    with Detector(bundle, source[names[0]].rig, threads=1) as detector:
        for sample in source:
            detector.infer_sample(sample)
            live[sample.name] = detector.tensors()["history"]
    for name, inputs in zip(names, probe.inputs, strict=True):
        assert inputs["history"].any()
        assert np.array_equal(inputs["history"].ravel(), live[name].ravel())


def test_the_layer_behind_the_outlier_is_the_most_sensitive(
    calibration: Calibration, sensitivity: dict[str, float]
) -> None:
    assert SENSITIVE in [node.name for node in calibration.parts["bev"].readers["relu_16"]]
    assert max(sensitivity, key=lambda name: sensitivity[name]) == SENSITIVE
    assert set(sensitivity) == {group.name for group in calibration.parts["bev"].groups() if not group.float_because}


def test_a_gate_that_holds_changes_nothing_and_one_that_cannot_leaves_no_layer(
    calibration: Calibration, outlier: Collection, probe: Probe, sensitivity: dict[str, float]
) -> None:
    part, method = calibration.parts["bev"], Method("max")
    assert mixed_precision(part, outlier, method, probe, sensitivity, gate=1e9, threads=1) == ()
    assert set(mixed_precision(part, outlier, method, probe, sensitivity, gate=-1, threads=1)) == set(sensitivity)


def test_the_gate_holds_with_few_layers_in_float(
    calibration: Calibration, outlier: Collection, probe: Probe, sensitivity: dict[str, float]
) -> None:
    part, method = calibration.parts["bev"], Method("max")
    gate = 0.5 * probe.error(quantize_part(part, outlier, method).model, 1)
    floats = mixed_precision(part, outlier, method, probe, sensitivity, gate, threads=1)
    assert SENSITIVE in floats and len(floats) < len(sensitivity) / 2
    assert probe.error(quantize_part(part, outlier, method, floats).model, 1) <= gate


def test_a_layer_that_is_slow_in_float_comes_last(
    calibration: Calibration, outlier: Collection, probe: Probe, sensitivity: dict[str, float]
) -> None:
    def latency(group: Group, int8: bool) -> float:
        return 1.0 if int8 else 2.0 + 1e12 * (group.name == SENSITIVE)

    part = calibration.parts["bev"]
    floats = mixed_precision(part, outlier, Method("max"), probe, sensitivity, gate=-1, latency=latency, threads=1)
    assert floats[-1] == SENSITIVE


def test_every_group_has_a_predicted_time_that_int8_does_not_lengthen(calibration: Calibration) -> None:
    for part in calibration.parts.values():
        time = predicted_latency(part)
        assert all(0 < time(group, True) <= time(group, False) for group in part.groups())


@pytest.mark.slow
def test_the_command_takes_a_gate(tmp_path: Path, collection: Path, synth: dict) -> None:
    options = QuantizeOptions(method="mse", frames=16, gate=0.01, collection=collection)
    result = quantize("tiny", "synth", tmp_path / "g.imkd", options, source_options=synth, threads=1)
    assert 0.3 < result["int8_share"] < 0.985
