"""Weight maps: ranks of intensity in occupied cells, resampled to a layer's grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import random_spec
from imkd_edge.calibration.weights import EMPTY, radar_maps, ranks, resample


def test_ranks_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).integers(0, 5, 40).astype(float)
    assert np.allclose(ranks(values), (stats.rankdata(values) - 1) / 39)
    assert ranks(np.array([3.0])).tolist() == [1.0]


def test_stronger_cells_weigh_more_and_empty_ones_little() -> None:
    spec = random_spec()
    grid = np.zeros((1, 5, 4, 4), np.float32)
    grid[0, 0, 0, :3] = 1  # log_count
    grid[0, 1, 0, :3] = [-0.2, 0.7, 0.3]  # intensity_max: also below 0
    occupied, graded = radar_maps(grid, spec)
    assert occupied[0].tolist() == [1, 1, 1, 0] and not occupied[1:].any()
    assert graded[0].tolist() == [0, 1, 0.5, 0]


def test_a_frame_without_returns_weighs_the_same_everywhere() -> None:
    occupied, graded = radar_maps(np.zeros((1, 5, 4, 4), np.float32), random_spec())
    assert np.allclose(EMPTY + occupied + 0.7 * graded, 1)


@given(st.integers(0, 3), st.sampled_from([(8, 12), (4, 6), (2, 3), (1, 1)]), st.integers(0, 50))
def test_resampling_takes_the_largest_weight_in_reach(radius: int, shape: tuple[int, int], seed: int) -> None:
    maps = np.random.default_rng(seed).random((2, 8, 12)).astype(np.float32) * (
        np.random.default_rng(seed + 1).random((8, 12)) < 0.2
    )
    weights, step = resample(maps, *shape, radius), 8 // shape[0]
    across = 12 // shape[1]
    for i in range(shape[0]):
        for j in range(shape[1]):
            rows = slice(max(0, i - radius) * step, (i + radius + 1) * step)
            columns = slice(max(0, j - radius) * across, (j + radius + 1) * across)
            assert np.array_equal(weights[:, i, j], maps[:, rows, columns].max((1, 2)))


@given(st.floats(0, 1), st.integers(0, 50))
def test_the_maximum_is_linear_in_kappa(kappa: float, seed: int) -> None:
    """Pooling W is W of the pooled maps, so that one pass serves every kappa."""
    random = np.random.default_rng(seed)
    occupied = (random.random((8, 8)) < 0.3).astype(np.float32)
    graded = occupied * random.random((8, 8)).astype(np.float32)
    whole = resample((occupied * (1 + kappa * graded))[None], 4, 4, 1)[0]
    parts = resample(np.stack([occupied, graded]), 4, 4, 1)
    assert np.allclose(whole, parts[0] + kappa * parts[1], atol=1e-6)


def test_a_grid_that_does_not_divide_weighs_the_same_everywhere() -> None:
    occupied, graded = resample(np.ones((2, 8, 8), np.float32), 3, 3, 1)
    assert np.allclose(EMPTY + occupied + graded, 1)
