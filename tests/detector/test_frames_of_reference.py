"""A whole drive in another ego frame, or in another world: the networks read the same, and boxes move with the frame.

A tilt by an angle t about a horizontal axis through the ego frame's origin, of the rig with its ground plane, moves a
point at a height h above the plane and at a distance r from the axis by |h| sin t + r (1 - cos t) at most, as seen in
the grid: its ground point shrinks towards the axis by the cosine, and what stands on it leans by the sine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from drives import moving_drive
from scipy.ndimage import maximum_filter, uniform_filter
from scipy.spatial.transform import Rotation

from imkd_edge import Detector, ModelSpec, ops
from imkd_edge.frames import Ego
from imkd_edge.result import Result
from imkd_edge.sources.base import Sample
from imkd_edge.sources.plane import heights_above
from imkd_edge.sources.remount import lift, remount, remount_boxes, tilt

ANGLE = np.radians(2)
TILTS = {"rolled": tilt(2, 0), "pitched": tilt(2, 90), "tilted": lift(0.2) @ tilt(2, 45), "back": tilt(-2, 45)}
EXACT = 1e-9  # m, of double precision at the coordinates of a map: 2e6 m have a spacing of 2.3e-10 m
LAST_PLACE = 1e-6  # of float32, of inputs up to 8


@dataclass(frozen=True)
class Frame:
    sample: Sample
    result: Result
    tensors: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def drive() -> list[Sample]:
    return moving_drive(5)


@pytest.fixture(scope="module")
def detector(drive: list[Sample]):
    with Detector("tiny-t4", drive[0].rig, device="cpu", threads=2) as detector:
        yield detector


def replay(detector: Detector, samples: list[Sample]) -> list[Frame]:
    detector.reset()
    frames = []
    for sample in samples:
        result = detector.infer_sample(sample)
        frames.append(Frame(sample, result, detector.tensors()))
    assert [frame.result.health.past_frames for frame in frames] == [0, 1, 2, 3, 3]
    return frames


@pytest.fixture(scope="module")
def plain(detector: Detector, drive: list[Sample]) -> list[Frame]:
    return replay(detector, drive)


# ---- lifted ----
@pytest.mark.parametrize("height", [0.25, -1.5])  # multiples of 2^-10 m: the heights of the rig stay exact
def test_a_lift_of_the_ego_frame_changes_no_bit_of_any_tensor(detector: Detector, plain: list[Frame], height: float):
    T = lift(height)
    for before, after in zip(plain, replay(detector, [remount(frame.sample, T) for frame in plain]), strict=True):
        for name, tensor in before.tensors.items():
            assert tensor.tobytes() == after.tensors[name].tobytes(), name
        expected = before.result.boxes - np.array([0, 0, height] + 6 * [0], np.float32)
        np.testing.assert_allclose(after.result.boxes, expected, atol=LAST_PLACE)


def test_a_lift_that_rounds_changes_the_last_place_at_most(detector: Detector, plain: list[Frame]) -> None:
    for before, after in zip(plain, replay(detector, [remount(frame.sample, lift(0.2)) for frame in plain])):
        for name in ("images", "camera_bev", "history"):
            assert before.tensors[name].tobytes() == after.tensors[name].tobytes(), name
        np.testing.assert_allclose(after.tensors["radar_grid"], before.tensors["radar_grid"], rtol=0, atol=LAST_PLACE)


# ---- in another world ----
def in_world(sample: Sample, T_new_old: np.ndarray) -> Sample:
    def move(T: np.ndarray | None) -> np.ndarray | None:
        return None if T is None else T_new_old @ np.asarray(T)

    radar = [replace(sweep, T_world_ego=move(sweep.T_world_ego)) for sweep in sample.radar]
    poses = {name: move(T) for name, T in sample.camera_T_world_ego.items()}
    ego = Ego(move(sample.ego.T_world_ego), sample.ego.twist)
    return replace(sample, ego=ego, radar=radar, camera_T_world_ego=poses)


def world(rotation: Rotation, *origin: float) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation.as_matrix(), origin
    return T


WORLDS = {
    "turned": world(Rotation.from_euler("z", 137.3, degrees=True), 0, 0, 0),
    "of a map": world(Rotation.from_euler("z", -71, degrees=True), 1e6, -2e6, 500),  # as of UTM
    "upside down": world(Rotation.from_euler("x", 180, degrees=True), 3, 2, 1),
    "any": world(Rotation.random(random_state=3), -1e6, 1e6, 1e6),
}


@pytest.mark.parametrize("name", WORLDS)
def test_the_world_of_the_poses_is_of_no_concern(detector: Detector, plain: list[Frame], name: str) -> None:
    """Motions differ by EXACT: no point changes its cell, and radar features change in their last place."""
    moved = [in_world(frame.sample, WORLDS[name]) for frame in plain]
    for before, after in zip(plain, moved):
        motions = before.sample.motion(), after.motion()
        for time in (*after.camera_timestamps_ns.values(), *(sweep.timestamp_ns for sweep in after.radar)):
            np.testing.assert_allclose(*(motion.T_ref_at(time) for motion in motions), rtol=0, atol=EXACT)
    for before, after in zip(plain, replay(detector, moved), strict=True):
        for key in ("images", "camera_bev"):
            assert before.tensors[key].tobytes() == after.tensors[key].tobytes(), key
        np.testing.assert_allclose(after.tensors["radar_grid"], before.tensors["radar_grid"], rtol=0, atol=LAST_PLACE)
        np.testing.assert_allclose(after.tensors["history"], before.tensors["history"], rtol=0, atol=1e-4)
        np.testing.assert_allclose(after.result.boxes, before.result.boxes, rtol=0, atol=1e-4)
        assert after.result.names == before.result.names


# ---- tilted ----
def frustum_points(spec: ModelSpec, sample: Sample) -> np.ndarray:
    """(N, D, h, w, 3) m: the points of the lift in the reference ego frame, from the cameras' exact poses."""
    cameras = sample.motion(spec.radar.max_age).exposure_rig(sample.rig).cameras
    depths = np.array([spec.depth.edge(bin + 0.5) for bin in range(spec.depth.bins)])
    points = []
    for camera in cameras:
        rays = ops.image_rays(spec.image, camera)
        T = np.asarray(camera.T_ego_camera)
        points.append(depths[:, None, None, None] * (rays @ T[:3, :3].T) + T[:3, 3])
    return np.stack(points)


def cells_of(spec: ModelSpec, sample: Sample) -> np.ndarray:
    """(N * D * h * w, 2) row and column of every frustum point in the lift's table; -99 outside."""
    table = ops.lift_table(spec, sample.motion(spec.radar.max_age).exposure_rig(sample.rig, spec.grid))
    count = spec.cameras * spec.depth.bins * spec.image.feature_height() * spec.image.feature_width()
    cells = np.full((count, 2), -99)
    cells[table.points] = np.column_stack(np.divmod(np.repeat(table.cells, np.diff(table.starts)), spec.grid.width()))
    return cells


def drift(height: float, reach: float) -> float:
    """m, by which a tilt moves a point, see above."""
    return height * np.sin(ANGLE) + reach * (1 - np.cos(ANGLE))


@pytest.mark.parametrize("name", TILTS)
def test_a_tilt_moves_no_frustum_point_by_more_than_one_cell(detector: Detector, drive: list[Sample], name: str):
    """By 0.22 m of the tilt and twice an eighth of a cell of rounded exposures; beyond it only at the grid's edges."""
    spec, grid = detector.spec, detector.spec.grid
    tallest = max(grid.z_max, -grid.z_min)
    bound = drift(tallest, np.hypot(grid.x_max, grid.y_max)) + 2 * grid.cell / 8
    assert bound < 0.6 * grid.cell
    for sample in drive[1:3]:
        before, after = cells_of(spec, sample), cells_of(spec, remount(sample, TILTS[name]))
        inside = (before >= 0).all(1), (after >= 0).all(1)
        both = inside[0] & inside[1]
        assert both.sum() > 10_000 and np.abs(before - after)[both].max() <= 1
        x, y, z = frustum_points(spec, sample).reshape(-1, 3)[inside[0] ^ inside[1]].T
        edges = (x, grid.x_min), (x, grid.x_max), (y, grid.y_min), (y, grid.y_max), (z, grid.z_min), (z, grid.z_max)
        assert np.min([np.abs(value - edge) for value, edge in edges], axis=0).max() < bound


def near_ground(sample: Sample) -> Sample:
    """Without radar points farther than 1.5 m from the ground, which a tilt moves farther."""

    def near(points: np.ndarray, T: np.ndarray) -> np.ndarray:
        ground = points[:, :3].astype(float) @ T[:3, :3].T + T[:3, 3]
        return points[np.abs(heights_above((0, 0, 0), ground)) < 1.5]

    mounts = {radar.name: np.asarray(radar.T_ego_radar) for radar in sample.rig.radars}
    return replace(sample, radar=[replace(s, points=near(s.points, mounts[s.radar])) for s in sample.radar])


def sums(grid: np.ndarray) -> np.ndarray:
    """Over windows of 3 x 3 cells."""
    return 9 * uniform_filter(grid, 3, mode="constant")


@pytest.mark.parametrize("name", TILTS)
def test_a_tilt_moves_no_radar_point_by_more_than_one_cell(detector: Detector, drive: list[Sample], name: str) -> None:
    """So the 3 x 3 cells of the other grid hold at least a cell's points, and its largest intensity."""
    spec = detector.spec
    assert drift(1.5, np.hypot(spec.grid.x_max, spec.grid.y_max)) < 0.3 * spec.radar.cell
    index = {feature.statistic: channel for channel, feature in enumerate(spec.radar.features)}
    for sample in map(near_ground, drive):
        grids = []
        for seen in (sample, remount(sample, TILTS[name])):
            motion = seen.motion(spec.radar.max_age)
            grids.append(ops.voxelize_radar(spec, seen.rig, seen.radar, seen.timestamp_ns, motion=motion)[0])
        feature = spec.radar.features[index["log_count"]]
        counts = [np.expm1(grid[index["log_count"]] / feature.scale + feature.offset) for grid in grids]
        intensities = [np.where(n > 0.5, grid[index["intensity_max"]], -np.inf) for n, grid in zip(counts, grids)]
        assert counts[0].sum() > 300
        for a, b in ((0, 1), (1, 0)):
            inner = np.s_[1:-1, 1:-1]  # at the border a point may leave the grid
            assert (sums(counts[b]) > counts[a] - 1e-3)[inner].all()
            assert (maximum_filter(intensities[b], 3) >= intensities[a])[inner].all()


@pytest.mark.parametrize("name", TILTS)
def test_a_tilt_samples_past_maps_at_the_same_points(detector: Detector, drive: list[Sample], name: str) -> None:
    """Maps of x and of y are linear, so that the warp returns the coordinates that it reads."""
    grid, T = detector.spec.grid, TILTS[name]
    centres = grid.x_min + (np.arange(grid.width()) + 0.5) * grid.cell
    maps = np.stack(np.meshgrid(centres, centres)).astype(np.float32)
    motions, planes = [], []
    for then, now in (drive[:2], [remount(sample, T) for sample in drive[:2]]):
        motions.append(now.motion().since(then.motion()))
        planes.append(now.rig.ground_plane or (0.0, 0.0, 0.0))
    before, after = (ops.warp_bev(grid, maps, M, plane) for M, plane in zip(motions, planes))

    ground = np.stack([*maps, np.zeros_like(maps[0]), np.ones_like(maps[0])])
    source = np.tensordot(motions[0], ground, 1)[:2]
    inside = np.abs(source).max(0) < grid.x_max - 1
    assert inside.mean() > 0.6 and np.linalg.norm(motions[0][:2, 3]) > 9
    step = grid.cell / 1024  # to which the warp rounds
    assert np.abs(before - source)[:, inside].max() < step
    reach = np.hypot(grid.x_max, grid.y_max)
    # The ground below a cell's centre shrinks by the cosine, and so does its source.
    bound = reach * (1 / np.cos(ANGLE) - 1) + drift(0, reach) + 2 * step
    assert np.abs(after - before)[:, inside].max() < bound < 0.12 * grid.cell


@pytest.mark.parametrize("name", TILTS)
def test_boxes_move_with_a_tilted_frame(detector: Detector, plain: list[Frame], name: str) -> None:
    T, strong, matched, heights = TILTS[name], 0, 0, []
    for before, after in zip(plain, replay(detector, [remount(frame.sample, T) for frame in plain]), strict=True):
        expected = remount_boxes(before.result.boxes.astype(float), T)
        for box, label, score in zip(expected, before.result.names, before.result.scores, strict=True):
            if score < 0.4:
                continue
            strong += 1
            same = after.result.boxes[[other == label for other in after.result.names]]
            offsets = np.hypot(*(same[:, :2] - box[:2]).T) if len(same) else np.array([np.inf])
            if offsets.min() < 1:
                matched += 1
                heights.append(same[offsets.argmin(), 2] - box[2])
    assert strong > 50 and matched >= 0.93 * strong
    assert np.quantile(np.abs(heights), 0.9) < 0.1
