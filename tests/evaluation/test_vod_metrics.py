"""View-of-Delft's metrics: average precisions by hand from the devkit's rules.

A score threshold lies where recall is nearest to 0, 1/40, ... 1; AP is the mean of the precision at every fourth of
these 41, each raised to the best that follows. With 80 objects there are 41 thresholds, with 40 the last is missing:
10/11.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from shapely import affinity
from shapely.geometry import box as rectangle
from sources.vod_folder import HEIGHT, P2, WIDTH, calibration, devkit, label_line

from helpers import without_package
from imkd_edge import CameraCalibration, SensorRig
from imkd_edge.errors import Error
from imkd_edge.evaluation.vod import evaluate
from imkd_edge.sources.vod import result_line

FRAMES = (
    100  # the devkit compares each detection with each label of two frames then, of all where there are fewer than 50
)
T_CAMERA_LIDAR = calibration(0)[0]
CAMERA = CameraCalibration(
    name="c", width=WIDTH, height=HEIGHT, K=P2[:, :3], T_ego_camera=np.linalg.inv(T_CAMERA_LIDAR)
)
RIG = SensorRig(cameras=[CAMERA], radars=[])
INSIDE = [  # the driving corridor: in every even frame of the first 80; the last 20 are empty
    ("Car", 12, 1.5, -1.7, 4.2, 1.8, 1.5),
    ("Pedestrian", 10, -2.5, -1.7, 0.8, 0.6, 1.7),
    ("Cyclist", 20, 0, -1.7, 1.9, 0.7, 1.8),
]
OUTSIDE = [  # beside or beyond it: in every odd one
    ("Car", 30, 8, -1.7, 4.2, 1.8, 1.5),
    ("Pedestrian", 18, 7, -1.7, 0.8, 0.6, 1.7),
    ("Cyclist", 40, -2, -1.7, 1.9, 0.7, 1.8),
]
NOTHING = (np.zeros((0, 9)), np.zeros(0), [])


def objects_of(frame: int) -> list[tuple]:
    return ([INSIDE, OUTSIDE][frame % 2]) if frame < 80 else []


def boxes_of(frame: int, objects: list[tuple]) -> np.ndarray:
    """(M, 9) as the project has them, each rotated a little further from frame to frame."""
    yaw = [0.5 * i + 0.15 * frame for i in range(len(objects))]
    boxes = [[x, y, z + h / 2, *size, h, turn, 0, 0] for (_, x, y, z, *size, h), turn in zip(objects, yaw)]
    return np.array(boxes, float).reshape(-1, 9)


def perfect() -> list:
    """Per frame boxes, distinct scores and labels."""
    scores = np.random.default_rng(0).permutation(np.linspace(0.4, 0.6, FRAMES * 3)).reshape(FRAMES, -1)
    frames = [(scores[k], objects_of(k)) for k in range(FRAMES)]
    return [
        (boxes_of(k, items), score[: len(items)], [item[0].lower() for item in items])
        for k, (score, items) in enumerate(frames)
    ]


def write_labels(folder: Path, more: list[tuple] = []) -> Path:  # noqa: B006
    """Label files of all frames, with more objects in the first 40."""
    for k in range(FRAMES):
        items = objects_of(k) + (more if k < 40 else [])
        lines = [label_line(T_CAMERA_LIDAR, (*item, box[6], 0)) for item, box in zip(items, boxes_of(k, items))]
        (folder / f"{k:05d}.txt").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> Path:
    return write_labels(tmp_path_factory.mktemp("labels"))


def metrics_of(labels: Path, detections: list) -> dict[str, float]:
    return evaluate(labels, [f"{k:05d}" for k in range(FRAMES)], [RIG] * FRAMES, detections)


def changed(change) -> list:
    """Perfect detections whose boxes went through change(label, box)."""
    return [
        (np.array([change(label, b.copy()) for label, b in zip(names, boxes)]), scores, names)
        for boxes, scores, names in perfect()
    ]


def with_more(box: list[float], label: str = "car", score: float = 0.9) -> list:
    """Perfect detections and another one in each of the first 40 frames."""
    more = [
        (np.vstack([boxes, [*box, 0, 0]]), np.append(scores, score), [*names, label])
        for boxes, scores, names in perfect()
    ]
    return more[:40] + perfect()[40:]


# ---- the whole evaluation ----
def test_perfect_detections(labels, capsys):
    result = metrics_of(labels, perfect())
    for label in ("car", "pedestrian", "cyclist"):
        for kind in ("ap", "bev_ap", "aos"):
            assert result[f"{label}_{kind}_entire_area"] == pytest.approx(100)
            assert result[f"{label}_{kind}_driving_corridor"] == pytest.approx(1000 / 11)
    assert result["mAP_entire_area"] == pytest.approx(100) and result["mAP_driving_corridor"] == pytest.approx(
        1000 / 11
    )
    assert len(result) == 20 and capsys.readouterr().out == ""


def test_no_detection(labels):
    result = metrics_of(labels, [NOTHING] * FRAMES)
    assert set(result.values()) == {0.0}


@pytest.mark.parametrize(
    ("shifts", "hit"),
    [
        # of cars 3.2 m of 5.2 m: IoU 0.62, and in the tilted camera frame up to 0.11 m higher: 0.54; then 0.29 and 0.28
        ({"car": 1.0, "pedestrian": 0.44, "cyclist": 1.08}, True),
        # 2.7 m of 5.7 m: 0.47; 0.28 m of 1.32 m: 0.21; 0.7 m of 3.1 m: 0.23
        ({"car": 1.5, "pedestrian": 0.52, "cyclist": 1.2}, False),
    ],
)
def test_a_shift_along_the_box_matters_from_the_classs_overlap_on(labels, shifts, hit):
    def ahead(name: str, box: np.ndarray) -> np.ndarray:
        box[:2] += shifts[name] * np.array([np.cos(box[6]), np.sin(box[6])])
        return box

    result = metrics_of(labels, changed(ahead))
    for name in shifts:
        assert (
            result[f"{name}_ap_entire_area"] == result[f"{name}_bev_ap_entire_area"] == pytest.approx(100 if hit else 0)
        )
        assert result[f"{name}_ap_driving_corridor"] == pytest.approx(1000 / 11 if hit else 0)


def test_height_counts_in_3d_only(labels):
    result = metrics_of(
        labels, changed(lambda name, box: box + [0, 0, 0.6, 0, 0, 0, 0, 0, 0] if name == "car" else box)
    )  # 0.9 m of 2.1 m
    assert result["car_ap_entire_area"] == 0 and result["car_bev_ap_entire_area"] == pytest.approx(100)
    assert result["mAP_entire_area"] == pytest.approx(200 / 3)


def test_headings(labels):
    """Rotated by pi a box covers itself with a wrong orientation; across, a car covers 1.8 x 1.8 m2 of two."""
    back = metrics_of(labels, changed(lambda name, box: box + [0, 0, 0, 0, 0, 0, np.pi, 0, 0]))
    assert back["mAP_entire_area"] == pytest.approx(100) and back["car_aos_entire_area"] == pytest.approx(0, abs=1e-3)
    across = metrics_of(labels, changed(lambda name, box: box + [0, 0, 0, 0, 0, 0, np.pi / 2, 0, 0]))
    assert across["car_ap_entire_area"] == 0 and across["pedestrian_ap_entire_area"] == pytest.approx(100)


def test_what_is_missed_costs_recall(labels):
    """Half of all: recall ends at 1/2, which is the threshold of number 20: 6 of 11 points have precision 1."""
    result = metrics_of(labels, [item if k % 4 < 2 else NOTHING for k, item in enumerate(perfect())])
    assert result["mAP_entire_area"] == pytest.approx(600 / 11)
    assert result["mAP_driving_corridor"] == pytest.approx(500 / 11)  # 20 of 40: numbers 0 to 19


def test_a_miss_outside_the_corridor_does_not_count_inside(labels):
    result = metrics_of(labels, [NOTHING if k % 2 else item for k, item in enumerate(perfect())])
    assert result["mAP_driving_corridor"] == pytest.approx(1000 / 11) and result["mAP_entire_area"] == pytest.approx(
        600 / 11
    )


@pytest.mark.parametrize(
    ("position", "entire", "corridor"),
    [
        ([22, -3.2], 200 / 3, 500 / 11),  # in the corridor: 80 of 120 are right, 40 of 80 there
        ([22, -8], 200 / 3, 1000 / 11),  # beside it
        ([28, 0], 200 / 3, 1000 / 11),  # beyond it
        ([62, 3], 100, 1000 / 11),  # 37 px high
        ([-15, 0], 100, 1000 / 11),  # behind the camera
        ([8, 25], 100, 1000 / 11),  # outside the image
    ],
)
def test_a_false_alarm_above_everything_costs_precision_where_it_counts(labels, position, entire, corridor):
    result = metrics_of(labels, with_more([*position, -0.95, 4.2, 1.8, 1.5, 0]))
    assert result["car_ap_entire_area"] == pytest.approx(entire) and result["car_ap_driving_corridor"] == pytest.approx(
        corridor
    )
    assert result["pedestrian_ap_entire_area"] == pytest.approx(100)


def test_false_alarms_below_everything_cost_nothing(labels):
    assert metrics_of(labels, with_more([22, -3, -0.95, 4.2, 1.8, 1.5, 0], score=0.1))[
        "car_ap_entire_area"
    ] == pytest.approx(100)


def test_what_is_too_small_in_the_image_need_not_be_found(tmp_path):
    far = write_labels(tmp_path, [("Car", 66, 3, -1.7, 4.2, 1.8, 1.5)])  # 35 px high
    assert metrics_of(far, perfect())["car_ap_entire_area"] == pytest.approx(100)
    # 46 px: 80 of 120 detected, numbers 0 to 26 or 27
    near = write_labels(tmp_path, [("Car", 50, 3, -1.7, 4.2, 1.8, 1.5)])
    assert metrics_of(near, perfect())["car_ap_entire_area"] == pytest.approx(700 / 11)


def test_other_classes_are_not_handed_in(labels):
    result = metrics_of(labels, with_more([12, 1.5, -0.95, 4.2, 1.8, 1.5, 0], label="truck"))
    assert result["mAP_entire_area"] == pytest.approx(100)


# ---- its parts ----
@pytest.mark.parametrize("item", INSIDE + OUTSIDE)
@pytest.mark.parametrize("yaw", [-3.0, -1.6, 0.0, 1.55, 2.9])
def test_a_result_says_of_a_box_what_its_label_says(tmp_path, item, yaw):
    from vod.evaluation.evaluation_common import get_label_annotation

    from imkd_edge.evaluation.vod import _rectangle

    name, x, y, z, *size, height = item
    box = np.array([x, y, z + height / 2, *size, height, yaw, 0, 0])
    label, result = tmp_path / "label.txt", tmp_path / "result.txt"
    label.write_text(label_line(T_CAMERA_LIDAR, (*item, yaw, 0)))
    result.write_text(result_line(CAMERA, name, box, _rectangle(CAMERA, box), 0.25) + "\n")
    expected, parsed = get_label_annotation(label), get_label_annotation(result)
    assert parsed["name"].tolist() == [name] and parsed["score"].tolist() == [0.25]
    assert np.allclose(parsed["bbox"], expected["bbox"], atol=1e-3)
    for key in ("dimensions", "location"):
        assert np.allclose(parsed[key], expected[key], atol=1e-5)
    for key in ("rotation_y", "alpha"):
        assert np.allclose(np.exp(1j * parsed[key]), np.exp(1j * expected[key]), atol=1e-5)
        assert abs(parsed[key][0]) <= np.pi + 1e-6


def test_a_box_beside_the_camera_reaches_the_edge_of_the_image():
    from imkd_edge.evaluation.vod import _rectangle

    # its front right edge; the rear is beside the camera
    corner = P2 @ T_CAMERA_LIDAR @ [[4.6, 4.6], [1.6, 1.6], [-1.7, -0.2], [1, 1]]
    rectangle = _rectangle(CAMERA, np.array([2.5, 2.5, -0.95, 4.2, 1.8, 1.5, 0]))
    assert np.allclose(rectangle, [0, 0, (corner[0] / corner[2]).max(), HEIGHT - 1])
    assert _rectangle(CAMERA, np.array([-8.0, 0, -0.95, 4.2, 1.8, 1.5, 0])) == [0, 0, 0, 0]


def test_the_devkits_overlap_is_shapelys():
    """The installed numba compiles it, which is newer than the code."""
    devkit()
    from vod.evaluation.rotate_iou_cpu import rotate_iou_eval

    rng = np.random.default_rng(0)
    a, b = (np.c_[rng.uniform(-4, 4, (40, 2)), rng.uniform(0.4, 5, (40, 2)), rng.uniform(-4, 4, 40)] for _ in range(2))
    b[:10] = a[:10] + [0, 0, 0, 0, 0.01]
    polygons = [
        [
            affinity.translate(affinity.rotate(rectangle(-w / 2, -h / 2, w / 2, h / 2), -turn, use_radians=True), x, y)
            for x, y, w, h, turn in group
        ]
        for group in (a, b)
    ]
    expected = np.array([[p.intersection(q).area / p.union(q).area for q in polygons[1]] for p in polygons[0]])
    assert (expected > 0).sum() > 400 and np.abs(rotate_iou_eval(a, b) - expected).max() < 1e-4  # it counts in float32


def test_lists_of_different_length_are_refused(labels):
    with pytest.raises(Error, match="E0104"):
        evaluate(labels, ["00000"], [RIG, RIG], perfect()[:1])


def test_without_the_devkit_the_error_says_how_to_get_it(labels, monkeypatch):
    without_package(monkeypatch, "vod")
    with pytest.raises(Error, match=r"E0701.*pip install.*--no-deps vod-tudelft"):
        evaluate(labels, [], [], [])
    assert "k3d" not in sys.modules or sys.modules["k3d"].__spec__ is not None
