"""The golden drive through new engines: what float16 and INT8 may change passes, and what is broken fails."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from imkd_edge import Bundle
from imkd_edge.checks import built_engines
from imkd_edge.checks.built_engines import BOX, INPUTS, SCORE, Tally, compare
from imkd_edge.checks.selftest import golden_results
from imkd_edge.engines import OnnxRuntimeEngine
from imkd_edge.engines.float16 import half_bytes

THRESHOLD = 0.3


class Half(OnnxRuntimeEngine):
    """The very graph that TensorRT gets, on the CPU."""

    def load_content(self, onnx_path: str, onnx: bytes) -> None:
        super().load_content(onnx_path, half_bytes(onnx))


class Broken(Half):
    """One that writes the right numbers into the wrong places: channels last where channels come first."""

    def run(self) -> None:
        super().run()
        if (heatmap := self._arrays.get("heatmap")) is not None:
            shape = heatmap.shape
            heatmap[:] = np.moveaxis(heatmap, 1, -1).reshape(shape)


@pytest.mark.parametrize("name", ["tiny", "tiny-t4", "astyx-lite", "astyx-taught"])
def test_float16_engines_of_shipped_bundles_pass_and_mixed_up_channels_fail(name: str) -> None:
    assert compare(Bundle.load(name), engine=lambda _: Half(1), device="cpu", threads=1).startswith("passed: ")
    said = compare(Bundle.load(name), engine=lambda _: Broken(1), device="cpu", threads=1)
    assert said.startswith("failed: the heat map's error is ")


def objects(*centers: float, score: float = 0.9, label: int = 0) -> SimpleNamespace:
    """Boxes along x, of falling scores."""
    boxes = np.array([[x, 0, 0, 4, 2, 1.5, np.pi, 3, 0] for x in centers], np.float32).reshape(-1, 9)
    scores = np.float32([score - 0.0001 * i for i in range(len(centers))])
    return SimpleNamespace(boxes=boxes, scores=scores, labels=np.full(len(centers), label, np.int32))


def tally(expected: SimpleNamespace, result: SimpleNamespace) -> Tally:
    total = Tally()
    total.add_boxes(vars(expected), result, THRESHOLD)
    return total


def test_boxes_that_change_places_are_pairs() -> None:
    swapped = objects(20, 10)
    total = tally(objects(10, 20), swapped)
    assert (total.expected, total.lost, total.new, total.box) == (2, 0, 0, 0.0)
    assert total.score == pytest.approx(0.0001, rel=1e-2) and total.verdict().startswith("passed: 2 of 2 boxes")


def test_yaw_of_minus_pi_is_pi_and_velocities_that_were_not_trained_are_not_compared() -> None:
    turned = objects(10)
    turned.boxes[:, 6] = -np.pi
    turned.boxes[:, 7:] = np.nan
    total = tally(objects(10), turned)
    assert total.lost == total.new == 0 and total.box < 1e-6


@pytest.mark.parametrize("other", [objects(10 + 1.1 * BOX), objects(10, label=1), objects(10, score=0.89 - SCORE)])
def test_a_box_elsewhere_or_of_another_class_or_score_is_no_counterpart(other: SimpleNamespace) -> None:
    total = tally(objects(10), other)
    assert (total.lost, total.new) == (1, 1)


def test_each_box_has_one_counterpart_the_nearest() -> None:
    total = tally(objects(10, 10.1), objects(10.1))
    assert (total.lost, total.new) == (1, 0) and total.box < 1e-6


def test_a_box_near_the_threshold_needs_no_counterpart() -> None:
    near, clear = objects(10, score=THRESHOLD + 0.9 * SCORE), objects(20, score=THRESHOLD + 1.1 * SCORE)
    nothing = objects()
    for box, alone in ((near, 0), (clear, 1)):
        assert tally(box, nothing).lost == alone and tally(nothing, box).new == alone


@pytest.mark.parametrize(("lost", "passes"), [(0, True), (5, True), (6, False)])
def test_five_in_a_hundred_may_lack_a_counterpart(lost: int, passes: bool) -> None:
    centers = np.arange(100.0)
    total = tally(objects(*centers), objects(*centers[lost:], *(centers[:lost] + 500)))
    # Scores fall by 0.01 over the list, less than SCORE.
    assert (total.lost, total.new) == (lost, lost)
    assert total.verdict().startswith("passed" if passes else f"failed: {100 - lost} of 100 boxes")


def test_a_heat_map_that_is_not_finite_fails_and_a_like_one_passes() -> None:
    reference = np.float32([-4, 2])
    total, like = Tally(), Tally()
    total.heatmap.add(reference, np.float32([-4, np.nan]))
    assert total.verdict().startswith("failed: the heat map's error is inf")
    like.heatmap.add(reference, np.float32([-4.2, 2]))  # 0.04 of 20
    assert like.verdict().startswith("passed") and like.heatmap.nmse == pytest.approx(0.002, rel=1e-4)


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_of_the_networks_that_differ_fail(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def changed(*arguments: Any, **options: Any) -> Iterator[Any]:
        for frame, result, detector in golden_results(*arguments, **options):
            frame.arrays[f"tensor_{name}"] = frame.arrays[f"tensor_{name}"] + np.float32(0.01)
            yield frame, result, detector

    monkeypatch.setattr(built_engines, "golden_results", changed)
    assert compare(Bundle.load("tiny"), device="cpu", threads=1).startswith(f"failed: {name} differs by 0.01")
