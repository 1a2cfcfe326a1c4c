"""Average precision: curves by hand, a plain-loop KITTI reference, and nuScenes' devkit for centre distance."""

from __future__ import annotations

import math

import numpy as np
import pytest

from imkd_edge.evaluation import kitti
from imkd_edge.evaluation.iou import box_iou
from imkd_edge.evaluation.objects import RANGES
from imkd_edge.rig import CameraCalibration, SensorRig
from imkd_edge.sources.astyx import AstyxSource
from imkd_edge.sources.base import Truth

CAR = [4.0, 1.8, 1.5, 0.0, 0.0, 0.0]  # l, w, h, yaw, vx, vy


def truth_of(boxes, labels=None, occlusion=None) -> Truth:
    count = len(boxes)
    unknown = np.full(count, -1, np.int32)
    occlusion = np.zeros(count, np.int8) if occlusion is None else np.array(occlusion, np.int8)
    return Truth(np.array(boxes, float).reshape(-1, 9), labels or ["car"] * count, occlusion, unknown, unknown)


def row_of(count: int, y: float = 0.0) -> np.ndarray:
    """Cars 10 m apart along x, none overlapping another."""
    return np.array([[10.0 * (i + 1), y, 0.0, *CAR] for i in range(count)])


def detected(truth: Truth, boxes, scores, labels=None):
    boxes = np.array(boxes, float).reshape(-1, 9)
    return truth, boxes, np.array(scores, float), labels or ["car"] * len(boxes)


def random_scene(rng: np.random.Generator):
    """Cars and a truck of any occlusion, some detected with errors, some twice, and clutter."""
    count = int(rng.integers(0, 9))
    boxes = np.c_[
        rng.uniform(2, 70, count), rng.uniform(-20, 20, count), rng.normal(0, 0.3, count), np.tile(CAR, (count, 1))
    ]
    boxes[:, 6] = rng.uniform(-3, 3, count)
    labels = ["truck" if rng.random() < 0.15 else "car" for _ in range(count)]
    detections = np.repeat(boxes, rng.integers(0, 3, count), axis=0)
    detections[:, :7] += rng.normal(0, 0.25, (len(detections), 7)) * [1, 1, 1, 1, 0.3, 0.3, 0.4]
    clutter = np.c_[rng.uniform(2, 70, 4), rng.uniform(-20, 20, 4), np.zeros(4), np.tile(CAR, (4, 1))]
    scores = np.r_[rng.uniform(0.2, 1, len(detections)), rng.uniform(0, 0.7, 4)].round(2)  # ties happen
    return detected(truth_of(boxes, labels, rng.integers(0, 4, count)), np.r_[detections, clutter], scores)


# ---- AP40 by hand ----
def test_a_perfect_detector_reaches_100():
    truth = truth_of(row_of(100))
    result = kitti.evaluate([detected(truth, truth.boxes, np.linspace(0.1, 1, 100))])
    for kind in ("bev", "3d"):
        assert [result[f"car_{kind}_ap40_{level}"] for level in ("easy", "moderate", "hard")] == [100] * 3
    assert result["car_objects_moderate"] == 100 and result["car_mae_x"] == 0 and result["car_turned"] == 0


def test_finding_the_best_half_gives_50():
    truth = truth_of(row_of(400))
    result = kitti.evaluate([detected(truth, truth.boxes[:200], np.linspace(1, 0.5, 200))])
    assert result["car_bev_ap40_moderate"] == pytest.approx(50)  # precision 1 up to recall 20/40, 0 beyond


def test_precision_is_that_at_equal_or_higher_recall():
    """400 cars: 200 detected, then 200 clutter, then the other 200.

    Precision is 1 up to recall 1/2, then at most 400/600.
    """
    truth = truth_of(row_of(400))
    boxes = np.r_[truth.boxes[:200], row_of(200, y=50.0), truth.boxes[200:]]
    result = kitti.evaluate([detected(truth, boxes, np.linspace(1, 0.1, 600))])
    # the 41 thresholds stand at recall 0, 1/40 ... 1; the last stands at 1, where precision is 400/600
    assert result["car_3d_ap40_moderate"] == pytest.approx(100 * (20 + 20 * 400 / 600) / 40, abs=100 / 40 / 200)


def test_clutter_below_every_find_costs_nothing_and_above_costs_all_over():
    truth, clutter = truth_of(row_of(100)), row_of(100, y=50.0)
    boxes, half = np.r_[truth.boxes, clutter], np.linspace(0.6, 1, 100)
    below = kitti.evaluate([detected(truth, boxes, np.r_[half, half - 0.5])])
    above = kitti.evaluate([detected(truth, boxes, np.r_[half - 0.5, half])])
    assert below["car_bev_ap40_hard"] == 100
    assert above["car_bev_ap40_hard"] == pytest.approx(50)  # precision only rises: 100 of 200 at full recall


def test_no_detection_gives_0_and_no_object_gives_nan():
    truth = truth_of(row_of(3))
    nothing = kitti.evaluate([detected(truth, [], [])])
    assert nothing["car_bev_ap40_moderate"] == 0 == nothing["car_center_ap_2m"]
    empty = kitti.evaluate([detected(truth_of([]), truth.boxes, [1, 1, 1])], labels=("car", "towed object"))
    assert math.isnan(empty["car_3d_ap40_easy"]) and math.isnan(empty["car_center_ap_1m"])
    assert math.isnan(empty["towed_object_bev_ap40_easy"]) and empty["car_objects_hard"] == 0


def test_a_second_box_on_a_car_is_a_false_positive():
    truth = truth_of(row_of(100))
    twice = kitti.evaluate([detected(truth, np.r_[truth.boxes, truth.boxes], [0.9] * 100 + [0.8] * 100)])
    same = kitti.evaluate([detected(truth, np.r_[truth.boxes, truth.boxes], [0.9] * 200)])
    assert twice["car_bev_ap40_easy"] == 100  # the doubles rank behind all true positives
    assert same["car_bev_ap40_easy"] == pytest.approx(50)


def test_overlap_must_exceed_the_threshold():
    """Shifted by d along its 4 m, a car overlaps (4 - d) / (4 + d): 0.6 at 1 m, exactly 0.5 at 4/3 m."""
    truth = truth_of(row_of(100))
    for shift, expected in ((1.0, 100), (1.34, 0)):
        moved = truth.boxes + np.eye(9)[0] * shift
        result = kitti.evaluate([detected(truth, moved, np.ones(100))])
        assert result["car_bev_ap40_easy"] == expected == result["car_3d_ap40_easy"]
    stricter = kitti.evaluate([detected(truth, truth.boxes + np.eye(9)[0], np.ones(100))], min_overlap=0.7)
    assert stricter["car_bev_ap40_easy"] == 0
    lifted = kitti.evaluate([detected(truth, truth.boxes + np.eye(9)[2], np.ones(100))])  # 0.5 of 1.5 m in common
    assert (lifted["car_bev_ap40_easy"], lifted["car_3d_ap40_easy"]) == (100, 0)


# ---- what is ignored ----
def test_difficulty_is_by_occlusion_and_harder_objects_do_neither_good_nor_harm():
    boxes = row_of(300)
    truth = truth_of(boxes, occlusion=[0] * 100 + [1] * 100 + [2] * 50 + [3] * 50)
    everything = kitti.evaluate([detected(truth, boxes, np.ones(300))])
    easy_only = kitti.evaluate([detected(truth, boxes[:100], np.ones(100))])
    assert [everything[f"car_objects_{level}"] for level in ("easy", "moderate", "hard")] == [100, 200, 250]
    assert [everything[f"car_bev_ap40_{level}"] for level in ("easy", "moderate", "hard")] == [100] * 3
    assert easy_only["car_bev_ap40_easy"] == 100 and easy_only["car_bev_ap40_moderate"] == pytest.approx(50)
    assert easy_only["car_bev_ap40_hard"] == pytest.approx(40)


def test_unknown_occlusion_counts_as_visible():
    truth = truth_of(row_of(100), occlusion=[-1] * 100)
    assert kitti.evaluate([detected(truth, truth.boxes, np.ones(100))])["car_objects_easy"] == 100


def test_other_classes_are_false_positives_unless_ignored():
    cars, trucks = row_of(100), row_of(100, y=50.0)
    truth = truth_of(np.r_[cars, trucks], ["car"] * 100 + ["truck"] * 100)
    items = [detected(truth, np.r_[cars, trucks], np.ones(200))]  # trucks detected as cars
    assert kitti.evaluate(items)["car_bev_ap40_easy"] == pytest.approx(50)
    assert kitti.evaluate(items, ignore_labels=("truck",))["car_bev_ap40_easy"] == 100
    labelled = [detected(truth, np.r_[cars, trucks], np.ones(200), ["car"] * 100 + ["truck"] * 100)]
    both = kitti.evaluate(labelled, labels=("car", "truck"))
    assert both["car_bev_ap40_easy"] == both["truck_bev_ap40_easy"] == 100


def test_ranges_count_only_what_lies_in_them():
    near, far = row_of(1), row_of(1) + [50, 0, 0, 0, 0, 0, 0, 0, 0]  # 10 and 60 m
    frames = [detected(truth_of(np.r_[near, far]), np.r_[near, far + [0, 9, 0, 0, 0, 0, 0, 0, 0]], [0.9, 0.9])] * 100
    result = kitti.evaluate(frames, ranges=((0, 20), (40, np.inf)))
    assert result["car_bev_ap40_moderate_0-20m"] == 100 and result["car_bev_ap40_moderate_40m-"] == 0
    assert result["car_bev_ap40_moderate"] == pytest.approx(25)  # half detected, at precision one half


def test_a_detection_just_outside_a_range_matches_an_object_just_inside():
    inside = np.array([[19.9, 0, 0, *CAR]])
    frames = [detected(truth_of(inside), inside + np.eye(9)[0] * 0.2, [0.9])] * 100
    result = kitti.evaluate(frames, ranges=((0, 20), (20, 40)))
    assert result["car_bev_ap40_moderate_0-20m"] == 100 and math.isnan(result["car_bev_ap40_moderate_20-40m"])


def test_what_no_camera_sees_can_be_left_out():
    T = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], float)  # looking along x
    K = np.array([[100, 0, 99.5], [0, 100, 49.5], [0, 0, 1]], float)
    rig = SensorRig(cameras=[CameraCalibration(name="a", width=200, height=100, K=K, T_ego_camera=T)], radars=[])
    centres = np.array([[10, 0, 0], [10, 9.9, 0], [10, 10.2, 0], [10, 0, 4.9], [10, 0, 5.2], [-10, 0, 0]])
    boxes = np.c_[centres, np.tile(CAR, (6, 1))]
    assert kitti.in_image(rig, boxes).tolist() == [True, True, False, True, False, False]
    inside, hidden = boxes[:1], boxes[5:]
    beside = hidden + [0, 9, 0, 0, 0, 0, 0, 0, 0]
    frames = [detected(truth_of(np.r_[inside, hidden]), np.r_[inside, beside], [0.8, 0.9])] * 100
    assert kitti.evaluate(frames)["car_bev_ap40_easy"] == pytest.approx(25)
    visible = kitti.evaluate(frames, visible=lambda index, boxes: kitti.in_image(rig, boxes))
    assert visible["car_bev_ap40_easy"] == 100 and visible["car_objects_easy"] == 100


def test_runs_of_frames_are_reported_apart():
    names = [f"{i:06}" for i in [*range(105, 155), *range(225, 275)]]
    assert [len(run) for run in kitti.blocks(names)] == [50, 50]
    assert kitti.blocks(["a", "b"]) == [[0, 1]] and kitti.blocks([]) == []
    truth = truth_of(row_of(2))
    frames = [detected(truth, truth.boxes, [0.9, 0.8])] * 50 + [detected(truth, [], [])] * 50
    result = kitti.evaluate(frames, names=names)
    assert result["car_bev_ap40_moderate_block1"] == 100 and result["car_3d_ap40_moderate_block2"] == 0
    scattered = kitti.evaluate(frames, names=[f"{2 * i:06}" for i in range(100)])
    assert not any("block" in key for key in scattered)


# ---- independent references ----
def reference_ap40(frames, level: int, kind: int, min_overlap: float = 0.5) -> float:
    """KITTI's evaluate_object.cpp followed line by line, without bounding-box rules."""

    items = [(*frame, box_iou(frame[0].boxes, frame[1])[kind]) for frame in frames]

    def statistics(frame, threshold, compute_fp):
        truth, boxes, scores, _, overlaps = frame
        assigned, tp, fp, fn, values = [False] * len(boxes), 0, 0, 0, []
        for g, label in enumerate(truth.labels):
            if label != "car":
                continue
            ignored, best, best_value = truth.occlusion[g] > level, None, -math.inf
            for d in range(len(boxes)):
                if assigned[d] or (compute_fp and scores[d] < threshold):
                    continue
                value = overlaps[g, d] if compute_fp else scores[d]
                if overlaps[g, d] > min_overlap and value > best_value:
                    best, best_value = d, value
            if best is None:
                fn += not ignored
                continue
            assigned[best] = True
            if not ignored:
                tp += 1
                values.append(scores[best])
        if compute_fp:
            fp = sum(not assigned[d] and scores[d] >= threshold for d in range(len(boxes)))
        return tp, fp, fn, values

    objects = sum((t.occlusion[np.array(t.labels) == "car"] <= level).sum() for t, *_ in frames)
    values = sorted((v for item in items for v in statistics(item, 0, False)[3]), reverse=True)
    thresholds, recall = [], 0.0
    for i, value in enumerate(values):
        left = (i + 1) / objects
        right = (i + 2) / objects if i < len(values) - 1 else left
        if right - recall < recall - left and i < len(values) - 1:
            continue
        thresholds.append(value)
        recall += 1 / 40
    precision = [0.0] * 41
    for i, threshold in enumerate(thresholds):
        counts = [statistics(item, threshold, True) for item in items]
        tp, fp = sum(c[0] for c in counts), sum(c[1] for c in counts)
        precision[i] = tp / (tp + fp)
    return 100 * sum(max(precision[i:]) for i in range(1, 41)) / 40


@pytest.mark.parametrize("seed", range(5))
def test_random_scenes_score_as_in_kittis_program(seed):
    rng = np.random.default_rng(seed)
    frames = [random_scene(rng) for _ in range(40)]
    result = kitti.evaluate(frames)
    values = []
    for kind, name in enumerate(("bev", "3d")):
        for level, difficulty in enumerate(("easy", "moderate", "hard")):
            values.append(reference_ap40(frames, level, kind))
            assert result[f"car_{name}_ap40_{difficulty}"] == pytest.approx(values[-1], abs=1e-9)
    assert min(values) > 2 and max(values) < 80  # the scenes are neither trivial nor hopeless


@pytest.mark.parametrize("seed", range(3))
def test_center_distance_scores_as_in_nuscenes_devkit(seed):
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.common.utils import center_distance
    from nuscenes.eval.detection.algo import accumulate, calc_ap
    from nuscenes.eval.detection.data_classes import DetectionBox

    rng = np.random.default_rng(seed)
    frames = [random_scene(rng) for _ in range(40)]
    for frame in frames:
        frame[2][:] = rng.permutation(len(frame[2])) / 100 + rng.uniform(0, 0.01, len(frame[2]))  # no ties
    truths, detections = EvalBoxes(), EvalBoxes()
    for i, (truth, boxes, scores, _) in enumerate(frames):
        truth.occlusion[:] = np.minimum(truth.occlusion, 2)  # the devkit has no ignored objects
        cars = [g for g, label in enumerate(truth.labels) if label == "car"]

        def boxed(box, score, token=str(i)):
            return DetectionBox(token, tuple(box[:3]), tuple(box[3:6]), detection_name="car", detection_score=score)

        truths.add_boxes(str(i), [boxed(truth.boxes[g], -1.0) for g in cars])
        detections.add_boxes(str(i), [boxed(box, float(score)) for box, score in zip(boxes, scores, strict=True)])
    result = kitti.evaluate(frames)
    for distance in (0.5, 1.0, 2.0, 4.0):
        expected = calc_ap(accumulate(truths, detections, "car", center_distance, distance), 0.1, 0.1)
        assert result[f"car_center_ap_{distance:g}m"] == pytest.approx(100 * expected, abs=1e-6)
    assert 5 < result["car_center_ap_0.5m"] < result["car_center_ap_4m"] < 90


def test_errors_of_the_matched_boxes_are_reported():
    truth = truth_of(row_of(4))
    boxes = truth.boxes.copy()
    boxes[:, 0] += [0.4, -0.2, 0.4, -0.2]
    boxes[:, 2] -= 0.5
    boxes[:, 6] += [0.1, -0.1, np.pi + 0.1, -np.pi - 0.1]
    clutter = [[500, 0, 0, *CAR]]
    result = kitti.evaluate([detected(truth, np.r_[boxes, clutter], [0.9] * 5)])
    assert result["car_mae_x"] == pytest.approx(0.3) and result["car_bias_x"] == pytest.approx(0.1)
    assert result["car_mae_z"] == pytest.approx(0.5) and result["car_bias_z"] == pytest.approx(-0.5)
    assert result["car_mae_yaw"] == pytest.approx(0.1) and result["car_turned"] == 0.5 and result["car_mae_y"] == 0


# ---- the real validation set ----
def test_a_perfect_detector_on_the_block_split_reaches_100(shared_data):
    source = AstyxSource(shared_data / "astyx", images=False, lidar=False)
    val = source.subset(source.splits["val"])
    truths = [sample.truth for sample in val]
    perfect = [detected(truth, truth.boxes, np.ones(len(truth.labels)), truth.labels) for truth in truths]
    result = kitti.evaluate(perfect, ranges=RANGES, names=val.names)
    assert [len(run) for run in kitti.blocks(val.names)] == [25, 25, 30, 30]
    aps = {key: value for key, value in result.items() if "ap40" in key or "center_ap" in key}
    assert len(aps) == 2 * (3 + 3 + 4) + 4 and all(value == pytest.approx(100) for value in aps.values())
    cars = np.concatenate([truth.occlusion[np.array(truth.labels) == "car"] for truth in truths])
    expected = [(cars <= level).sum() for level in range(3)]
    assert [result[f"car_objects_{level}"] for level in ("easy", "moderate", "hard")] == expected
    # boxes 0.5 m too low overlap fully on the ground, not in volume
    low = [detected(t, t.boxes - np.eye(9)[2] * 0.8, np.ones(len(t.labels)), t.labels) for t in truths]
    fallen = kitti.evaluate(low)
    assert fallen["car_bev_ap40_moderate"] == 100 and fallen["car_3d_ap40_moderate"] < 20


def test_bootstrap_draws_chunks_of_consecutive_frames_and_the_same_ones_for_every_model():
    """Of equal frames every draw has the AP of the whole; a draw of one chunk has that chunk's AP."""
    car = np.array([[10.0, 0, 0, 4, 2, 1.5, 0, 0, 0]])
    truth = Truth(car, ["car"], np.zeros(1, np.int8), np.zeros(1, np.int32), np.zeros(1, np.int32))
    hit, miss = (truth, car, np.array([0.9]), ["car"]), (truth, np.zeros((0, 9)), np.zeros(0), [])
    names = [f"{i:06d}" for i in (*range(4), *range(10, 14))]  # two runs of four, two chunks each
    metric = "car_bev_ap40_moderate"
    whole = kitti.evaluate([hit] * 8)[metric]
    assert kitti.bootstrap([hit] * 8, names, [metric], 5, 2)[metric] == [whole] * 5
    first = kitti.bootstrap([hit] * 4 + [miss] * 4, names, [metric], 40, 2)[metric]
    # k of four chunks of two frames hit: recall k / 4, so that share of the 40 points has precision 1
    possible = {kitti.evaluate([hit] * (2 * k) + [miss] * (8 - 2 * k))[metric] for k in range(5)}
    assert set(first) <= possible and len(set(first)) > 2
    better = kitti.bootstrap([hit] * 6 + [miss] * 2, names, [metric], 40, 2)[metric]
    assert all(a <= b for a, b in zip(first, better))  # the same frames are drawn for both
