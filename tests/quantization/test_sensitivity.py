"""Which layers go back to float, and in which order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imkd_edge.calibration.collect import Collection
from imkd_edge.calibration.solvers import Method
from imkd_edge.quantization.graph import Group
from imkd_edge.quantization.ptq import quantize_part
from imkd_edge.quantization.quantize import Calibrated, quantize
from imkd_edge.quantization.sensitivity import Probe, mixed_precision, predicted, sensitivities

VICTIM = "node_Conv_364"  # reads relu_16, which no other layer does


@pytest.fixture(scope="module")
def probe(seen: Calibrated) -> Probe:
    return Probe.of(seen.bundle, seen.parts["bev"], seen.source, seen.frames.names[:1], 1)


@pytest.fixture(scope="module")
def spoilt(seen: Calibrated) -> Collection:
    """Someone saw a value 100 times as large in front of one layer."""
    histograms = dict(seen.collection.histograms)
    histograms["bev/relu_16"] = replace(histograms["bev/relu_16"], largest=100 * histograms["bev/relu_16"].largest)
    return replace(seen.collection, histograms=histograms)


@pytest.fixture(scope="module")
def suffering(seen: Calibrated, spoilt: Collection, probe: Probe) -> dict[str, float]:
    return sensitivities(seen.parts["bev"], spoilt, Method("max"), probe, 1)


def test_an_output_that_is_no_number_is_no_small_error(seen: Calibrated, probe: Probe) -> None:
    broken = Probe(probe.inputs, [[np.full_like(value, np.nan) for value in frame] for frame in probe.outputs])
    assert probe.error(seen.parts["bev"].model, 1) < 1e-9 and broken.error(seen.parts["bev"].model, 1) == np.inf


def test_the_spoilt_layer_suffers_most(seen: Calibrated, suffering: dict[str, float]) -> None:
    assert VICTIM in [node.name for node in seen.parts["bev"].readers["relu_16"]]
    assert max(suffering, key=lambda name: suffering[name]) == VICTIM
    assert set(suffering) == {group.name for group in seen.parts["bev"].groups() if not group.float_because}


def test_a_gate_that_holds_changes_nothing_and_one_that_cannot_leaves_no_layer(
    seen: Calibrated, spoilt: Collection, probe: Probe, suffering: dict[str, float]
) -> None:
    part, method = seen.parts["bev"], Method("max")
    assert mixed_precision(part, spoilt, method, probe, suffering, gate=1e9, threads=1) == ()
    assert set(mixed_precision(part, spoilt, method, probe, suffering, gate=-1, threads=1)) == set(suffering)


def test_the_gate_holds_with_few_layers_in_float(
    seen: Calibrated, spoilt: Collection, probe: Probe, suffering: dict[str, float]
) -> None:
    part, method = seen.parts["bev"], Method("max")
    gate = 0.5 * probe.error(quantize_part(part, spoilt, method).model, 1)
    kept = mixed_precision(part, spoilt, method, probe, suffering, gate, threads=1)
    assert VICTIM in kept and len(kept) < len(suffering) / 2
    assert probe.error(quantize_part(part, spoilt, method, kept).model, 1) <= gate


def test_a_layer_that_is_dear_in_float_waits(
    seen: Calibrated, spoilt: Collection, probe: Probe, suffering: dict[str, float]
) -> None:
    def dear(group: Group, int8: bool) -> float:
        return 1.0 if int8 else 2.0 + 1e12 * (group.name == VICTIM)

    part = seen.parts["bev"]
    kept = mixed_precision(part, spoilt, Method("max"), probe, suffering, gate=-1, latency=dear, threads=1)
    assert kept[-1] == VICTIM


def test_every_group_has_a_predicted_time_that_int8_does_not_lengthen(seen: Calibrated) -> None:
    for part in seen.parts.values():
        time = predicted(part)
        assert all(0 < time(group, True) <= time(group, False) for group in part.groups())


@pytest.mark.slow
def test_the_command_takes_a_gate(tmp_path: Path, collection: Path, synth: dict) -> None:
    result = quantize(
        "tiny", "synth", tmp_path / "g.imkd", Method("mse"), options=synth, frames=16, gate=0.01, threads=1,
        collection=collection,
    )  # fmt: skip
    assert 0.3 < result["int8_share"] < 0.985
