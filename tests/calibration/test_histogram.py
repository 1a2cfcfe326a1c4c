"""Histograms by channel with a growing range, and the calibrators on them, against NumPy on the values themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imkd_edge.calibration.histogram import BINS, FISHER, MOST, PER_OCTAVE, PLAIN, Histogram
from imkd_edge.calibration.solvers import METHODS, Method, error_at, errors, ranges, solve
from imkd_edge.errors import Error


def filled(*tensors: np.ndarray, gradients: list[np.ndarray] | None = None) -> Histogram:
    """tensors: (C, n) each."""
    histogram = Histogram(len(tensors[0]))
    for i, values in enumerate(tensors):
        gradient = None if gradients is None else gradients[i][None, :, :, None]
        histogram.add(values.astype(np.float32)[None, :, :, None], gradient)
    return histogram


def squared_error(values: np.ndarray, amax: float, levels: int = 127, weights: float | np.ndarray = 1.0) -> float:
    step = amax / levels
    return float((weights * (np.clip(np.rint(values / step), -levels, levels) * step - values) ** 2).sum())


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
    tensors = [random.normal(0, scale, (2, 300)).astype(np.float32) for scale in scales]
    histogram, size = filled(*tensors), np.abs(np.concatenate(tensors, 1)).astype(np.float64)
    assert np.array_equal(histogram.highest, size.max(1)) and histogram.counts[PLAIN].sum() == np.count_nonzero(size)
    for channel in range(2):
        expected = [(size[channel] <= edge).sum() for edge in histogram.edges()]
        assert np.abs(np.cumsum(histogram.counts[PLAIN, channel]) - expected).max() <= 2  # a value on an edge


def test_side_by_side_they_count_as_one_tensor_of_all_channels() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(0, 1, (2, 500)), random.normal(0, 40, (3, 500))
    b[0] = 0
    total, both = filled(a) + filled(b), filled(np.concatenate([a, b]))
    assert (total.top, total.largest, total.zeros, total.channels) == (both.top, both.largest, both.zeros, 5)
    assert np.array_equal(total.highest, both.highest)
    assert np.abs(np.cumsum(total.counts, 2) - np.cumsum(both.counts, 2)).max() <= 2


def test_squared_gradients_are_the_weights() -> None:
    values, gradient = np.array([[0.99, 3.99, 0.0]]), np.array([[3.0, -0.5, 7.0]])  # the top is 4
    histogram = filled(values, gradients=[gradient])
    weights = histogram.counts[FISHER, 0]
    assert weights.sum() == 9.25 and weights[BINS - 1 - 2 * PER_OCTAVE] == 9 and weights[BINS - 1] == 0.25
    assert histogram.zeros == 1


def test_a_sample_of_a_large_tensor_counts_for_all_of_it() -> None:
    values = np.random.default_rng(0).normal(0, 1, (1, 4, 3 * MOST // 4, 1)).astype(np.float32)
    values[0, 2] = 0
    values[0, 1, 0] = 50.0
    sampled, whole = Histogram(4), Histogram(4)
    sampled.add(values, sample=np.random.default_rng(1))
    whole.add(values)
    assert np.array_equal(sampled.highest, whole.highest)  # the largest value is never missed
    assert sampled.counts[PLAIN].sum() + sampled.zeros == pytest.approx(values.size)
    shares = [h.counts[PLAIN].sum(1) / values[0, 0].size for h in (sampled, whole)]
    assert np.allclose(*shares, atol=0.02) and sampled.power() == pytest.approx(whole.power(), rel=0.1)


def test_power_is_the_mean_square() -> None:
    values = np.random.default_rng(3).normal(0, [[1.0], [5.0]], (2, 20_000))
    values[:, ::2] = 0
    assert filled(values).power() == pytest.approx((values**2).mean(1), rel=0.02)


@pytest.mark.parametrize("bits", [8, 6])
def test_mse_finds_the_least_squared_error(bits: int) -> None:
    values, method = np.random.default_rng(1).standard_t(3, (1, 50_000)), Method("mse", bits)
    amax = solve(filled(values), method)
    best = min(squared_error(values, a, method.levels) for a in np.linspace(0.02, 1, 800) * np.abs(values).max())
    assert squared_error(values, amax, method.levels) <= 1.03 * best


def test_fisher_finds_the_least_weighted_error() -> None:
    """Small values matter a hundred times as much: the range is narrower than MSE's."""
    values = np.random.default_rng(2).standard_t(2, (2, 50_000))
    gradient = np.where(np.abs(values) < 3, 10.0, 1.0)
    histogram = filled(values, gradients=[gradient])
    fisher, mse = solve(histogram, Method(bits=6)), solve(histogram, Method("mse", 6))
    weigh = lambda a: squared_error(values, a, 31, gradient**2)  # noqa: E731
    assert weigh(fisher) <= 1.03 * min(map(weigh, np.linspace(0.01, 1, 1000) * np.abs(values).max()))
    assert fisher < 0.8 * mse


def test_the_table_holds_the_weighted_error_of_each_channel() -> None:
    random = np.random.default_rng(4)
    values, gradient = random.normal(0, [[1.0], [3.0]], (2, 20_000)), random.normal(0, 1, (2, 20_000))
    histogram = filled(values, gradients=[gradient])
    for k in (0, 40, 90):
        amax = ranges(histogram)[k]
        expected = [squared_error(values[c], amax, 127, gradient[c] ** 2) for c in range(2)]
        assert errors(histogram, 127)[:, k] == pytest.approx(expected, rel=0.1)
        assert error_at(histogram, 127, np.array([amax, amax])) == pytest.approx(errors(histogram, 127)[:, k])


def test_without_weights_fisher_is_mse() -> None:
    histogram = filled(np.random.default_rng(5).normal(0, 1, (3, 1000)))
    assert solve(histogram, Method()) == solve(histogram, Method("mse"))


@pytest.mark.parametrize("share", [99.0, 99.9, 99.99])
def test_percentile_counts_the_zeros(share: float) -> None:
    values = sparse_values()
    expected = np.percentile(np.abs(values), share)
    assert solve(filled(values[None]), Method("percentile", percentile=share)) == pytest.approx(expected, rel=0.03)


def test_max_is_the_largest_value() -> None:
    assert solve(filled(np.array([[0.1, -7.25, 3.0]])), Method("max")) == 7.25


@pytest.mark.parametrize("name", METHODS)
def test_every_method_on_one_value_and_on_none(name: str) -> None:
    assert solve(filled(np.zeros((2, 9))), Method(name)) == 0
    single = np.zeros((2, 9))
    single[0, 4] = 5.0
    assert 0 < solve(filled(single, gradients=[np.ones((2, 9))]), Method(name)) <= 5.0


@pytest.mark.parametrize("settings", [{"name": "entropy"}, {"bits": 2}, {"bits": 9}, {"percentile": 0.0}])
def test_an_unknown_method_or_setting_is_refused(settings: dict) -> None:
    with pytest.raises(Error) as error:
        Method(**settings)
    assert error.value.code == "E0104"
