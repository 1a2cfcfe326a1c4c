"""The devkit's metrics on boxes whose errors are known by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers import without_package
from imkd_edge.errors import Error
from imkd_edge.evaluation.nuscenes import counted, evaluate, recall
from imkd_edge.sources.base import Truth
from imkd_edge.sources.nuscenes.labels import CATEGORIES, attribute_of

CLASSES = ("car", "truck", "bicycle", "pedestrian")


def truth_of(boxes, labels, occlusion=0, radar=1, lidar=-1) -> Truth:
    n = len(labels)
    full = [np.full(n, v, np.int32) if np.isscalar(v) else np.array(v, np.int32) for v in (occlusion, radar, lidar)]
    return Truth(np.array(boxes, float).reshape(-1, 9), list(labels), full[0].astype(np.int8), full[1], full[2])


def grid(samples=3):
    """Samples with a car, a truck, a bicycle and two walkers, each at least 10 m from the next."""
    truths = []
    for k in range(samples):
        boxes = [
            [10 + k, 0, 0.8, 4.5, 1.9, 1.6, 0.3, 5.0, 1.0],
            [-25, 5 + k, 1.6, 8.0, 2.5, 3.2, -2.0, 0.0, 0.0],
            [5, 20, 0.9, 1.8, 0.6, 1.8, 1.0, 3.0, 2.0],
            [-5, -20 - k, 0.9, 0.7, 0.6, 1.8, 3.0, 1.0, 0.5],
            [15, -20 - k, 0.9, 0.7, 0.6, 1.8, -3.0, 0.0, 1.2],
        ]
        truths.append(truth_of(boxes, ["car", "truck", "bicycle", "pedestrian", "pedestrian"]))
    return truths


def detections_of(truths, change=lambda box: box, scores=None):
    rng = np.random.default_rng(0)
    return [
        (
            np.array([change(b.copy()) for b in t.boxes]),
            rng.uniform(0.3, 0.9, len(t.labels)) if scores is None else scores,
            t.labels,
        )
        for t in truths
    ]


def moved(index, amount):
    def change(box):
        box[index] += amount
        return box

    return change


def test_perfect_detections_score_one():
    truths = grid()
    result = evaluate(truths, detections_of(truths), classes=CLASSES)
    assert result["mAP"] == pytest.approx(1) and result["NDS"] == pytest.approx(1)
    assert all(result[k] == pytest.approx(0, abs=1e-6) for k in ("mATE", "mASE", "mAOE", "mAVE", "mAAE"))
    assert all(result[f"{c}_AP"] == pytest.approx(1) for c in CLASSES)


def test_over_ten_classes_the_absent_ones_count_as_missed():
    truths = grid()
    result = evaluate(truths, detections_of(truths))
    assert result["mAP"] == pytest.approx(0.4) and result["bus_AP"] == 0
    # six absent classes have an error of 1, but cones have only two of the errors and barriers three
    assert result["mATE"] == pytest.approx(6 / 10)
    assert result["mAOE"] == pytest.approx(5 / 9)
    assert result["mAVE"] == pytest.approx(4 / 8)


@pytest.mark.parametrize(("shift", "expected"), [(0.3, 1.0), (0.7, 0.75), (1.5, 0.5), (3.0, 0.25)])
def test_a_shift_is_the_translation_error_and_costs_its_thresholds(shift, expected):
    truths = grid()
    result = evaluate(truths, detections_of(truths, moved(0, shift)), classes=CLASSES)
    assert result["mAP"] == pytest.approx(expected)  # thresholds 0.5, 1, 2, 4 m
    assert result["mATE"] == pytest.approx(shift if shift < 2 else 1.0)  # errors are taken at 2 m
    expected_nds = (5 * expected + (max(0, 1 - shift) + 4 if shift < 2 else 0)) / 10
    assert result["NDS"] == pytest.approx(expected_nds)


@pytest.mark.parametrize(
    ("change", "name", "value"),
    [
        (moved(6, 0.2), "mAOE", 0.2),
        (moved(6, np.pi), "mAOE", np.pi),
        (moved(6, 2 * np.pi + 0.1), "mAOE", 0.1),
        (moved(7, 1.5), "mAVE", 1.5),
        (lambda b: np.concatenate([b[:3], b[3:6] * 1.1, b[6:]]), "mASE", 1 - 1 / 1.1**3),
        (
            lambda b: np.concatenate([b[:7], b[7:] * 0]),
            "mAAE",
            (1 + 0 + 0 + 1) / 4,
        ),  # the car and the walkers count as standing
    ],
)
def test_each_error_is_what_was_done_to_the_boxes(change, name, value):
    truths = grid()
    result = evaluate(truths, detections_of(truths, change), classes=CLASSES)
    assert result[name] == pytest.approx(value, abs=1e-6) and result["mAP"] == pytest.approx(1)


def test_a_false_alarm_above_everything_costs_precision():
    """A false positive of score 1, then three true ones: precision 1/2, 2/3, 3/4 at recall 1/3, 2/3, 1."""
    truths = [truth_of([[10, 0, 0, 4, 2, 1.5, 0, 0, 0]], ["car"]) for _ in range(3)]
    detections = detections_of(truths, scores=np.array([0.5]))
    ghost = np.array([[-10.0, 0, 0, 4, 2, 1.5, 0, 0, 0]])
    detections[0] = (np.concatenate([detections[0][0], ghost]), np.array([0.5, 1.0]), ["car", "car"])
    recalls = np.linspace(0, 1, 101)
    precision = np.interp(recalls, [0, 1 / 3, 2 / 3, 1], [0, 1 / 2, 2 / 3, 3 / 4])
    expected = np.maximum(precision[11:] - 0.1, 0).mean() / 0.9
    assert evaluate(truths, detections, classes=["car"])["car_AP"] == pytest.approx(expected, abs=1e-6)


def test_what_is_beyond_its_class_range_does_not_count():
    far = truth_of([[49, 0, 0, 4, 2, 1.5, 0, 0, 0], [51, 5, 0, 4, 2, 1.5, 0, 0, 0]], ["car", "car"])
    only_near = [(far.boxes[:1], np.array([0.5]), ["car"])]
    assert evaluate([far], only_near, classes=["car"])["car_AP"] == pytest.approx(1)
    walker = truth_of([[0, 41, 0, 0.7, 0.6, 1.7, 0, 0, 0]], ["pedestrian"])
    # its range is 40 m: no object counts
    assert evaluate([walker], detections_of([walker]), classes=["pedestrian"])["pedestrian_AP"] == 0


def test_which_truths_count():
    boxes = [[10 + 5 * k, 0, 0, 4, 2, 1.5, 0, 0, 0] for k in range(6)]
    known = truth_of(
        boxes, ["car"] * 6, occlusion=[0, 0, 3, 3, 0, 3], radar=[1, 0, 2, 0, 0, 0], lidar=[0, 3, 0, 0, 0, 9]
    )
    assert counted(known).tolist() == [True, True, True, False, False, True]
    unknown = truth_of(boxes, ["car"] * 6, occlusion=[0, 0, 3, 3, -1, 2], radar=[1, 0, 2, 0, -1, 0])
    assert counted(unknown).tolist() == [True, True, True, False, True, True]
    detections = [(known.boxes[counted(known)], np.full(4, 0.5), ["car"] * 4)]
    assert evaluate([known], detections, classes=["car"])["car_AP"] == pytest.approx(1)


def test_cycles_in_a_rack_do_not_count_as_with_the_devkit():
    """Cycles and walkers all over two racks, through the devkit's own filter and through ours."""
    from nuscenes.eval.common.loaders import filter_eval_boxes
    from pyquaternion import Quaternion

    from imkd_edge.evaluation import nuscenes

    random, devkit = np.random.default_rng(0), nuscenes.load_devkit()
    racks = np.array([[12, 3, 0.5, 6, 1.5, 1.2, 0.7, np.nan, np.nan], [-8, -9, 0.2, 4, 2, 1, -2.5, 0, 0]])
    boxes = np.column_stack(
        [random.uniform([-14, -14, -0.5], [16, 8, 1.5], (3000, 3)), np.tile([1.8, 0.6, 1.8, 0, 0, 0], (3000, 1))]
    )
    labels = random.choice(["bicycle", "motorcycle", "pedestrian"], 3000)
    detections = [nuscenes._box(devkit, "0", box, label, 0.5) for box, label in zip(boxes, labels)]

    class Tables:
        def get(self, table: str, token):
            if table == "sample":
                return {"anns": [0, 1]}
            x, y, z, length, width, height, yaw = racks[token, :7]
            rotation = list(Quaternion(axis=[0, 0, 1], radians=yaw))
            box = {"translation": [x, y, z], "size": [width, length, height], "rotation": rotation}
            return {"category_name": "static_object.bicycle_rack", **box}

    boxes_of = devkit["EvalBoxes"]()
    boxes_of.add_boxes("0", detections)
    expected = filter_eval_boxes(Tables(), boxes_of, dict.fromkeys(labels, 100.0))["0"]
    ours = nuscenes._outside_racks(devkit, racks, detections)
    assert [id(box) for box in ours] == [id(box) for box in expected]
    assert 20 < len(detections) - len(ours) < 300
    assert sum(box.detection_name == "pedestrian" for box in ours) == (labels == "pedestrian").sum()


def test_a_cycle_in_a_rack_is_neither_missed_nor_a_false_alarm():
    bicycle = [1.8, 0.6, 1.8, 0, 0, 0]
    outside, inside = [5, 0, 0.9, *bicycle], [20, 0, 0.9, *bicycle]
    plain = truth_of([outside, inside], ["bicycle", "bicycle"])
    racked = replace(plain, racks=np.array([[20, 0.5, 0.7, 4, 2, 1.5, 0, 0, 0]]))
    missed = [(np.array([outside]), np.array([0.5]), ["bicycle"])]
    ghost = [(np.array([outside, [21, 0, 0.9, *bicycle]]), np.array([0.5, 0.9]), ["bicycle", "bicycle"])]
    for detections in (missed, ghost):
        assert evaluate([racked], detections, classes=["bicycle"])["bicycle_AP"] == pytest.approx(1)
        assert evaluate([plain], detections, classes=["bicycle"])["bicycle_AP"] < 0.9


def test_of_too_many_detections_the_best_five_hundred_count():
    truth = truth_of([[10, 0, 0, 4, 2, 1.5, 0, 0, 0]], ["car"])
    boxes = np.tile(truth.boxes, (600, 1))
    boxes[:, 0] = 30
    boxes[-1] = truth.boxes[0]
    for score, expected in ((0.9, 1.0), (0.0, 0.0)):
        scores = np.append(np.linspace(0.8, 0.1, 599), score)
        ap = evaluate([truth], [(boxes, scores, ["car"] * 600)], classes=["car"])["car_AP"]
        # false alarms at full recall cost its last bin of 90
        assert ap == pytest.approx(expected, abs=1 / 90 + 1e-6)


def test_no_detection_and_no_truth():
    nothing = (np.zeros((0, 9)), np.zeros(0), [])
    truths = grid(2)
    assert evaluate(truths, [nothing] * 2, classes=CLASSES)["NDS"] == 0
    assert evaluate([truth_of([], [])], [nothing], classes=["car"])["mAP"] == 0


def test_recall_of_what_can_be_seen():
    boxes = [[10, 0], [20, 0], [30, 0], [39, 0], [45, 0]]
    boxes = [[*p, 0, 4, 2, 1.5, 0, 0, 0] for p in boxes]
    truth = truth_of(boxes, ["car", "car", "truck", "car", "car"], occlusion=[0, 1, 0, 0, 0])
    hit = np.array([[10.5, 1, 0], [20, 0, 0], [30, 0, 0], [39, 2.5, 0], [45, 0, 0]])
    detections = [(np.concatenate([hit, np.zeros((5, 6))], 1), np.array([0.9, 0.8, 0.7, 0.6, 0.2]), ["car"] * 5)]
    assert recall([truth], detections) == pytest.approx(1 / 2)  # counted: 10 m (detected) and 39 m (2.5 m beside it)
    assert recall([truth], detections, match=3.0) == 1
    assert recall([truth], detections, visible_only=False) == pytest.approx(2 / 3)
    assert recall([truth], detections, max_distance=50) == pytest.approx(2 / 3)
    assert recall([truth], detections, max_distance=50, min_score=0.5) == pytest.approx(1 / 3)
    assert recall([truth], detections, label="truck") == 0
    assert np.isnan(recall([truth], detections, label="bus"))


def test_one_detection_finds_one_object_only():
    truth = truth_of([[10, 0, 0, 4, 2, 1.5, 0, 0, 0], [11.5, 0, 0, 4, 2, 1.5, 0, 0, 0]], ["car", "car"])
    one = [(truth.boxes[:1], np.array([0.5]), ["car"])]
    assert recall([truth], one) == 0.5


def test_attributes_of_every_class_are_ones_that_nuscenes_allows():
    from nuscenes.eval.detection.utils import detection_name_to_rel_attributes

    for label in CATEGORIES:
        for speed in (0.0, 3.0):
            allowed = detection_name_to_rel_attributes(label)
            assert attribute_of(label, speed) in (allowed or [""])
    assert attribute_of("car", float("nan")) == ""


def test_categories_are_the_devkits():
    from nuscenes.eval.detection.utils import category_to_detection_name

    assert all(category_to_detection_name(category) == label for label, category in CATEGORIES.items())


@pytest.mark.parametrize("where", ["classes", "detections", "length"])
def test_mistakes_are_refused(where):
    truths = grid(1)
    classes = ("car", "tram") if where == "classes" else CLASSES
    detections = detections_of(truths)
    if where == "detections":
        detections = [(detections[0][0], detections[0][1], ["tram"] * 5)]
    if where == "length":
        detections = []
    with pytest.raises(Error, match="E0104"):
        evaluate(truths, detections, classes=classes)


def test_without_the_devkit_the_error_says_how_to_get_it(monkeypatch):
    without_package(monkeypatch, "nuscenes")
    with pytest.raises(Error, match=r"E0701.*pip install.*nuscenes-devkit"):
        evaluate([], [])
