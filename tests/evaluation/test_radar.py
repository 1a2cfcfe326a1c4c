"""Average precision by the radar returns of an object."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imkd_edge.evaluation import kitti, radar
from imkd_edge.evaluation.run import evaluate_bundle
from imkd_edge.options import EvalOptions, RunOptions
from imkd_edge.sources.base import Truth
from imkd_edge.sources.select import select

CAR = [4.0, 2.0, 1.5, 0.0, 0.0, 0.0]  # l, w, h, yaw, vx, vy


def truth_at(*x: float) -> Truth:
    unknown = np.full(len(x), -1, np.int32)
    return Truth(np.array([[v, 0, 0, *CAR] for v in x]), ["car"] * len(x), np.zeros(len(x), np.int8), unknown, unknown)


def test_the_strongest_return_in_a_box_counts_up_to_half_a_metre_beside_it() -> None:
    boxes = truth_at(10, 20, 30).boxes
    points = np.array(
        [[12.4, 0, 9, 40.0], [12.6, 0, 0, 90.0], [20, 1.4, 0, 10.0], [20, 0, 0, 12.0], [30, 1.6, 0, 50.0]]
    )
    assert radar.strongest(points, boxes).tolist() == [40.0, 12.0, -np.inf]
    across = boxes.copy()
    across[:, 6] = np.pi / 2
    assert radar.strongest(points, across).tolist() == [-np.inf, 12.0, 50.0]
    assert radar.strongest(points[:0], boxes).tolist() == [-np.inf] * 3
    assert radar.strongest(points, boxes[:0]).shape == (0,)


def test_every_object_is_in_one_third_or_has_no_returns() -> None:
    truths = [truth_at(10, 20, 30, 40), truth_at(10, 20, 30)]
    clouds = [
        np.array([[10, 0, 0, 1.0], [20, 0, 0, 2.0], [30, 0, 0, 3.0]]),
        np.array([[10, 0, 0, 4.0], [20, 0, 0, 5.0], [30, 0, 0, 6.0]]),
    ]
    groups = radar.groups(clouds, truths)
    member = {name: [mask(i, t.boxes).tolist() for i, t in enumerate(truths)] for name, mask in groups.items()}
    assert member["no_radar"] == [[False, False, False, True], [False] * 3]
    assert member["radar"] == [[True, True, True, False], [True] * 3]
    assert member["radar_weak"] == [[True, True, False, False], [False] * 3]  # 1, 2 of 1..6
    assert member["radar_middle"] == [[False, False, True, False], [True, False, False]]
    assert member["radar_strong"] == [[False] * 4, [False, True, True]]


def test_clutter_without_returns_lowers_no_precision_of_the_objects_with_returns() -> None:
    """100 frames with two cars: the one with returns is always detected, the one without never; clutter has none."""
    truth, cloud = truth_at(10, 40), np.array([[10, 0, 0, 20.0]])
    boxes = np.array([[10, 0, 0, *CAR], [60, 0, 0, *CAR]])
    items = [(truth, boxes, np.array([0.5 + 0.004 * i, 0.95]), ["car", "car"]) for i in range(100)]
    result = kitti.evaluate(items, groups=radar.groups([cloud] * 100, [truth] * 100))
    assert result["car_bev_ap40_moderate_radar"] == 100 and result["car_bev_ap40_moderate_no_radar"] == 0
    assert result["car_objects_radar"] == result["car_objects_no_radar"] == 100
    assert result["car_objects_moderate"] == 200
    assert result["car_bev_ap40_moderate"] < 30  # clutter counts there
    assert result["car_bev_ap40_moderate"] == kitti.evaluate(items)["car_bev_ap40_moderate"]


def test_without_any_return_every_group_but_the_first_is_empty() -> None:
    truth = truth_at(10)
    result = kitti.evaluate(
        [(truth, truth.boxes, np.ones(1), ["car"])], groups=radar.groups([np.zeros((0, 4))], [truth])
    )
    assert result["car_objects_no_radar"] == 1 and result["car_objects_radar_strong"] == 0
    assert np.isnan(result["car_bev_ap40_moderate_radar"])


def test_on_real_frames_the_groups_hold_every_object(shared_data: Path) -> None:
    """Objects with returns are those in which the source counts returns, and some with returns in the margin."""
    source, frames = str(shared_data / "astyx"), 6
    result = evaluate_bundle(
        "astyx-lite", source, EvalOptions(limit=frames, per_radar=True, resamples=3), run=RunOptions(threads=1)
    )
    metrics = result["metrics"]
    assert metrics["car_objects_radar"] + metrics["car_objects_no_radar"] == metrics["car_objects_moderate"] > 10
    assert sum(metrics[f"car_objects_{name}"] for name in radar.TERCILES) == metrics["car_objects_radar"]
    selection = select(source, split="val", read=("labels",))
    truths = [selection.source[name].truth for name in selection.names[:frames]]
    inside = sum(
        int(((t.radar_points > 0) & (np.array(t.labels) == "car") & (t.occlusion < 2)).sum()) for t in truths if t
    )
    assert 0 < inside <= metrics["car_objects_radar"]
    assert [len(values) for values in result["bootstrap"].values()] == [3, 3]


def test_groups_belong_to_kittis_protocol(random_bundle: Path) -> None:
    with pytest.raises(Exception, match="KITTI") as error:
        evaluate_bundle(
            str(random_bundle),
            "synth",
            EvalOptions(limit=1, split="all", per_radar=True),
            source_options={"scenes": 1, "frames_per_scene": 2},
        )
    assert error.value.code == "E0104"  # type: ignore[attr-defined]
