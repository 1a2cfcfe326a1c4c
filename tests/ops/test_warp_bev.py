"""warp_bev against torch's grid_sample in float64; exact for motion by whole cells or quarter turns."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import rotation, shift

from imkd_edge import ops
from imkd_edge.spec import GridSpec

# largest change of an interpolated value, per unit of difference between neighbours: half a step along each axis
ROUNDING = 2 * 0.5 / 1024
GRIDS = {
    "square": GridSpec(x_min=-16, x_max=16, y_min=-16, y_max=16, cell=1.0),
    "wide": GridSpec(x_min=-16, x_max=16, y_min=-12, y_max=12, cell=1.0),
    "ahead": GridSpec(x_min=0, x_max=102.4, y_min=-25.6, y_max=25.6, cell=0.8),
    "odd": GridSpec(x_min=-10.5, x_max=11.9, y_min=-7.7, y_max=9.1, cell=0.7),
    "one row": GridSpec(x_min=-8, x_max=8, y_min=-1, y_max=0, cell=1.0),
}


def random_map(grid: GridSpec, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (channels, grid.height(), grid.width())).astype(np.float32)


def reference(grid: GridSpec, features: np.ndarray, T_then_now: np.ndarray) -> np.ndarray:
    """grid_sample in float64; its coordinates run from -1 to 1 over the map, border to border."""
    x = grid.x_min + (np.arange(grid.width()) + 0.5) * grid.cell
    y = grid.y_min + (np.arange(grid.height()) + 0.5) * grid.cell
    now = np.stack(
        [*np.broadcast_arrays(x[None, :], y[:, None]), *np.broadcast_arrays(0.0, np.ones((len(y), len(x))))], -1
    )
    then = now @ T_then_now.T
    u = 2 * (then[..., 0] - grid.x_min) / (grid.x_max - grid.x_min) - 1
    v = 2 * (then[..., 1] - grid.y_min) / (grid.y_max - grid.y_min) - 1
    positions = torch.from_numpy(np.stack([u, v], -1))[None]
    sampled = torch.nn.functional.grid_sample(
        torch.from_numpy(features).double()[None], positions, padding_mode="zeros", align_corners=False
    )
    return sampled[0].numpy()


@given(
    st.sampled_from(sorted(GRIDS)), st.integers(0, 10**6), st.floats(-np.pi, np.pi), st.floats(-9, 9), st.floats(-9, 9)
)
@settings(derandomize=True, max_examples=150, deadline=None)
def test_it_samples_where_the_cells_were(name: str, seed: int, yaw: float, x: float, y: float) -> None:
    grid, T = GRIDS[name], shift(x, y) @ rotation(yaw)
    features = random_map(grid, seed)
    result = ops.warp_bev(grid, features, T)
    assert result.dtype == np.float32 and result.shape == features.shape
    assert np.abs(result - reference(grid, features, T)).max() <= 2 * ROUNDING + 1e-6  # neighbours differ by at most 2


def test_only_the_planar_part_of_the_pose_counts() -> None:
    grid, T = GRIDS["wide"], shift(3.3, -1.7, 25.0) @ rotation(0.3, 0.02, -0.05)
    features = random_map(grid)
    assert np.abs(ops.warp_bev(grid, features, T) - reference(grid, features, T)).max() <= 2 * ROUNDING + 1e-6


@pytest.mark.parametrize("name", GRIDS)
def test_standing_still_changes_nothing(name: str) -> None:
    features = random_map(GRIDS[name])
    assert np.array_equal(ops.warp_bev(GRIDS[name], features, np.eye(4)), features)


def moved(features: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Row r, column c of the result is row r + rows, column c + columns of the map; 0 beyond it."""
    _, height, width = features.shape
    padded = np.pad(features, ((0, 0), (height, height), (width, width)))
    return padded[:, height + rows : 2 * height + rows, width + columns : 2 * width + columns]


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize(("rows", "columns"), [(0, 1), (1, 0), (-2, 5), (7, -3), (0, -15), (-11, -1)])
def test_whole_cells_are_exact(name: str, rows: int, columns: int) -> None:
    """Driving forward, along x, moves columns; sideways, along y, rows. Beyond the map it is 0."""
    grid = GRIDS[name]
    rows = max(-grid.height(), min(grid.height(), rows))
    features = random_map(grid)
    result = ops.warp_bev(grid, features, shift(columns * grid.cell, rows * grid.cell))
    assert np.array_equal(result, moved(features, rows, columns))


def test_an_object_ahead_comes_nearer_as_the_ego_drives_towards_it() -> None:
    """Astyx' grid, hand-computed: 20 m ahead and 4 m to the left, then 8 m driven and a quarter turn to the left."""
    grid = GRIDS["ahead"]
    features = np.zeros((1, 64, 128), np.float32)
    features[0, 37, 25] = 1  # y = -25.6 + 37.5 * 0.8 = 4.4, x = 25.5 * 0.8 = 20.4
    assert np.argwhere(ops.warp_bev(grid, features, shift(8))[0]).tolist() == [[37, 15]]
    # then ahead is now to the right: (4.4, -12.4)
    rotated = ops.warp_bev(grid, features, shift(8, 0) @ rotation(np.pi / 2))
    assert np.argwhere(rotated[0]).tolist() == [[16, 5]]


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_exact_on_a_square_grid(quarters: int) -> None:
    grid = GRIDS["square"]
    features = random_map(grid)
    result = ops.warp_bev(grid, features, rotation(quarters * np.pi / 2))
    # rotated to the left, the world turns to the right
    assert np.array_equal(result, np.rot90(features, quarters, (1, 2)))
    both = ops.warp_bev(grid, features, shift(4, -3) @ rotation(quarters * np.pi / 2))
    assert np.array_equal(both, np.rot90(moved(features, -3, 4), quarters, (1, 2)))


def test_half_a_cell_is_the_mean_of_two() -> None:
    grid = GRIDS["wide"]
    features = random_map(grid)
    result = ops.warp_bev(grid, features, shift(0.5, 0))
    assert np.array_equal(
        result[:, :, :-1], features[:, :, :-1] * np.float32(0.5) + features[:, :, 1:] * np.float32(0.5)
    )
    assert np.array_equal(result[:, :, -1], features[:, :, -1] * np.float32(0.5))  # beside the map there is 0


@pytest.mark.parametrize("worst", [np.nan, np.inf, -np.inf])
def test_a_neighbour_without_weight_is_not_read(worst: float) -> None:
    grid = GRIDS["wide"]
    features = random_map(grid)
    features[:, 11, 17] = worst
    for T, touched in ((np.eye(4), 1), (shift(2, -3), 1), (shift(0.5, 0), 2), (shift(0.25, 0.5), 4)):
        result = ops.warp_bev(grid, features, T)
        assert (~np.isfinite(result)).sum(axis=(1, 2)).tolist() == [touched] * 3


@pytest.mark.parametrize("far", [40, 1e4, 1e7, 1e12, 1e300])
def test_far_away_nothing_is_left(far: float) -> None:
    for T in (shift(far, 0), shift(0, -far), shift(-far, far) @ rotation(1.0)):
        assert not ops.warp_bev(GRIDS["square"], random_map(GRIDS["square"]), T).any()


def test_every_channel_is_warped_alike() -> None:
    grid, T = GRIDS["odd"], shift(1.1, 0.4) @ rotation(-0.4)
    features = random_map(grid, channels=17)
    result = ops.warp_bev(grid, features, T)
    assert all(np.array_equal(result[c : c + 1], ops.warp_bev(grid, features[c : c + 1], T)) for c in range(17))
    assert ops.warp_bev(grid, features[:0], T).shape == (0, grid.height(), grid.width())
