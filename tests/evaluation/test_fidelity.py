"""Fidelity: 100 for equal outputs, falling with noise, and hand-made cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers import random_spec
from imkd_edge.evaluation.fidelity import Fidelity, Outputs, seen_by_radar, tolerances

SPEC = random_spec()
H, W = SPEC.grid.height(), SPEC.grid.width()
K = len(SPEC.head.classes)
LABEL = SPEC.head.classes[0].name
SILENT = -30.0  # logit of a cell without an object
NO_RADAR = np.zeros((1, 1, H, W))


def outputs(
    boxes: list[list[float]], scores: list[float], cells: dict[tuple[int, int, int], float] | None = None
) -> Outputs:
    """Boxes of the first class; cells: (class, row, column) -> logit."""
    heatmap = np.full((K, H, W), SILENT)
    for cell, logit in (cells or {}).items():
        heatmap[cell] = logit
    box = np.zeros((10 * SPEC.head.groups(), H, W))
    return Outputs(heatmap, box, (np.array(boxes, float).reshape(-1, 9), np.array(scores), [LABEL] * len(boxes)))


def car(x: float, y: float = 0.0) -> list[float]:
    return [x, y, 0, 4, 2, 1.5, 0, 0, 0]


def row(*pairs: tuple[Outputs, Outputs], radar: np.ndarray = NO_RADAR) -> dict[str, Any]:
    fidelity = Fidelity(SPEC)
    for pair in pairs:
        fidelity.add(*pair, radar)
    return fidelity.row()


def test_equal_outputs_agree_wholly() -> None:
    same = outputs([car(3), car(9)], [0.9, 0.05], {(0, 1, 1): 2.0})
    found = row(*[(same, same)] * 25)
    assert (found["loss"], found["fap"], found["frames"]) == (0, 100, 25) and found["agree"] == pytest.approx(100)


def test_the_divergence_of_one_cell() -> None:
    """p = 1/2 against 3/4: half of ln(1/2 / 3/4) plus half of ln(1/2 / 1/4), per half an object."""
    one, other = outputs([], [], {(0, 1, 1): 0.0}), outputs([], [], {(0, 1, 1): np.log(3)})
    expected = (0.5 * np.log(2 / 3) + 0.5 * np.log(2)) / 0.5
    found = row((one, other))
    assert found["loss"] == pytest.approx(expected, rel=1e-6)
    assert found["by"][LABEL]["loss"] == pytest.approx(expected, rel=1e-6)
    assert found["agree"] is None and found["fap"] is None


@pytest.mark.parametrize("channel", range(10))
def test_a_box_that_is_wrong_by_two_tolerances_costs_two(channel: int) -> None:
    one, other = (outputs([], [], {(0, 1, 1): 0.0}) for _ in range(2))
    other.box[channel, 1, 1] = 2 * tolerances(SPEC)[channel]
    assert row((one, other))["loss"] == pytest.approx(2**2 / 2, rel=1e-6)


def test_boxes_half_as_sure_or_beside_each_other() -> None:
    """One matches at IoU 2/6 of 4 m cars 2 m apart, one is missing, one is too many."""
    one, other = outputs([car(3), car(12)], [0.8, 0.4]), outputs([car(5), car(20)], [0.6, 0.2])
    assert row((one, other))["agree"] == pytest.approx(100 * (0.6 / 3) / (0.8 + 0.4 + 0.2))


def test_half_of_the_boxes_lost_is_half_of_fap() -> None:
    full, half = outputs([car(3), car(12)], [0.9, 0.8]), outputs([car(3)], [0.9])
    assert row(*[(full, half)] * 100)["fap"] == pytest.approx(50, abs=1.5)  # recall has 40 steps


def test_fidelity_falls_with_noise() -> None:
    rng = np.random.default_rng(0)
    cells = {(0, int(r), int(c)): 2.0 for r, c in zip(rng.integers(H, size=6), rng.integers(W, size=6))}
    pairs, losses, agreements, faps = [], [], [], []
    places = [[car(*xy) for xy in rng.uniform([0, -8], [16, 8], (3, 2))] for _ in range(20)]
    for noise in (0.0, 0.1, 0.3, 1.0):
        pairs.clear()
        for boxes in places:
            one, other = (outputs(boxes, [0.9, 0.8, 0.7], cells) for _ in range(2))
            other.heatmap[:] += noise * rng.normal(size=one.heatmap.shape)
            other.detections[0][:, :2] += noise * rng.normal(size=(3, 2))
            pairs.append((one, other))
        found = row(*pairs)
        losses.append(found["loss"]), agreements.append(found["agree"]), faps.append(found["fap"])
    assert losses == sorted(losses) and losses[0] == 0 < losses[1]
    assert agreements == sorted(agreements, reverse=True) and agreements[0] == pytest.approx(100)
    assert faps == sorted(faps, reverse=True) and faps[0] == 100 > faps[-1]


def test_the_parts_of_a_split_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(1)
    one, other = (
        outputs([car(3), car(12)], [0.8, 0.4], {(0, 1, 1): 0.0, (K - 1, H - 1, W - 1): 1.0}) for _ in range(2)
    )
    other.heatmap[:] += rng.normal(size=one.heatmap.shape)
    radar = np.zeros((1, 2, H, W))
    radar[0, 1, 1, 1] = 3.0
    found = row((one, other), radar=radar)
    for names in ([c.name for c in SPEC.head.classes], ["0-20m", "20-40m", "40m-"], ["seen", "unseen"]):
        parts = [found["by"][name] for name in names]
        total = sum(part["objects"] for part in parts)
        assert sum(part["loss"] * part["objects"] for part in parts if part["objects"]) / total == pytest.approx(
            found["loss"]
        )
    assert found["by"]["seen"]["objects"] == pytest.approx(0.5, abs=1e-6)


def test_radar_sees_two_cells_around_a_return_of_a_finer_grid() -> None:
    radar = np.zeros((1, 3, 2 * 12, 2 * 12))
    radar[0, 2, 13, 8] = -1.0  # of the cell 6, 4
    expected = np.zeros((12, 12), bool)
    expected[4:9, 2:7] = True
    assert np.array_equal(seen_by_radar(radar, 12, 12), expected)


def test_no_number_is_no_small_loss() -> None:
    one, other = (outputs([], [], {(0, 1, 1): 0.0}) for _ in range(2))
    other.box[0, 0, 0] = np.nan
    assert not row((one, other))["loss"] <= 1e9
