"""Histograms with a growing range, and the calibrators on them, against plain NumPy on the values themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imkd_edge.calibration.histogram import ALL, BINS, GRADED, OCCUPIED, Histogram
from imkd_edge.calibration.solvers import METHODS, Method, solve
from imkd_edge.errors import Error


def filled(*tensors: np.ndarray, maps: np.ndarray | None = None) -> Histogram:
    histogram = Histogram(weighted=maps is not None)
    for values in tensors:
        histogram.add(values.astype(np.float32), maps)
    return histogram


def squared_error(values: np.ndarray, amax: float, levels: int = 127) -> float:
    step = amax / levels
    return float(((np.clip(np.rint(values / step), -levels, levels) * step - values) ** 2).sum())


def sparse_values(seed: int = 0) -> np.ndarray:
    """A tensor behind a radar stem: mostly zeros, a weak background, strong values at the returns (1 %)."""
    random = np.random.default_rng(seed)
    values = np.maximum(random.normal(-0.2, 1, 200_000), 0)
    hit = random.random(values.size) < 0.01
    values[hit] = random.lognormal(2.5, 0.7, hit.sum())
    return values


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6), st.integers(0, 100))
def test_a_growing_range_counts_like_a_fixed_one(scales: list[float], seed: int) -> None:
    random = np.random.default_rng(seed)
    tensors = [(random.normal(0, scale, 300)).astype(np.float32) for scale in scales]
    histogram = filled(*tensors)
    size = np.abs(np.concatenate(tensors))
    edges = np.linspace(0, histogram.top, BINS + 1)
    expected = np.histogram(size[size > 0], edges)[0]
    cumulated = np.cumsum(histogram.counts[ALL]) - np.cumsum(expected)
    assert histogram.largest == size.max() and histogram.counts[ALL].sum() == np.count_nonzero(size)
    assert np.abs(cumulated).max() <= 1  # a value on an edge may be in either bin


def test_the_sum_of_two_histograms_is_that_of_both_values() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(0, 1, 5000), np.concatenate([np.zeros(100), random.normal(0, 40, 5000)])
    total, both = filled(a) + filled(b), filled(b, a)
    assert (total.top, total.largest, total.zeros) == (both.top, both.largest, both.zeros)
    assert np.abs(np.cumsum(total.counts[ALL]) - np.cumsum(both.counts[ALL])).max() <= 2
    empty = filled(a) + filled(np.zeros(10))
    assert empty.zeros == 10 and np.array_equal(empty.counts, filled(a).counts)


def test_weighted_rows_count_by_cell() -> None:
    values = np.zeros((1, 2, 2, 2))
    values[0, :, 0, 0], values[0, :, 1, 1] = 1.0, 4.0
    maps = np.zeros((4, 2, 2), np.float32)
    maps[0, 0, 0], maps[1, 1, 1] = 1, 0.5
    histogram = filled(values, maps=maps)
    assert histogram.counts[ALL].sum() == 4 and histogram.zeros == 4
    occupied, graded = histogram.counts[OCCUPIED], histogram.counts[GRADED]
    assert occupied.sum() == 2 and occupied[: BINS // 2].sum() == 2  # the ones
    assert graded.sum() == 1 and graded[BINS // 2 :].sum() == 1  # the fours, half each


def test_mse_finds_the_least_squared_error() -> None:
    values = np.random.default_rng(1).standard_t(3, 50_000)
    amax = solve(filled(values), Method("mse"))
    best = min(squared_error(values, a) for a in np.linspace(0.05, 1, 400) * np.abs(values).max())
    assert squared_error(values, amax) <= 1.03 * best


@pytest.mark.parametrize("share", [99.0, 99.9, 99.99])
def test_percentile_counts_the_zeros(share: float) -> None:
    values = sparse_values()
    histogram = filled(values)
    assert solve(histogram, Method("percentile", percentile=share)) == pytest.approx(
        np.percentile(np.abs(values), share), abs=3 * histogram.top / BINS
    )


def test_max_is_the_largest_value() -> None:
    assert solve(filled(np.array([0.1, -7.25, 3.0])), Method("max")) == 7.25


def test_entropy_is_worse_than_mse_on_a_sparse_radar_feature() -> None:
    """Nearly all values are zero: entropy fits their bin and clips the returns."""
    values = sparse_values()
    histogram = filled(values)
    entropy, mse = solve(histogram, Method("entropy")), solve(histogram, Method("mse"))
    assert entropy < 0.5 * mse
    assert squared_error(values, entropy) > 10 * squared_error(values, mse)


def test_a_background_does_not_decide_the_range_of_occupied_cells() -> None:
    """Many small values in empty cells, few large ones in occupied cells: MSE clips the latter, occupancy does not."""
    random = np.random.default_rng(2)
    values = random.uniform(0, 1, (1, 4, 100, 100))
    occupied = np.zeros((100, 100), np.float32)
    occupied[::25, ::25] = 1
    values[:, :, occupied > 0] = random.uniform(2, 8, (1, 4, 16))
    maps = np.stack([occupied, occupied, occupied, occupied])
    histogram = filled(values, maps=maps)
    assert solve(histogram, Method("occupancy", bits=4)) > 1.5 * solve(histogram, Method("mse", bits=4))


def test_what_occupied_cells_hold_is_not_clipped() -> None:
    values = np.full((1, 1, 10, 10), 1.0)
    values[0, 0, 0, 0] = 60.0
    occupied = np.zeros((4, 10, 10), np.float32)
    occupied[:, 0, :2] = 1
    histogram = filled(values, maps=occupied)
    assert solve(histogram, Method("riac", bits=3)) >= 60.0


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_method_on_one_value_and_on_none(name: str, weighted: bool) -> None:
    maps = np.ones((4, 3, 3), np.float32) if weighted else None
    assert solve(filled(np.zeros((1, 2, 3, 3)), maps=maps), Method(name)) == 0
    single = np.zeros((1, 2, 3, 3))
    single[0, 0, 1, 1] = 5.0
    amax = solve(filled(single, maps=maps), Method(name))
    assert 0 < amax <= 5.0


@pytest.mark.parametrize("settings", [{"name": "mean"}, {"bits": 2}, {"bits": 9}, {"kappa": 1.5}, {"percentile": 0.0}])
def test_an_unknown_method_or_setting_is_refused(settings: dict) -> None:
    with pytest.raises(Error) as error:
        Method(**settings)
    assert error.value.code == "E0104"
