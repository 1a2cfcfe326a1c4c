"""The function that maps metres to cells."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imkd_edge.ops import cell_index

OUTSIDE = -1
ulp_up = lambda v: float(np.nextafter(np.float32(v), np.float32(np.inf)))  # noqa: E731
ulp_down = lambda v: float(np.nextafter(np.float32(v), np.float32(-np.inf)))  # noqa: E731
HUGE = float(np.finfo(np.float32).max)

# Grid [-4, 4) of 16 cells of 0.5 m: every border is exact in float32, so the cells are counted by hand.
BY_HAND = [
    (-4.0, 0),
    (ulp_up(-4.0), 0),
    (ulp_down(-4.0), OUTSIDE),
    (-4.25, OUTSIDE),
    (-4.5, OUTSIDE),  # a truncating cast would fold these into cell 0
    (-4.0001, OUTSIDE),
    (-3.75, 0),
    (ulp_down(-3.5), 0),
    (-3.5, 1),
    (ulp_up(-3.5), 1),
    (-0.5, 7),
    (ulp_up(-0.5), 7),
    (-0.25, 7),
    (0.0, 8),
    (-0.0, 8),
    (0.25, 8),
    (0.49, 8),
    (0.5, 9),
    (ulp_up(0.5), 9),
    (1.0, 10),
    (3.49, 14),
    (3.5, 15),
    (3.75, 15),
    (3.999, 15),
    (4.0, OUTSIDE),
    (ulp_up(4.0), OUTSIDE),
    (4.25, OUTSIDE),
    (100.0, OUTSIDE),
    (-100.0, OUTSIDE),
    (1e9, OUTSIDE),
    (-1e9, OUTSIDE),
    (2147483647.0, OUTSIDE),  # an int cast of these is undefined
    (2147483648.0, OUTSIDE),
    (-2147483648.0, OUTSIDE),
    (-2147483904.0, OUTSIDE),
    (HUGE, OUTSIDE),
    (-HUGE, OUTSIDE),
    (float("inf"), OUTSIDE),
    (float("-inf"), OUTSIDE),
    (float("nan"), OUTSIDE),
    (1e-45, 8),
    (-1e-45, 8),  # -4 + tiny rounds to the border at 0
]


@pytest.mark.parametrize(("value", "cell"), BY_HAND)
def test_borders_counted_by_hand(value: float, cell: int) -> None:
    assert cell_index(value, -4.0, 0.5, 16) == cell


def by_definition(value: float, low: float, cell: float, count: int) -> int:
    with np.errstate(all="ignore"):
        index = np.floor((np.float32(value) - np.float32(low)) / np.float32(cell))
    return int(index) if np.isfinite(index) and 0 <= index < count else OUTSIDE


@pytest.mark.parametrize(
    ("low", "cell", "count"),
    [(-51.2, 0.8, 128), (-25.6, 0.32, 160), (0.0, 0.64, 160), (-51.2, 0.1, 1024), (3.3, 0.7, 9)],
)
def test_every_border_and_its_neighbours_follow_the_float32_definition(low: float, cell: float, count: int) -> None:
    for i in range(-2, count + 3):
        border = float(np.float32(low + i * cell))
        for value in (border, ulp_up(border), ulp_down(border)):
            assert cell_index(value, low, cell, count) == by_definition(value, low, cell, count), (i, value)


@given(st.floats(width=32), st.floats(-100, 100, width=32), st.floats(0.0625, 8, width=32), st.integers(1, 4096))
@settings(derandomize=True, max_examples=300, deadline=None)
def test_any_float_follows_the_float32_definition(value: float, low: float, cell: float, count: int) -> None:
    assert cell_index(value, low, cell, count) == by_definition(value, low, cell, count)
