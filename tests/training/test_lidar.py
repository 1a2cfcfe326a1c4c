"""The LiDAR grid against NumPy."""

import numpy as np
import pytest

from imkd_edge.sources import open_source
from imkd_edge.training import lidar
from imkd_edge.training.config import load_config
from imkd_edge.training.targets import head_targets


@pytest.fixture(scope="module")
def spec():
    return load_config("astyx-lite").spec


GROUND = (0.0495, -0.0756, -1.602)


def points(*rows):
    return np.array(rows, np.float32)


def test_a_pillar_has_the_statistics_of_its_points(spec):
    a, b, c = GROUND
    ground = [a * 10.1 + b * 0.1 + c, a * 10.2 + b * 0.2 + c]
    cloud = points([10.1, 0.1, ground[0] + 1, 51], [10.2, 0.2, ground[1] + 0.5, 204])
    grid = lidar.LidarGrid.of(spec)(cloud, GROUND)
    column, row = int(10.1 // 0.32), int((0.1 + 25.6) // 0.32)
    assert np.argwhere(grid[0]).tolist() == [[row, column]]
    values = {name: float(lidar.channel(grid, name)[row, column]) for name in lidar.STATISTICS}
    assert values["log_count"] == pytest.approx(np.log(3), rel=1e-6)
    assert values["intensity_max"] == pytest.approx(0.8, rel=1e-6)
    assert values["intensity_mean"] == pytest.approx(0.5, rel=1e-6)
    assert [values[f"z_{k}"] for k in ("min", "mean", "max")] == pytest.approx([0.5, 0.75, 1.0], abs=1e-5)
    slices = grid[len(lidar.STATISTICS) :, row, column]
    assert np.flatnonzero(slices).tolist() == [1, 2]  # 0.3 to 0.8 and 0.8 to 1.3 m above the ground


def test_points_above_the_highest_slice_do_not_count(spec):
    above = GROUND[0] * 10 + GROUND[2] + lidar.SLICES[-1] + 0.1
    assert not lidar.LidarGrid.of(spec)(points([10, 0, above, 100]), GROUND).any()


def test_no_lidar_is_an_empty_grid(spec):
    grid = lidar.LidarGrid.of(spec)(None)
    assert grid.shape == (lidar.CHANNELS, spec.radar_height(), spec.radar_width()) and not grid.any()


def test_the_counts_of_a_real_frame_equal_those_of_a_histogram(spec, shared_data):
    source = open_source(shared_data / "astyx")
    sample = source["000240"]
    cloud, (a, b, c) = sample.lidar, sample.rig.ground_plane
    grid = lidar.LidarGrid.of(spec)(cloud, (a, b, c))
    near = cloud[cloud[:, 2] - (a * cloud[:, 0] + b * cloud[:, 1] + c) < lidar.SLICES[-1]]
    bounds = [[spec.grid.y_min, spec.grid.y_max], [spec.grid.x_min, spec.grid.x_max]]
    count, _, _ = np.histogram2d(near[:, 1], near[:, 0], bins=grid.shape[1:], range=bounds)
    ours = np.expm1(lidar.channel(grid, "log_count"))
    assert (count > 0).sum() > 1000
    assert np.abs(ours - count).sum() <= 2e-3 * count.sum()  # histogram2d rounds borders differently


def test_cells_of_objects_without_a_lidar_return_are_marked(spec, shared_data):
    sample = open_source(shared_data / "astyx")["000240"]
    targets = head_targets(spec, sample.truth, {"car": "car"})
    cars = [i for i, name in enumerate(sample.truth.labels) if name == "car"]
    assert {0, 1} <= set((sample.truth.lidar_points[cars] == 0).astype(int)), "the frame has no car of each kind"
    checked = 0
    for i in cars:
        x, y = sample.truth.boxes[i, :2]
        row, column = int((y - spec.grid.y_min) / spec.grid.cell), int((x - spec.grid.x_min) / spec.grid.cell)
        height, width = targets["label"].shape
        if 0 <= row < height and 0 <= column < width and targets["heatmap"][0, row, column] == 1:
            assert targets["unlit"][row, column] == (sample.truth.lidar_points[i] == 0)
            assert targets["label"][row, column] == 0
            checked += 1
    assert checked >= 2
