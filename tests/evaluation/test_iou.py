"""Overlap of oriented boxes: cases by hand, and shapely as the independent polygon library."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon

from imkd_edge.evaluation.iou import box_iou, ground_corners, intersection_area

UNIT = [0, 0, 0, 2, 2, 2, 0]  # a cube of side 2


def overlap(a, b) -> tuple[float, float]:
    bev, volume = box_iou(np.array([a], float), np.array([b], float))
    return float(bev[0, 0]), float(volume[0, 0])


@pytest.mark.parametrize(
    ("other", "bev", "volume"),
    [
        (UNIT, 1, 1),
        ([0, 0, 0, 2, 2, 2, np.pi / 2], 1, 1),
        ([0, 0, 0, 2, 2, 2, np.pi], 1, 1),
        ([1, 0, 0, 2, 2, 2, 0], 2 / 6, 4 / 12),  # half covered
        ([1, 1, 0, 2, 2, 2, 0], 1 / 7, 2 / 14),  # a quarter covered
        ([2, 0, 0, 2, 2, 2, 0], 0, 0),  # touching sides
        ([2, 2, 0, 2, 2, 2, 0], 0, 0),  # touching corners
        ([5, 0, 0, 2, 2, 2, 0], 0, 0),
        ([0, 0, 1, 2, 2, 2, 0], 1, 4 / 12),  # lifted by half its height
        ([0, 0, 2, 2, 2, 2, 0], 1, 0),  # standing on top
        ([0, 0, 9, 2, 2, 2, 0], 1, 0),
        ([0, 0, 0, 1, 1, 1, 0.3], 1 / 4, 1 / 8),  # inside
        ([0, 0, 0, 4, 4, 4, 1.1], 4 / 16, 8 / 64),  # around
        ([0, 0, 0, 4, 1, 2, 0], 2 / 6, 2 / 6),  # a cross: 2 x 1 common, 4 + 4 - 2 in all
        # the square rotated by 45 degrees: the common octagon has 8 (sqrt 2 - 1) m2
        ([0, 0, 0, 2, 2, 2, np.pi / 4], 8 * (2**0.5 - 1) / (8 - 8 * (2**0.5 - 1)), None),
        # a diamond with its tip at the centre of the right side: a triangle of base 2 x 0.5 and height 0.5
        ([2**0.5 + 0.5, 0, 0, 2, 2, 2, np.pi / 4], 0.25 / (8 - 0.25), None),
    ],
)
def test_overlap_worked_out_by_hand(other, bev, volume):
    for pair in ((UNIT, other), (other, UNIT)):
        result = overlap(*pair)
        assert result[0] == pytest.approx(bev, abs=1e-9)
        assert result[1] == pytest.approx(bev if volume is None else volume, abs=1e-9)


def test_corners_turn_with_the_box():
    corners = ground_corners(np.array([[10, 5, 0, 4, 2, 1, np.pi / 2]]))[0]
    assert np.allclose(corners, [[9, 7], [9, 3], [11, 3], [11, 7]])  # front left, rear left, rear right, front right


def shapely_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    def polygon(box):
        turn = np.array([[np.cos(box[6]), -np.sin(box[6])], [np.sin(box[6]), np.cos(box[6])]])
        half = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * box[3:5] / 2
        return Polygon(half @ turn.T + box[:2])

    ours, theirs = [polygon(box) for box in a], [polygon(box) for box in b]
    return np.array([[p.intersection(q).area / p.union(q).area for q in theirs] for p in ours])


@pytest.mark.parametrize("seed", range(4))
def test_random_overlaps_are_shapelys(seed):
    rng = np.random.default_rng(seed)
    a, b = (np.c_[rng.uniform(-4, 4, (60, 3)), rng.uniform(0.3, 8, (60, 3)), rng.uniform(-9, 9, 60)] for _ in range(2))
    b[:10] = a[:10]  # identical
    b[10:20] = a[10:20] + rng.normal(0, 1e-7, (10, 7))  # nearly identical, edges nearly parallel
    b[20:30, 6] = a[20:30, 6] + np.pi / 2 * rng.integers(0, 4, 10)  # parallel edges
    b[30:40] = a[30:40]
    b[30:40, 3] /= 2  # sharing two sides in part
    bev, _ = box_iou(a, b)
    reference = shapely_iou(a, b)
    assert (reference > 0).sum() > 1000 and np.abs(bev - reference).max() < 1e-6


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(-3, 3), min_size=4, max_size=4),
    st.lists(st.floats(0.1, 6), min_size=6, max_size=6),
    st.floats(-7, 7),
)
def test_overlap_is_symmetric_bounded_and_moves_with_both_boxes(pose, sizes, turn):
    a, b = np.array([[0, 0, 0, *sizes[:3], 0.4]]), np.array([[*pose[:3], *sizes[3:], 0.4 + pose[3]]])
    bev, volume = (float(value[0, 0]) for value in box_iou(a, b))
    assert 0 <= volume <= 1 + 1e-9 and 0 <= bev <= 1 + 1e-9
    assert overlap(b[0], a[0]) == pytest.approx((bev, volume), abs=1e-9)
    for box in (a, b):
        x, y = box[0, :2]
        box[0, :2] = np.cos(turn) * x - np.sin(turn) * y + 50, np.sin(turn) * x + np.cos(turn) * y - 20
        box[0, 6] += turn
    assert overlap(a[0], b[0]) == pytest.approx((bev, volume), abs=1e-8)


def test_nothing_gives_empty_matrices():
    none, some = np.zeros((0, 7)), np.ones((3, 9))
    assert [value.shape for value in box_iou(none, some)] == [(0, 3)] * 2
    assert [value.shape for value in box_iou(some, none)] == [(3, 0)] * 2
    assert intersection_area(np.zeros((0, 4, 2)), np.zeros((0, 4, 2))).shape == (0,)
