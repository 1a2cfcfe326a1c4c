"""Frustum points -> bird's-eye view: the table of the geometry, and the sum."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import DISTORTIONS, FORWARD, normalised, random_rig, rotation, shift, small_spec

from imkd_edge.ops import ImageCrop, image_crop, lift, lift_table
from imkd_edge.rig import CameraCalibration, SensorRig
from imkd_edge.spec import DepthSpec, GridSpec, ImageSpec, ModelSpec, RadarFeature, RadarSpec


def depth_centres(depth: DepthSpec) -> np.ndarray:
    i = np.arange(depth.bins) + 0.5
    if depth.spacing == "linear":
        return depth.min + i * (depth.max - depth.min) / depth.bins
    return np.exp(np.log(depth.min) + i / depth.bins * np.log(depth.max / depth.min))


def frustum(spec: ModelSpec, rig: SensorRig, crops: list[ImageCrop]) -> np.ndarray:
    """(N, D, h, w, 3) float64 points in the ego frame."""
    h, w, s = spec.image.feature_height(), spec.image.feature_width(), spec.image.stride
    depth = depth_centres(spec.depth)[:, None, None, None]
    points = []
    for camera, crop in zip(rig.cameras, crops, strict=True):
        v, u = np.meshgrid((np.arange(h) + 0.5) * s - 0.5, (np.arange(w) + 0.5) * s - 0.5, indexing="ij")
        ray = normalised(camera, (u + 0.5 + crop.left) / crop.scale - 0.5, (v + 0.5 + crop.top) / crop.scale - 0.5)
        local = np.concatenate([ray, np.ones((h, w, 1))], -1)[None] * depth
        points.append(local @ camera.T_ego_camera[:3, :3].T + camera.T_ego_camera[:3, 3])
    return np.stack(points)


def cells_of(spec: ModelSpec, points: np.ndarray, ground: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Cell of each point (-1 outside) and its distance in m to the nearest border."""
    grid = spec.grid
    x, y, z = np.moveaxis(points, -1, 0)
    above = z - (ground[0] * x + ground[1] * y + ground[2])
    column, row = (x - grid.x_min) / grid.cell, (y - grid.y_min) / grid.cell
    inside = (above >= grid.z_min) & (above < grid.z_max)
    inside &= (column >= 0) & (column < grid.width()) & (row >= 0) & (row < grid.height())
    margin = np.minimum.reduce(
        [np.abs(q - np.round(q)) * grid.cell for q in (column, row)]
        + [np.abs(above - b) for b in (grid.z_min, grid.z_max)]
    )
    return np.where(inside, np.floor(row) * grid.width() + np.floor(column), -1).astype(int), margin


def expand(spec: ModelSpec, table) -> np.ndarray:
    """Cell of each frustum point according to the table, flat."""
    count = spec.cameras * spec.depth.bins * spec.image.feature_height() * spec.image.feature_width()
    cells = np.full(count, -1)
    cells[table.points] = np.repeat(table.cells, np.diff(table.starts))
    return cells


def crops_of(spec: ModelSpec, rig: SensorRig) -> list[ImageCrop]:
    return [image_crop(spec.image, camera.width, camera.height) for camera in rig.cameras]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_each_frustum_point_lies_in_its_cell(seed: int, distortion: str) -> None:
    spec = small_spec(
        depth=DepthSpec(min=1.5, max=25, bins=16, spacing="log" if seed % 2 else "linear"),
        image=ImageSpec(width=96, height=64, stride=8, anchor=seed / 11),
    )
    rig = random_rig(seed, distortion=distortion)
    rig.ground_plane = (0.02, -0.01, 0.1 * seed - 0.5)
    crops = crops_of(spec, rig)
    expected, margin = cells_of(spec, frustum(spec, rig, crops), rig.ground_plane)
    result = expand(spec, lift_table(spec, rig, crops)).reshape(expected.shape)
    clear = margin > 1e-4
    assert clear.mean() > 0.99 and (expected >= 0).mean() > 0.02
    assert (result == expected)[clear].all()


@pytest.mark.parametrize("seed", range(4))
def test_the_table_is_sorted_by_cell_then_by_point(seed: int) -> None:
    spec, rig = small_spec(), random_rig(seed)
    table = lift_table(spec, rig)
    assert (np.diff(table.cells) > 0).all() and (np.diff(table.starts) > 0).all()
    assert table.starts[0] == 0 and table.starts[-1] == len(table.points) == len(table.pixels)
    for begin, end in zip(table.starts[:-1], table.starts[1:], strict=True):
        assert (np.diff(table.points[begin:end]) > 0).all()
    n, _, v, u = np.unravel_index(table.points, (2, 24, 8, 12))
    assert (table.pixels == (n * 8 + v) * 12 + u).all()


def test_a_point_seen_straight_ahead_is_where_it_should_be() -> None:
    """One camera at (0, 0, 1.5) looking along x, one feature pixel, bins of 1 m centred at 1.5, 2.5, ... m."""
    spec = small_spec(cameras=1, image=ImageSpec(width=8, height=8, stride=8), depth=DepthSpec(min=1, max=5, bins=4))
    camera = CameraCalibration(
        name="c", width=8, height=8, K=[[10, 0, 3.5], [0, 10, 3.5], [0, 0, 1]], T_ego_camera=shift(z=1.5) @ FORWARD
    )
    table = lift_table(spec, SensorRig(cameras=[camera]))
    row = 12  # y = 0 is the lower border of row 12 of [-12, 12)
    assert table.cells.tolist() == [row * 32 + 16 + d for d in (1, 2, 3, 4)]  # x = 1.5 ... 4.5 in [-16, 16)
    assert table.points.tolist() == [0, 1, 2, 3] and table.pixels.tolist() == [0, 0, 0, 0]


def test_pixels_beyond_the_lens_model_have_no_points() -> None:
    spec = small_spec(cameras=1)
    camera = random_rig(0, cameras=1).cameras[0]
    camera.distortion, camera.coefficients = "plumb_bob", (-2.5, 0, 0, 0, 0)  # folds at a radius of 0.37
    table = lift_table(spec, SensorRig(cameras=[camera]))
    image = [image_crop(spec.image, camera.width, camera.height)]
    _, _, v, u = np.unravel_index(table.points, (1, 24, 8, 12))
    raw = ((u + 0.5) * 8 + image[0].left) / image[0].scale - 0.5, ((v + 0.5) * 8 + image[0].top) / image[0].scale - 0.5
    radius = np.hypot((raw[0] - camera.K[0, 2]) / camera.K[0, 0], (raw[1] - camera.K[1, 2]) / camera.K[1, 1])
    assert len(table.points) > 0 and radius.max() < 0.26  # the fold's distorted radius is 2/3 * 0.365 = 0.243


def random_tensors(spec: ModelSpec, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    n, h, w = spec.cameras, spec.image.feature_height(), spec.image.feature_width()
    depth = rng.dirichlet(np.ones(spec.depth.bins), (n, h, w)).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(depth, np.float32), rng.standard_normal((n, spec.context_channels, h, w)).astype(
        np.float32
    )


def lift_reference(spec: ModelSpec, table, depth: np.ndarray, context: np.ndarray) -> np.ndarray:
    """float64 scatter-add by torch."""
    cells = torch.from_numpy(expand(spec, table)).reshape(depth.shape)
    # (N, D, C, h, w)
    weighted = torch.from_numpy(context).double()[:, None] * torch.from_numpy(depth).double()[:, :, None]
    values = torch.cat([weighted, torch.from_numpy(depth).double()[:, :, None]], 2).permute(0, 1, 3, 4, 2)
    out = torch.zeros(spec.grid.height() * spec.grid.width(), spec.context_channels + 1, dtype=torch.float64)
    inside = cells >= 0
    out.index_add_(0, cells[inside], values[inside])
    return out.T.reshape(-1, spec.grid.height(), spec.grid.width()).numpy()


GRIDS = {
    "small": GridSpec(x_min=-16, x_max=16, y_min=-12, y_max=12, z_min=-3, z_max=4, cell=1.0),
    "odd": GridSpec(x_min=-10.5, x_max=11.9, y_min=-7.7, y_max=9.1, z_min=-3, z_max=4, cell=0.7),
    "one row": GridSpec(x_min=-8, x_max=8, y_min=-1, y_max=0, z_min=-3, z_max=4, cell=1.0),
}


def one_feature(cell: float) -> RadarSpec:
    return RadarSpec(cell=cell, features=[RadarFeature(statistic="log_count")])


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("channels", [1, 2, 3, 16, 64, 80, 127, 128, 129, 200, 256, 300])
def test_the_sum_equals_a_scatter_add(channels: int, grid: str) -> None:
    spec = small_spec(context_channels=channels, grid=GRIDS[grid], radar=one_feature(GRIDS[grid].cell))
    rig = random_rig(channels)
    table = lift_table(spec, rig)
    depth, context = random_tensors(spec, channels)
    assert np.abs(lift(spec, table, depth, context) - lift_reference(spec, table, depth, context)).max() < 1e-5


def test_cells_without_points_are_zero_even_in_reused_memory() -> None:
    spec, rig = small_spec(), random_rig(1)
    table = lift_table(spec, rig)
    depth, context = random_tensors(spec, 1)
    for _ in range(20):
        out = lift(spec, table, depth, context)
        empty = np.ones(out[0].size, bool)
        empty[table.cells] = False
        assert not out.reshape(len(out), -1)[:, empty].any()
        out[:] = np.nan


def test_the_last_channel_is_the_depth_alone_and_sums_to_the_points_inside() -> None:
    spec, rig = small_spec(), random_rig(2)
    table = lift_table(spec, rig)
    depth, context = random_tensors(spec, 2)
    assert lift(spec, table, depth, context)[-1].sum() == pytest.approx(
        depth.reshape(-1)[table.points].sum(dtype=float), rel=1e-5
    )


@given(st.integers(0, 10**6), st.integers(-6, 6), st.integers(-5, 5))
@settings(derandomize=True, max_examples=25, deadline=None)
def test_moving_the_rig_by_whole_cells_moves_the_grid(seed: int, dx: int, dy: int) -> None:
    spec, rig = small_spec(), random_rig(seed)
    moved = random_rig(seed)
    for camera in moved.cameras:
        camera.T_ego_camera = shift(dx, dy) @ camera.T_ego_camera
    depth, context = random_tensors(spec, seed)
    before, after = (lift(spec, lift_table(spec, r), depth, context) for r in (rig, moved))
    rows, columns = np.arange(24), np.arange(32)
    inside = np.ix_(
        range(6), rows[(rows + dy >= 0) & (rows + dy < 24)], columns[(columns + dx >= 0) & (columns + dx < 32)]
    )
    shifted = np.roll(before, (dy, dx), (1, 2))
    target = np.ix_(range(6), np.unique(inside[1]) + dy, np.unique(inside[2]) + dx)
    different = np.abs(shifted[target] - after[target]).max(axis=0) > 1e-6
    assert different.mean() < 0.01  # a point within rounding of a border may change its cell


@given(st.integers(0, 10**6), st.integers(1, 3))
@settings(derandomize=True, max_examples=25, deadline=None)
def test_turning_the_rig_by_quarters_turns_the_grid(seed: int, quarters: int) -> None:
    square = GridSpec(x_min=-16, x_max=16, y_min=-16, y_max=16, z_min=-3, z_max=4, cell=1.0)
    spec, rig, rotated = small_spec(grid=square), random_rig(seed), random_rig(seed)
    turn = np.round(rotation(quarters * np.pi / 2))
    for camera in rotated.cameras:
        camera.T_ego_camera = turn @ camera.T_ego_camera
    depth, context = random_tensors(spec, seed)
    before, after = (lift(spec, lift_table(spec, r), depth, context) for r in (rig, rotated))
    # x to columns, y to rows: a turn from x to y runs the other way in the array
    expected = np.rot90(before, -quarters, (1, 2))
    assert (np.abs(expected - after).max(axis=0) > 1e-5).mean() < 0.01


@given(st.integers(0, 10**6))
@settings(derandomize=True, max_examples=15, deadline=None)
def test_the_sum_is_linear_in_the_context(seed: int) -> None:
    spec, rig = small_spec(), random_rig(seed)
    table = lift_table(spec, rig)
    depth, a = random_tensors(spec, seed)
    _, b = random_tensors(spec, seed + 1)
    both = lift(spec, table, depth, (2 * a + b).astype(np.float32))
    assert np.abs(both - (2 * lift(spec, table, depth, a) + lift(spec, table, depth, b)))[:-1].max() < 1e-4
