"""Heatmaps and boxes -> detections."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import small_spec

from imkd_edge.ops import decode
from imkd_edge.spec import ClassSpec, GridSpec, HeadSpec, ModelSpec

H, W = 24, 32
NEVER = -20.0  # logit of an empty cell


def random_heads(spec: ModelSpec, seed: int, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (len(spec.head.classes), spec.grid.height(), spec.grid.width())
    heatmap = rng.normal(-1.5, 1.5, shape)
    if ties:
        heatmap = np.round(heatmap * 2) / 2
    box = rng.normal(0, 0.6, (spec.head.groups() * 10, *shape[1:]))
    return heatmap.astype(np.float32), box.astype(np.float32)


def reference(spec: ModelSpec, heatmap: np.ndarray, box: np.ndarray, ground=(0.0, 0.0, 0.0)):
    """Plain loops in float64."""
    classes, height, width = heatmap.shape
    candidates = []
    for label, row, column in np.ndindex(classes, height, width):
        logit = heatmap[label, row, column]
        if not 1 / (1 + np.exp(-np.float64(logit))) >= spec.head.score_threshold:
            continue
        peak = True
        for r in range(max(row - 1, 0), min(row + 2, height)):
            for c in range(max(column - 1, 0), min(column + 2, width)):
                other = heatmap[label, r, c]
                if (r, c) != (row, column) and (other > logit or (other == logit and (r, c) < (row, column))):
                    peak = False
        values = box[spec.head.classes[label].group * 10 :][:10, row, column].astype(np.float64)
        if not peak or not np.isfinite(values).all():
            continue
        x = spec.grid.x_min + (column + 0.5 + values[0]) * spec.grid.cell
        y = spec.grid.y_min + (row + 0.5 + values[1]) * spec.grid.cell
        yaw = np.arctan2(values[6], values[7])
        a, b, c = ground
        decoded = [x, y, a * x + b * y + c + values[2], *np.exp(values[3:6]), yaw, *values[8:10]]
        score = np.float32(1 / (1 + np.exp(-np.float64(logit))))
        candidates.append((-score, (label * height + row) * width + column, label, decoded))
    selected: list[tuple] = []
    for candidate in sorted(candidates)[: spec.head.max_candidates]:
        radius = spec.head.classes[candidate[2]].nms_radius
        near = [
            k
            for k in selected
            if k[2] == candidate[2] and np.hypot(k[3][0] - candidate[3][0], k[3][1] - candidate[3][1]) <= radius
        ]
        if not near and len(selected) < spec.head.max_detections:
            selected.append(candidate)
    boxes = np.array([k[3] for k in selected]).reshape(-1, 9)
    return boxes, np.array([-k[0] for k in selected]), np.array([k[2] for k in selected], int)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(16))
def test_equals_plain_loops(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    kinds = int(rng.integers(1, 5))
    classes = [
        ClassSpec(name=f"c{i}", group=min(i, int(rng.integers(0, i + 1))), nms_radius=rng.uniform(0, 4))
        for i in range(kinds)
    ]
    for i, group in enumerate(sorted({c.group for c in classes})):
        for c in classes:
            c.group = i if c.group == group else c.group
    head = HeadSpec(
        classes=classes,
        score_threshold=float(rng.choice([0.11, 0.31, 0.71])),
        max_candidates=int(rng.choice([3, 50, 400])),
        max_detections=int(rng.choice([1, 20, 300])),
    )
    spec, ground = small_spec(head=head), (0.01, -0.02, 0.3)
    heatmap, box = random_heads(spec, seed, ties)
    boxes, scores, labels = decode(spec, heatmap, box, ground)
    expected_boxes, expected_scores, expected_labels = reference(spec, heatmap, box, ground)
    assert len(scores) > 0 and labels.tolist() == expected_labels.tolist()
    assert scores.tolist() == pytest.approx(expected_scores.tolist(), abs=1e-7)
    assert np.abs(boxes - expected_boxes).max() < 1e-5
    assert boxes.dtype == scores.dtype == np.float32 and labels.dtype == np.int32


def one_peak(row: int, column: int, values: list[float], label: int = 0) -> tuple[np.ndarray, np.ndarray]:
    heatmap, box = np.full((3, H, W), NEVER, np.float32), np.zeros((20, H, W), np.float32)
    heatmap[label, row, column] = 2.0
    group = 0 if label == 0 else 1
    box[group * 10 : group * 10 + 10, row, column] = values
    return heatmap, box


def test_a_box_computed_by_hand() -> None:
    """Cell (row 3, column 20) of the 1 m grid from (-16, -12): its centre is at x = 4.5, y = -8.5."""
    spec, ground = small_spec(), (0.1, 0, -2)
    values = [0.25, -0.5, 0.8, np.log(4.5), np.log(1.9), np.log(1.6), 1.0, 0.0, 3.0, -1.5]
    boxes, scores, labels = decode(spec, *one_peak(3, 20, values), ground)
    expected = [4.75, -9.0, 0.1 * 4.75 - 2 + 0.8, 4.5, 1.9, 1.6, np.pi / 2, 3.0, -1.5]
    assert boxes[0].tolist() == pytest.approx(expected, abs=1e-5)
    assert scores[0] == pytest.approx(1 / (1 + np.exp(-2.0)), abs=1e-7) and labels.tolist() == [0]


@pytest.mark.parametrize(
    ("sine", "cosine", "yaw"),
    [(0, 1, 0), (0, -1, -np.pi), (-0.0, -1, -np.pi), (1, 1, np.pi / 4), (-2, 0, -np.pi / 2), (0, 0, 0)],
)
def test_yaw_is_in_minus_pi_to_pi(sine: float, cosine: float, yaw: float) -> None:
    boxes, _, _ = decode(small_spec(), *one_peak(5, 5, [0] * 6 + [sine, cosine, 0, 0]))
    assert boxes[0, 6] == pytest.approx(yaw, abs=1e-6) and -np.float32(np.pi) <= boxes[0, 6] < np.float32(np.pi)


@pytest.mark.parametrize("cell", [(0, 0), (0, W - 1), (H - 1, 0), (H - 1, W - 1), (0, 7), (9, 0)])
def test_a_peak_on_the_edge_is_found(cell: tuple[int, int]) -> None:
    assert len(decode(small_spec(), *one_peak(*cell, [0] * 10))[0]) == 1


def test_of_a_plateau_the_lowest_index_stays() -> None:
    spec = small_spec()
    heatmap, box = np.full((3, H, W), NEVER, np.float32), np.zeros((20, H, W), np.float32)
    heatmap[0, 4:6, 4:6] = 1.0
    boxes, _, _ = decode(spec, heatmap, box)
    assert boxes[:, :2].tolist() == [[-16 + 4.5, -12 + 4.5]]


def test_equal_scores_are_ordered_by_class_then_cell() -> None:
    heatmap, box = np.full((3, H, W), NEVER, np.float32), np.zeros((20, H, W), np.float32)
    for label, row, column in [(2, 1, 1), (0, 20, 20), (1, 3, 3), (0, 2, 30), (0, 2, 10)]:
        heatmap[label, row, column] = 1.0
    boxes, _, labels = decode(small_spec(), heatmap, box)
    assert labels.tolist() == [0, 0, 0, 1, 2]
    assert boxes[:3, :2].tolist() == [[-5.5, -9.5], [14.5, -9.5], [4.5, 8.5]]


def test_suppression_is_within_a_class_and_its_radius() -> None:
    heatmap, box = np.full((3, H, W), NEVER, np.float32), np.zeros((20, H, W), np.float32)
    heatmap[0, 10, 10], heatmap[0, 10, 12], heatmap[0, 10, 14] = 3, 2, 1  # cars 2 m apart, radius 2.5 m
    heatmap[1, 10, 12] = 2.5  # a truck at the second car's cell
    boxes, _, labels = decode(small_spec(), heatmap, box)
    assert labels.tolist() == [0, 1, 0] and boxes[:, 0].tolist() == [-5.5, -3.5, -1.5]


@pytest.mark.parametrize("channel", range(10))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_box_that_is_not_finite_is_dropped(channel: int, value: float) -> None:
    heatmap, box = one_peak(5, 5, [0] * 10)
    box[channel, 5, 5] = value
    assert len(decode(small_spec(), heatmap, box)[0]) == 0


def test_a_nan_in_the_heatmap_hides_nothing_else() -> None:
    heatmap, box = one_peak(5, 5, [0] * 10)
    heatmap[0, 5, 6] = heatmap[0, 4, 5] = heatmap[1] = np.nan
    assert decode(small_spec(), heatmap, box)[2].tolist() == [0]


def test_a_size_beyond_float32_is_dropped() -> None:
    assert len(decode(small_spec(), *one_peak(5, 5, [0, 0, 0, 200, 0, 0, 0, 1, 0, 0]))[0]) == 0


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 40))
@settings(derandomize=True, max_examples=25, deadline=None)
def test_scores_fall_and_limits_hold(seed: int, candidates: int, detections: int) -> None:
    spec = small_spec()
    spec.head.max_candidates, spec.head.max_detections = candidates, detections
    heatmap, box = random_heads(spec, seed, ties=True)
    boxes, scores, labels = decode(spec, heatmap, box)
    assert (np.diff(scores) <= 0).all() and len(scores) <= min(candidates, detections)
    assert (scores >= np.float32(0.3) - 1e-6).all()
    for label in range(3):
        centres = boxes[labels == label, :2]
        gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1)[np.triu_indices(len(centres), 1)]
        assert (gaps > spec.head.classes[label].nms_radius - 1e-4).all()


@given(st.integers(0, 10**6), st.integers(-4, 4), st.integers(-4, 4))
@settings(derandomize=True, max_examples=20, deadline=None)
def test_moving_the_grid_moves_the_boxes(seed: int, dx: int, dy: int) -> None:
    spec = small_spec()
    moved = small_spec(
        grid=GridSpec(x_min=-16 + dx, x_max=16 + dx, y_min=-12 + dy, y_max=12 + dy, z_min=-3, z_max=4, cell=1.0)
    )
    heads = random_heads(spec, seed)
    (boxes, scores, labels), (boxes2, scores2, labels2) = decode(spec, *heads), decode(moved, *heads)
    assert np.array_equal(scores, scores2) and np.array_equal(labels, labels2)
    assert np.abs(boxes2 - boxes - np.array([dx, dy] + [0] * 7)).max() < 1e-4
