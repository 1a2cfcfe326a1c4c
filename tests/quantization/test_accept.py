"""Which layers go back to float under a gate on the loss, in which order, and on which frames it is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from imkd_edge.bundle import Bundle
from imkd_edge.calibration.solvers import Method
from imkd_edge.cli import app
from imkd_edge.evaluation.compare import compare
from imkd_edge.options import CompareOptions, QuantizeOptions
from imkd_edge.quantization.accept import HeldOut, accept, predicted_latency
from imkd_edge.quantization.graph import Group, Part
from imkd_edge.quantization.ptq import QuantizedPart, SolvedPart, modelled_errors, solve_part
from imkd_edge.quantization.quantize import quantize
from imkd_edge.quantization.state import Calibration

SENSITIVE = "node_Conv_364"  # reads relu_16, which no other layer does


@pytest.fixture(scope="module")
def solved(calibration: Calibration) -> dict[str, SolvedPart]:
    """One tensor's range is far too narrow."""
    method = Method(equalise=False)
    parts = {name: solve_part(part, calibration.collection, method) for name, part in calibration.parts.items()}
    amax = {**parts["bev"].amax, "relu_16": parts["bev"].amax["relu_16"] / 50}
    return {**parts, "bev": replace(parts["bev"], amax=amax)}


def loss_of(calibration: Calibration, solved: Mapping[str, SolvedPart]) -> Any:
    """Stands for the measured fidelity: the sum of the modelled errors of the layers that are INT8."""
    errors = {name: modelled_errors(part, calibration.collection) for name, part in solved.items()}

    def measure(parts: Mapping[str, QuantizedPart]) -> dict[str, Any]:
        kept = [(name, g.name) for name, part in parts.items() for g in part.groups if not g.float_because]
        return {"loss": sum(errors[name][layer] for name, layer in kept)}

    return measure


def test_the_layer_behind_a_range_that_is_too_narrow_has_the_largest_error(
    calibration: Calibration, solved: dict[str, SolvedPart]
) -> None:
    assert SENSITIVE in [node.name for node in calibration.parts["bev"].readers["relu_16"]]
    errors = modelled_errors(solved["bev"], calibration.collection)
    assert max(errors, key=lambda name: errors[name]) == SENSITIVE
    assert set(errors) == {group.name for group in calibration.parts["bev"].groups() if not group.float_because}


def test_without_sensitivity_the_error_is_that_of_the_input(
    calibration: Calibration, solved: dict[str, SolvedPart]
) -> None:
    errors = modelled_errors(solved["bev"], replace(calibration.collection, layers={}))
    assert max(errors, key=lambda name: errors[name]) == SENSITIVE and 0 < errors[SENSITIVE] < 1


def test_a_gate_that_holds_changes_nothing_and_one_that_cannot_leaves_no_layer(
    calibration: Calibration, solved: dict[str, SolvedPart]
) -> None:
    measure = loss_of(calibration, solved)
    held = accept(calibration, solved, 1e9, measure)
    assert held.returned == [] and held.parts["bev"].groups == solved["bev"].groups
    nothing = accept(calibration, solved, -1, measure)
    assert all(group.float_because for part in nothing.parts.values() for group in part.groups)


def test_the_gate_holds_with_as_few_layers_as_their_order_allows(
    calibration: Calibration, solved: dict[str, SolvedPart]
) -> None:
    measure = loss_of(calibration, solved)
    gate = 0.5 * measure({name: part.quantized() for name, part in solved.items()})["loss"]
    found = accept(calibration, solved, gate, measure)
    assert found.returned[0].layer == SENSITIVE and found.fidelity["loss"] <= gate
    because = {g.name: g.float_because for g in found.parts["bev"].groups}[SENSITIVE]
    assert because.startswith("the gate, modelled error ")
    one_less = accept(calibration, solved, found.fidelity["loss"] * 0.999999, measure)
    assert len(one_less.returned) > len(found.returned)
    ratios = [item.error / item.microseconds for item in one_less.returned]
    assert ratios == sorted(ratios, reverse=True)


def test_a_layer_that_is_slow_in_float_comes_last(calibration: Calibration, solved: dict[str, SolvedPart]) -> None:
    def latency(part: Part) -> Any:
        return lambda group, int8: 1.0 if int8 else 2.0 + 1e12 * (group.name == SENSITIVE)

    order = accept(calibration, solved, -1, loss_of(calibration, solved), latency).returned
    assert order[-1].layer == SENSITIVE


def test_every_group_has_a_predicted_time_that_int8_does_not_lengthen(calibration: Calibration) -> None:
    for part in calibration.parts.values():
        time = predicted_latency(part)
        groups: list[Group] = part.groups()
        assert all(0 < time(group, True) <= time(group, False) for group in groups)


def test_held_out_frames_are_no_calibration_frames_and_the_float_model_loses_nothing_on_them(
    calibration: Calibration, solved: dict[str, SolvedPart]
) -> None:
    frames = calibration.frames
    assert frames.held_out and not set(frames.held_out) & set(frames.names)
    held_out = HeldOut(calibration, threads=1)
    floats = accept(calibration, solved, -1, lambda parts: {"loss": 0.0 if parts else 1.0}).parts
    assert held_out.fidelity({name: part.quantized() for name, part in floats.items()})["loss"] < 1e-6
    assert held_out.fidelity({name: part.quantized() for name, part in solved.items()})["loss"] > 1e-3


@pytest.mark.slow
def test_the_command_puts_layers_back_and_says_which(tmp_path: Path, collection: Path, synth: dict) -> None:
    options = QuantizeOptions(frames=16, gate=0.02, collection=collection, bits=6)
    result = quantize("tiny", "synth", tmp_path / "g.imkd", options, source_options=synth, threads=1)
    assert result["accepted"] and result["fidelity"]["loss"] <= 0.02 and result["returned"]
    card = Bundle.load(tmp_path / "g.imkd").manifest["provenance"]["quantization"]
    assert card["returned"] == result["returned"] and card["fidelity"] == result["fidelity"]
    for item in result["returned"]:
        assert "modelled error" in card["parts"][item["part"]]["precision"][item["layer"]]
    assert 0.3 < result["int8_share"] < 0.985


def test_compare_undoes_the_factors_tensor_by_tensor(tmp_path: Path, collection: Path, synth: dict) -> None:
    """Under a gate that no layer meets the equalised bundle is float: scaled channels are the reference's again."""
    out, options = tmp_path / "e.imkd", QuantizeOptions(frames=16, collection=collection, gate=0, no_correct=True)
    result = quantize("tiny", "synth", out, options, source_options=synth, threads=1)
    assert result["int8_share"] == 0 and result["fidelity"]["loss"] < 1e-6
    found = compare("tiny", out, "synth", CompareOptions(limit=2), source_options=synth, threads=1)
    card = Bundle.load(out).manifest["provenance"]["quantization"]["parts"]
    scaled = {(part, name) for part in card for group in card[part]["equalised"] for name in group["tensors"]}
    rows = {(row["part"], row["tensor"]): row["nmse"] for row in found["engines"]["onnxruntime"]["tensors"]}
    assert len(scaled & set(rows)) > 20 and max(rows.values()) < 1e-6


def test_compare_finds_the_loss_that_quantize_states(tmp_path: Path, collection: Path, synth: dict) -> None:
    options = QuantizeOptions(frames=16, collection=collection, gate=float("inf"), no_correct=True)
    result = quantize("tiny", "synth", tmp_path / "q.imkd", options, source_options=synth, threads=1)
    found = compare(
        "tiny", tmp_path / "q.imkd", "synth", source_options=synth, threads=1
    )  # both on all frames left; the file has 16-bit weights
    fidelity = found["engines"]["onnxruntime"]["fidelity"]
    assert fidelity["frames"] == 2 and fidelity["loss"] == pytest.approx(result["fidelity"]["loss"], rel=0.02)


def test_a_trained_bundle_above_the_gate_fails_by_exit_code(collection: Path, tmp_path: Path) -> None:
    source = ["--data", "synth", "--option", "scenes=2", "--option", "frames_per_scene=9", "--frames", "16"]
    rest = ["--collection", str(collection), "--refine", "--steps", "1", "--gate", "1e-9", "--threads", "1"]
    result = CliRunner().invoke(app, ["quantize", "tiny", *source, *rest, "--out", str(tmp_path / "t.imkd")])
    assert result.exit_code == 1 and "not accepted" in result.stdout
