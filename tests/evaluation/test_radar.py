"""Average precision by what radar saw of an object."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imkd_edge.evaluation import kitti, radar
from imkd_edge.evaluation.run import evaluate_bundle
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
    turned = boxes.copy()
    turned[:, 6] = np.pi / 2
    assert radar.strongest(points, turned).tolist() == [-np.inf, 12.0, 50.0]
    assert radar.strongest(points[:0], boxes).tolist() == [-np.inf] * 3 and radar.strongest(
        points, boxes[:0]
    ).shape == (0,)


def test_every_object_is_in_one_third_or_has_no_returns() -> None:
    truths = [truth_at(10, 20, 30, 40), truth_at(10, 20, 30)]
    clouds = [
        np.array([[10, 0, 0, 1.0], [20, 0, 0, 2.0], [30, 0, 0, 3.0]]),
        np.array([[10, 0, 0, 4.0], [20, 0, 0, 5.0], [30, 0, 0, 6.0]]),
    ]
    parts = radar.parts(clouds, truths)
    member = {name: [of(i, t.boxes).tolist() for i, t in enumerate(truths)] for name, of in parts.items()}
    assert member["no_radar"] == [[False, False, False, True], [False] * 3]
    assert member["radar"] == [[True, True, True, False], [True] * 3]
    assert member["radar_weak"] == [[True, True, False, False], [False] * 3]  # 1, 2 of 1..6
    assert member["radar_middle"] == [[False, False, True, False], [True, False, False]]
    assert member["radar_strong"] == [[False] * 4, [False, True, True]]


def test_a_detector_that_sees_only_radar_finds_what_has_returns_and_pays_for_clutter_there_alone() -> None:
    """100 frames, a car with and one without returns: the first is always found, the second never, and clutter has no returns."""
    truth, cloud = truth_at(10, 40), np.array([[10, 0, 0, 20.0]])
    boxes = np.array([[10, 0, 0, *CAR], [60, 0, 0, *CAR]])
    items = [(truth, boxes, np.array([0.5 + 0.004 * i, 0.95]), ["car", "car"]) for i in range(100)]
    result = kitti.evaluate(items, parts=radar.parts([cloud] * 100, [truth] * 100))
    assert result["car_bev_ap40_moderate_radar"] == 100 and result["car_bev_ap40_moderate_no_radar"] == 0
    assert (
        result["car_objects_radar"] == result["car_objects_no_radar"] == 100 and result["car_objects_moderate"] == 200
    )
    assert result["car_bev_ap40_moderate"] < 30  # clutter counts there
    assert result["car_bev_ap40_moderate"] == kitti.evaluate(items)["car_bev_ap40_moderate"]


def test_without_any_return_every_part_but_the_first_is_empty() -> None:
    truth = truth_at(10)
    result = kitti.evaluate([(truth, truth.boxes, np.ones(1), ["car"])], parts=radar.parts([np.zeros((0, 4))], [truth]))
    assert result["car_objects_no_radar"] == 1 and result["car_objects_radar_strong"] == 0
    assert np.isnan(result["car_bev_ap40_moderate_radar"])


def test_on_real_frames_the_parts_are_all_there_is(shared_data: Path) -> None:
    """Objects with returns are those that the source itself counts returns in, and those within the margin."""
    source, frames = str(shared_data / "astyx"), 6
    result = evaluate_bundle("astyx-lite", source, limit=frames, per_radar=True, resamples=3, threads=1)
    metrics = result["metrics"]
    assert metrics["car_objects_radar"] + metrics["car_objects_no_radar"] == metrics["car_objects_moderate"] > 10
    assert sum(metrics[f"car_objects_{name}"] for name in radar.TERCILES) == metrics["car_objects_radar"]
    chosen = select(source, split="val")
    truths = [chosen.source[name].truth for name in chosen.names[:frames]]
    inside = sum(
        int(((t.radar_points > 0) & (np.array(t.labels) == "car") & (t.occlusion < 2)).sum()) for t in truths if t
    )
    assert 0 < inside <= metrics["car_objects_radar"]
    assert [len(values) for values in result["bootstrap"].values()] == [3, 3]


def test_parts_belong_to_kittis_protocol(random_bundle: Path) -> None:
    with pytest.raises(Exception, match="KITTI") as error:
        evaluate_bundle(
            str(random_bundle),
            "synth",
            options={"scenes": 1, "frames_per_scene": 2},
            limit=1,
            split="all",
            per_radar=True,
        )
    assert error.value.code == "E0104"  # type: ignore[attr-defined]
