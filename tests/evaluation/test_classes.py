"""Metrics for any classes: nuScenes' devkit on its own classes, KITTI's program on many objects, and cases by hand."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from imkd_edge.errors import Error
from imkd_edge.evaluation import kitti, nuscenes
from imkd_edge.evaluation.classes import average_precision_40, evaluate, tally
from imkd_edge.evaluation.matching import Curve
from imkd_edge.evaluation.objects import RANGES
from imkd_edge.evaluation.protocol import check_protocol, protocol_of
from imkd_edge.options import EvalOptions
from imkd_edge.sources.base import Truth

SIZES = {"car": [4.5, 1.9, 1.6], "truck": [8.0, 2.5, 3.2], "pedestrian": [0.7, 0.6, 1.8]}
FORKLIFT, PALLET = [3.0, 1.4, 2.2], [1.2, 0.8, 0.2]


def truth_of(boxes, labels, occlusion=-1, radar=-1, lidar=-1) -> Truth:
    count = len(labels)
    columns = [np.full(count, value, np.int32) if np.isscalar(value) else np.array(value, np.int32) for value in
               (occlusion, radar, lidar)]  # fmt: skip
    return Truth(np.array(boxes, float).reshape(-1, 9), list(labels), columns[0].astype(np.int8), *columns[1:])


def box(x, y, size, yaw=0.0, velocity=(np.nan, np.nan)):
    return [x, y, size[2] / 2, *size, yaw, *velocity]


def detected(truth: Truth, boxes, scores, labels):
    return truth, np.array(boxes, float).reshape(-1, 9), np.array(scores, float), list(labels)


def random_frame(rng: np.random.Generator):
    """Objects of three classes within 30 m, detected with errors, twice, or not, and clutter; equal scores happen."""
    count = int(rng.integers(0, 10))
    labels = list(rng.choice(list(SIZES), count))
    velocities = rng.uniform(-8, 8, (count, 2))
    velocities[rng.random(count) < 0.2] = np.nan
    boxes = np.array([
        [*rng.uniform(-20, 20, 2), 1, *SIZES[label], rng.uniform(-3, 3), *velocity]
        for label, velocity in zip(labels, velocities)
    ]).reshape(-1, 9)  # fmt: skip
    repeats = rng.integers(0, 3, count)
    found = np.nan_to_num(np.repeat(boxes, repeats, axis=0))
    found += rng.normal(0, 1, (len(found), 9)) * [0.7, 0.7, 0.3, 0.2, 0.05, 0.1, 0.3, 1, 1]
    found[:, 3:6] = np.maximum(found[:, 3:6], 0.1)
    clutter = [[*rng.uniform(-20, 20, 2), 1, 4, 2, 2, 0, 0, 0] for _ in range(3)]
    names = [*np.repeat(labels, repeats), *rng.choice(list(SIZES), 3)]
    scores = np.r_[rng.uniform(0.2, 1, len(found)), rng.uniform(0.1, 0.7, 3)].round(2)
    truth = truth_of(boxes, labels, rng.integers(-1, 4, count), rng.integers(-1, 2, count), rng.integers(-1, 2, count))
    return detected(truth, np.r_[found, clutter], scores, names)


# ---- by centre distance ----
@pytest.mark.parametrize("seed", range(4))
def test_nuscenes_classes_have_the_devkits_numbers(seed):
    """Unseen objects are dropped and equal scores ordered as by the devkit."""
    rng = np.random.default_rng(seed)
    frames = [random_frame(rng) for _ in range(60)]
    expected = nuscenes.evaluate([f[0] for f in frames], [f[1:] for f in frames], list(SIZES))
    result = evaluate(frames, {name: name for name in SIZES})
    for name in SIZES:
        for key in ("AP", "ATE", "ASE", "AOE", "AVE"):
            assert result[f"{name}_{key}"] == pytest.approx(expected[f"{name}_{key}"], abs=1e-9), (name, key)
    for key in ("mAP", "mATE", "mASE", "mAOE", "mAVE"):
        assert result[key] == pytest.approx(expected[key], abs=1e-9)
    assert 0.1 < result["mAP"] < 0.9 and result["mAVE"] > 0.3
    dropped = sum(int((~nuscenes.counted(truth)).sum()) for truth, *_ in frames)
    assert dropped > 20 and sum(c.unseen for c in tally(frames).classes.values()) == dropped


def test_one_distance_of_four_is_the_devkits():
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.common.utils import center_distance
    from nuscenes.eval.detection.algo import accumulate, calc_ap
    from nuscenes.eval.detection.data_classes import DetectionBox

    rng = np.random.default_rng(9)
    frames = [random_frame(rng) for _ in range(60)]
    truths, detections = EvalBoxes(), EvalBoxes()
    for i, (truth, boxes, scores, labels) in enumerate(frames):

        def of(box, label, score, token=str(i)):
            return DetectionBox(token, tuple(box[:3]), tuple(box[3:6]), detection_name=label, detection_score=score)

        seen = nuscenes.counted(truth)
        truths.add_boxes(str(i), [of(b, n, -1.0) for b, n, s in zip(truth.boxes, truth.labels, seen) if s])
        detections.add_boxes(str(i), [of(b, n, float(s)) for b, n, s in zip(boxes, labels, scores)])
    result = evaluate(frames)
    for limit in (0.5, 1.0, 2.0, 4.0):
        expected = calc_ap(accumulate(truths, detections, "car", center_distance, limit), 0.1, 0.1)
        assert result[f"car_ap_{limit:g}m"] == pytest.approx(expected, abs=1e-9)


def test_forklifts_and_pallets_by_hand():
    """Ten of each, one a frame: forklifts 0.7 m off and turned by 0.2, pallets exact but only the first five."""
    frames = []
    for k in range(10):
        truth = truth_of([box(10, 0, FORKLIFT, 0.3, (2, 0)), box(5, 5, PALLET)], ["forklift", "pallet"])
        boxes = [box(10.7, 0, FORKLIFT, 0.5, (2, 1.5))] + ([box(5, 5, PALLET, 0, (0, 0))] if k < 5 else [])
        frames.append(detected(truth, boxes, [0.9 - 0.01 * k] * len(boxes), ["forklift", "pallet"][: len(boxes)]))
    result = evaluate(frames, {"forklift": "forklift", "pallet": "pallet"})
    assert [result[f"forklift_ap_{limit}m"] for limit in ("0.5", "1", "2", "4")] == pytest.approx([0, 1, 1, 1])
    # recall points 0.11 to 0.50 have precision 1, the others none
    assert result["pallet_ap_0.5m"] == pytest.approx(40 / 90) == result["pallet_AP"]
    assert result["mAP"] == pytest.approx((0.75 + 40 / 90) / 2)
    assert result["forklift_ATE"] == pytest.approx(0.7) and result["forklift_AOE"] == pytest.approx(0.2)
    assert result["forklift_ASE"] == pytest.approx(0) and result["forklift_AVE"] == pytest.approx(1.5)
    assert math.isnan(result["pallet_AVE"]) and result["mAVE"] == pytest.approx(1.5)  # pallets have no velocity
    # 3 m x 1.4 m: 0.7 m off and turned by 0.2 rad overlap by more than a quarter and less than 0.7
    assert result["forklift_bev_ap40_iou25"] == 100 and result["forklift_3d_ap40_iou70"] == 0
    assert result["pallet_bev_ap40_iou70"] == result["pallet_3d_ap40_iou70"] == 50
    assert result["forklift_objects"] == 10 == result["pallet_objects"]


def test_a_model_without_velocity_has_no_error_of_it():
    truth = truth_of([box(10, 0, FORKLIFT, 0, (1, 0))], ["forklift"])
    result = evaluate([detected(truth, [box(10, 0, FORKLIFT)], [0.9], ["forklift"])])
    assert math.isnan(result["forklift_AVE"]) and math.isnan(result["mAVE"]) and result["mATE"] == 0


def test_an_error_needs_a_recall_above_a_tenth():
    """Of 20 forklifts two are detected: recall 0.1. The devkit says 1; we say nothing."""
    frames = []
    for k in range(20):
        truth = truth_of([box(10, 0, FORKLIFT)], ["forklift"])
        boxes = [box(10.2, 0, FORKLIFT)] if k < 2 else []
        frames.append(detected(truth, boxes, [0.5] * len(boxes), ["forklift"] * len(boxes)))
    result = evaluate(frames)
    assert math.isnan(result["forklift_ATE"]) and result["forklift_ap_0.5m"] == 0


# ---- by overlap ----
def curve(hits, objects: int) -> Curve:
    count = len(hits)
    truth = np.where(np.array(hits, bool), 0, -1)
    return Curve(np.arange(count), truth, np.linspace(1, 0.5, count), objects)


def test_average_precision_at_40_recalls_by_hand():
    """Precision 1 up to recall 2/8; then 3/4 at 3/8 and 4/5 at 4/8: the best from there on is 4/5."""
    assert average_precision_40(curve([1, 1, 0, 1, 1], 8)) == pytest.approx(100 * (10 + 10 * 4 / 5) / 40)
    assert average_precision_40(curve([1] * 14, 14)) == 100  # few objects are no handicap
    assert average_precision_40(curve([0, 0], 3)) == 0 == average_precision_40(curve([], 3))
    assert math.isnan(average_precision_40(curve([0], 0)))


def test_of_many_objects_it_is_kittis_but_for_one_recall_point():
    """KITTI's program samples up to 41 scores of the same curve, the lowest always."""
    rng = np.random.default_rng(1)
    frames = []
    for _ in range(500):
        boxes = np.array([box(8 * i + 5, 4 * (i % 2), SIZES["car"], rng.uniform(-3, 3), (0, 0)) for i in range(8)])
        found = boxes[rng.random(8) < 0.8] + rng.normal(0, 0.3, 9) * [1, 1, 0.2, 0.2, 0.1, 0.1, 0.1, 0, 0]
        clutter = [box(rng.uniform(5, 60), 30, SIZES["car"], 0, (0, 0)) for _ in range(3)]
        scores = np.r_[rng.uniform(0.2, 1, len(found)), rng.uniform(0.1, 0.8, 3)]
        truth = truth_of(boxes, ["car"] * 8, 0)
        frames.append(detected(truth, np.r_[found, clutter], scores, ["car"] * len(scores)))
    result, reference = evaluate(frames, ranges=RANGES), kitti.evaluate(frames, ranges=RANGES)
    point = 100 / 40
    for kind in ("bev", "3d"):
        assert 20 < result[f"car_{kind}_ap40_iou50"] < 90
        assert result[f"car_{kind}_ap40_iou50"] == pytest.approx(reference[f"car_{kind}_ap40_hard"], abs=point)
        for name in ("0-20m", "20-40m", "40m-"):
            expected = reference[f"car_{kind}_ap40_moderate_{name}"]
            assert result[f"car_{kind}_ap40_iou50_{name}"] == pytest.approx(expected, abs=point)
    assert result["car_ap_2m"] == pytest.approx(reference["car_center_ap_2m"] / 100)


# ---- ranges ----
def test_a_range_has_its_objects_and_its_clutter():
    """A pallet at 10 m and one at 30 m, the near one detected; clutter at 50 m of a higher score."""
    truth = truth_of([box(10, 0, PALLET), box(30, 0, PALLET)], ["pallet", "pallet"])
    boxes = [box(50, 0, PALLET), box(10, 0, PALLET)]
    result = evaluate([detected(truth, boxes, [0.9, 0.8], ["pallet", "pallet"])], ranges=RANGES)
    assert [result[f"pallet_objects_{name}"] for name in ("0-20m", "20-40m", "40m-")] == [1, 1, 0]
    assert result["pallet_ap_1m_0-20m"] == 1 and result["pallet_bev_ap40_iou70_0-20m"] == 100
    assert result["pallet_ap_1m_20-40m"] == 0 and math.isnan(result["pallet_ap_1m_40m-"])
    assert 0 < result["pallet_ap_1m"] < 0.5 and result["pallet_3d_ap40_iou50"] == pytest.approx(25)
    assert not any("ATE" in key and key.endswith("m") for key in result)  # errors are of all ranges together


def test_at_the_border_of_a_range_the_upper_end_is_excluded():
    truth = truth_of([box(20, 0, PALLET), box(0, -40, PALLET)], ["pallet"] * 2)
    result = evaluate([detected(truth, [], [], [])], ranges=RANGES)
    assert [result[f"pallet_objects_{name}"] for name in ("0-20m", "20-40m", "40m-")] == [0, 1, 1]


# ---- classes that data and model do not share ----
def test_classes_that_are_not_shared_are_counted_and_not_scored():
    truth = truth_of([box(10, 0, FORKLIFT), box(20, 0, PALLET), box(25, 0, PALLET)], ["forklift", "pallet", "pallet"])
    frame = detected(truth, [box(10, 0, FORKLIFT), box(10, 9, FORKLIFT)], [0.9, 0.8], ["forklift", "car"])
    classes = {"forklift": "forklift", "car": "car"}
    counts, result = tally([frame], classes), evaluate([frame], classes)
    assert counts.unlearned == {"pallet": 2} and counts.unlabelled == {"car": 1}
    first, second = counts.remarks()
    assert "no class for pallet (2 objects)" in first and "car (1 detection)" in second
    assert result["mAP"] == 1 == result["forklift_AP"] and not any(key.startswith(("pallet", "car")) for key in result)


def test_labels_are_measured_under_the_models_name_of_their_class():
    truth = truth_of([box(10, 0, FORKLIFT), box(20, 0, FORKLIFT)], ["reach truck", "forklift"])
    frame = detected(truth, truth.boxes, [0.9, 0.8], ["forklift"] * 2)
    result = evaluate([frame], {"reach truck": "forklift", "forklift": "forklift"})
    assert result["forklift_objects"] == 2 and result["forklift_AP"] == 1


def test_a_space_in_a_class_is_an_underscore_in_its_metrics():
    truth = truth_of([box(10, 0, FORKLIFT)], ["towed object"])
    assert evaluate([detected(truth, truth.boxes, [1], ["towed object"])])["towed_object_ap_2m"] == 1


def test_without_any_object_nothing_has_a_value():
    result = evaluate(
        [detected(truth_of([], []), [box(10, 0, FORKLIFT)], [0.9], ["forklift"])], {"forklift": "forklift"}
    )
    assert list(result) == ["mAP", "mATE", "mASE", "mAOE", "mAVE"] and all(map(math.isnan, result.values()))


# ---- objects that no sensor can see ----
def test_an_object_without_a_return_does_not_count_and_its_detection_is_a_false_positive():
    truth = truth_of([box(10, 0, PALLET), box(20, 0, PALLET)], ["pallet"] * 2, radar=[0, 0], lidar=[3, 0])
    unseen_first = detected(truth, truth.boxes[::-1], [0.9, 0.8], ["pallet"] * 2)
    assert tally([unseen_first]).classes["pallet"].unseen == 1
    result = evaluate([unseen_first])
    assert result["pallet_objects"] == 1 and result["pallet_3d_ap40_iou70"] == 50


def test_without_lidar_an_object_counts_unless_it_is_hidden_and_has_no_radar_return():
    truth = truth_of([box(5 * k, 0, PALLET) for k in range(1, 5)], ["pallet"] * 4, [-1, 2, 3, 3], [0, -1, 0, 1])
    assert evaluate([detected(truth, [], [], [])])["pallet_objects"] == 3


# ---- the protocol of a source ----
def source(kind: str, *classes: str, truckscenes: bool = False):
    return SimpleNamespace(kind=kind, classes=classes, tables=SimpleNamespace(truckscenes=truckscenes))


@pytest.mark.parametrize(
    ("data", "model", "expected"),
    [
        (source("astyx"), ["car"], "kitti"),
        (source("nuscenes"), ["car", "bus"], "nuscenes"),
        (source("nuscenes"), ["car", "forklift"], "classes"),
        (source("nuscenes", truckscenes=True), ["car"], "classes"),
        (source("synth", "car", "truck"), None, "nuscenes"),
        (source("synth", "car", "pallet"), ["car"], "classes"),
        (source("folder", "car", "truck"), ["car"], "classes"),
        (source("kitti"), ["car"], "classes"),
        (source("own"), None, "classes"),
    ],
)
def test_a_data_sets_protocol_is_for_its_classes(data, model, expected):
    classes = None if model is None else {name: name for name in model}
    assert protocol_of(data, EvalOptions(), classes) == expected


def test_another_protocol_can_be_asked_for():
    folder = source("folder", "car", "truck")
    assert protocol_of(folder, EvalOptions(protocol="nuscenes")) == "nuscenes"
    assert protocol_of(source("astyx"), EvalOptions(protocol="classes")) == "classes"
    with pytest.raises(Error, match=r"E0104.*'forklift'.*--protocol classes"):
        protocol_of(folder, EvalOptions(protocol="nuscenes"), {"forklift": "forklift"})
    with pytest.raises(Error, match=r"E0104.*no protocol 'coco'.*choose one of auto, classes, kitti, nuscenes"):
        protocol_of(folder, EvalOptions(protocol="coco"))


def test_options_of_another_protocol_are_refused_before_a_frame_runs():
    assert check_protocol(source("folder"), EvalOptions(per_range=True)) == "classes"
    with pytest.raises(Error, match=r"E0104.*leave out --per-block"):
        check_protocol(source("folder"), EvalOptions(per_block=True))
    with pytest.raises(Error, match=r"E0104.*leave out --per-range"):
        check_protocol(source("nuscenes"), EvalOptions(per_range=True))


# ---- the guide ----
def test_the_guide_names_every_metric_and_bin():
    """Every name that a class has in the JSON stands in docs/guide/evaluation.md, whole or by its ending."""
    guide = (Path(__file__).resolve().parents[2] / "docs" / "guide" / "evaluation.md").read_text(encoding="utf-8")
    truth = truth_of([box(10, 0, FORKLIFT, 0, (1, 0))], ["forklift"])
    result = evaluate([detected(truth, truth.boxes, [0.9], ["forklift"])], ranges=RANGES)
    for name in result:
        ending = name.rsplit("_", 1)[-1]
        assert f"`{name}`" in guide or f"`_{ending}`" in guide or f"_{ending}`" in guide, name
