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


def covers(better: list[float], other: list[float]) -> bool:
    """Whether the centre of a box lies in the footprint of a better one, by its corners: left of each edge."""
    x, y, _, length, width, _, yaw = better[:7]
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    half = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * [length / 2, width / 2]
    corners = half @ turn.T + [x, y]
    edges = np.roll(corners, -1, 0) - corners
    to = np.array(other[:2]) - corners
    return bool((edges[:, 0] * to[:, 1] - edges[:, 1] * to[:, 0] >= 0).all())


def is_suppressed(spec: ModelSpec, candidate: tuple, better: tuple) -> bool:
    (_, _, label, box), (_, _, its_label, its_box) = candidate, better
    mine, its = spec.head.classes[label], spec.head.classes[its_label]
    if label == its_label:
        return bool(np.hypot(its_box[0] - box[0], its_box[1] - box[1]) <= mine.nms_radius)
    return mine.exclusive and its.exclusive and covers(its_box, box)


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
        size, kind = np.exp(values[3:6]), spec.head.classes[label]
        fits = (size >= (kind.min_size or (0,) * 3)).all() and (size <= (kind.max_size or (np.inf,) * 3)).all()
        if not peak or not np.isfinite(values).all() or not fits:
            continue
        x = spec.grid.x_min + (column + 0.5 + values[0]) * spec.grid.cell
        y = spec.grid.y_min + (row + 0.5 + values[1]) * spec.grid.cell
        yaw = np.arctan2(values[6], values[7])
        a, b, c = ground
        decoded = [x, y, a * x + b * y + c + values[2], *size, yaw, *values[8:10]]
        score = np.float32(1 / (1 + np.exp(-np.float64(logit))))
        candidates.append((-score, (label * height + row) * width + column, label, decoded))
    selected: list[tuple] = []
    for candidate in sorted(candidates)[: spec.head.max_candidates]:
        suppressed = any(is_suppressed(spec, candidate, better) for better in selected)
        if not suppressed and len(selected) < spec.head.max_detections:
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
    for c in classes:
        c.exclusive = bool(rng.random() < 0.7)
        c.min_size = rng.uniform(0, 0.6, 3) if rng.random() < 0.5 else None
        c.max_size = rng.uniform(1.5, 4, 3) if rng.random() < 0.5 else None
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


CAR, TRUCK, PERSON = 0, 1, 2
LIMITS = {CAR: ((2, 1.2, 1.1), (7, 2.6, 3)), PERSON: ((0.3, 0.3, 1), (1.3, 1.3, 2.2))}


def one_group_spec() -> ModelSpec:
    """The classes share one set of box channels, as in the shipped models; sizes have no limit."""
    spec = small_spec()
    for item in spec.head.classes:
        item.group = 0
    return spec


def objects(*items: tuple[int, float, tuple[int, int], tuple[float, float, float], float]):
    """Heads with one peak for each (label, logit, (row, column), (length, width, height), yaw), all in one group."""
    heatmap, box = np.full((3, H, W), NEVER, np.float32), np.zeros((10, H, W), np.float32)
    for label, logit, (row, column), size, yaw in items:
        heatmap[label, row, column] = logit
        box[3:6, row, column] = np.log(size)
        box[6:8, row, column] = np.sin(yaw), np.cos(yaw)
    return heatmap, box


def labels_of(spec: ModelSpec, *items: tuple) -> list[int]:
    return decode(spec, *objects(*items))[2].tolist()


def test_no_person_of_4_5_by_1_9_m() -> None:
    """The two classes share the box of a cell: a person's peak in a car's cell has the car's size."""
    size, spec = (4.5, 1.9, 1.5), one_group_spec()
    assert labels_of(spec, (CAR, 2, (10, 10), size, 0.4), (PERSON, 1, (10, 10), size, 0.4)) == [CAR]
    # Alone, or better than the car, its size gives it away.
    assert labels_of(spec, (PERSON, 2, (10, 10), size, 0.4)) == [PERSON]
    for item, limits in LIMITS.items():
        spec.head.classes[item].min_size, spec.head.classes[item].max_size = limits
    assert labels_of(spec, (PERSON, 2, (10, 10), size, 0.4)) == []
    assert labels_of(spec, (PERSON, 3, (10, 10), size, 0.4), (CAR, 2, (10, 10), size, 0.4)) == [CAR]


def test_a_person_beside_a_car_stays() -> None:
    """Cells are 1 m: the person is 2 m to the left of the centre of a car that is 1.9 m wide."""
    car, person = (CAR, 2, (10, 10), (4.5, 1.9, 1.5), 0), (0.6, 0.6, 1.7)
    assert labels_of(one_group_spec(), car, (PERSON, 1, (12, 10), person, 0)) == [CAR, PERSON]
    assert labels_of(one_group_spec(), car, (PERSON, 1, (11, 10), person, 0)) == [CAR, PERSON]  # 1 m: 5 cm off it
    assert labels_of(one_group_spec(), car, (PERSON, 1, (10, 12), person, 0)) == [CAR]  # 2 m ahead: on its bonnet
    turned = (CAR, 2, (10, 10), (4.5, 1.9, 1.5), np.pi / 2)
    assert labels_of(one_group_spec(), turned, (PERSON, 1, (12, 10), person, 0)) == [CAR]
    assert labels_of(one_group_spec(), turned, (PERSON, 1, (10, 12), person, 0)) == [CAR, PERSON]


def test_the_better_of_a_car_and_a_truck_at_one_spot_stays() -> None:
    truck = (9.0, 2.5, 3.2)
    for better, worse in [(CAR, TRUCK), (TRUCK, CAR)]:
        items = (better, 2, (10, 10), truck, 0.1), (worse, 1, (10, 10), truck, 0.1)
        assert labels_of(one_group_spec(), *items) == [better]


def test_a_better_person_does_not_take_the_car_around_it() -> None:
    """Only the better footprint counts: a false person of 0.6 m may not hide the car that it stands in."""
    person, car = (PERSON, 2, (10, 10), (0.6, 0.6, 1.7), 0), (CAR, 1, (10, 11), (4.5, 1.9, 1.5), 0)
    assert labels_of(one_group_spec(), person, car) == [PERSON, CAR]


@pytest.mark.parametrize("which", [CAR, PERSON])
def test_a_class_that_is_not_exclusive_stands_in_others(which: int) -> None:
    spec = one_group_spec()
    spec.head.classes[which].exclusive = False
    size = (1.8, 0.7, 1.7)
    assert labels_of(spec, (CAR, 2, (10, 10), size, 0), (PERSON, 1, (10, 10), size, 0)) == [CAR, PERSON]


@pytest.mark.parametrize("side", range(3))
@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_a_box_just_outside_its_limits_is_discarded(side: int, factor: float) -> None:
    spec = one_group_spec()
    spec.head.classes[CAR].min_size = spec.head.classes[CAR].max_size = None
    size = [4.5, 1.9, 1.5]
    spec.head.classes[CAR].min_size, spec.head.classes[CAR].max_size = [s - 0.001 for s in size], [9, 9, 9]
    assert labels_of(spec, (CAR, 2, (10, 10), tuple(size), 0)) == [CAR]
    changed = [s * (factor if i == side else 1) for i, s in enumerate(size)]
    assert labels_of(spec, (CAR, 2, (10, 10), tuple(changed), 0)) == ([CAR] if factor > 1 else [])
    spec.head.classes[CAR].min_size, spec.head.classes[CAR].max_size = None, [s + 0.001 for s in size]
    assert labels_of(spec, (CAR, 2, (10, 10), tuple(changed), 0)) == ([CAR] if factor < 1 else [])


def test_a_box_out_of_limits_takes_no_place_of_a_candidate() -> None:
    spec = one_group_spec()
    spec.head.max_candidates, spec.head.classes[PERSON].max_size = 1, (1.3, 1.3, 2.2)
    assert labels_of(spec, (PERSON, 3, (4, 4), (4.5, 1.9, 1.5), 0), (CAR, 1, (20, 20), (4.5, 1.9, 1.5), 0)) == [CAR]


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


@given(st.integers(0, 10**6))
@settings(derandomize=True, max_examples=25, deadline=None)
def test_no_centre_lies_in_a_better_footprint_and_every_size_is_within_its_limits(seed: int) -> None:
    spec = small_spec()
    for item in spec.head.classes:
        item.min_size, item.max_size = (0.4, 0.5, 0.3), (2.5, 2.0, 2.5)
    boxes, _, labels = decode(spec, *random_heads(spec, seed, ties=True))
    assert (boxes[:, 3:6] >= np.float32([0.4, 0.5, 0.3])).all() and (boxes[:, 3:6] <= np.float32([2.5, 2.0, 2.5])).all()
    for i in range(len(boxes)):
        shrunk = [*boxes[i, :3], *(boxes[i, 3:6] - 1e-4), boxes[i, 6]]
        assert not any(labels[k] != labels[i] and covers(shrunk, boxes[k]) for k in range(i + 1, len(boxes)))


@given(st.integers(0, 10**6))
@settings(derandomize=True, max_examples=25, deadline=None)
def test_the_rules_only_discard_boxes_and_the_best_one_stays(seed: int) -> None:
    strict, loose = small_spec(), small_spec()
    strict.head.max_detections = loose.head.max_detections = strict.head.max_candidates
    for item in loose.head.classes:
        item.exclusive = False
    heads = random_heads(strict, seed)
    boxes, all_boxes = decode(strict, *heads)[0], decode(loose, *heads)[0]
    assert np.array_equal(boxes[0], all_boxes[0]) and len(boxes) < len(all_boxes)


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
