"""Radar sweeps -> dense grid of statistics, against plain loops in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import STATISTICS, random_points, random_pose, random_rig, rotation, shift, small_spec
from scipy.linalg import expm

from imkd_edge.frames import Ego, RadarSweep, valid_points
from imkd_edge.ops import voxelize_radar
from imkd_edge.rig import RadarCalibration, SensorRig
from imkd_edge.spec import GridSpec, ModelSpec, RadarFeature, RadarSpec

NOW = 1_700_000_000_000_000_000  # ns; no float64 holds it to the nanosecond


def moved(twist, seconds: float) -> np.ndarray:
    """Pose after so many seconds of a constant twist, as the matrix exponential of its generator."""
    vx, vy, rate = twist
    return expm(seconds * np.array([[0, -rate, 0, vx], [rate, 0, 0, vy], [0, 0, 0, 0], [0, 0, 0, 0.0]]))


def reference(
    spec: ModelSpec, rig: SensorRig, sweeps: list[RadarSweep], ego: Ego | None, twist=None
) -> tuple[np.ndarray, dict]:
    """`twist` is the known or estimated one, None where unknown."""
    cells: dict[tuple[int, int], list] = {}
    count = {"used": 0, "invalid": 0, "outside": 0, "overflow": 0}
    age_of = lambda s: (NOW - (NOW if s.timestamp_ns is None else s.timestamp_ns)) * 1e-9  # noqa: E731
    order = sorted(range(len(sweeps)), key=lambda i: (abs(age_of(sweeps[i])), rig.radar_index(sweeps[i].radar), i))
    for sweep in (sweeps[i] for i in order):
        radar, age = rig.radars[rig.radar_index(sweep.radar)], age_of(sweep)
        if abs(age) > spec.radar.max_age:
            continue
        T_ref_sweep = np.eye(4)
        if ego is not None and ego.T_world_ego is not None and sweep.T_world_ego is not None:
            T_ref_sweep = np.linalg.inv(ego.T_world_ego) @ sweep.T_world_ego
        elif twist is not None:
            T_ref_sweep = moved(twist, -age)
        T = T_ref_sweep @ radar.T_ego_radar
        for point in sweep.points.astype(np.float64):
            near = np.linalg.norm(point[:3]) < 0.1  # m
            if not np.isfinite(point).all() or near or np.abs(point[3:]).max() > 300:  # dB, m/s
                count["invalid"] += 1
                continue
            ray = T[:3, :3] @ point[:3]
            unit = ray / max(np.linalg.norm(ray), 1e-300)
            velocity, phase = point[4], None
            if radar.velocity != "compensated":
                velocity = 0.0
                if twist is not None:
                    lever = np.cross([0, 0, twist[2]], radar.T_ego_radar[:3, 3]) * [1, 1, 0]
                    velocity = point[4] + unit @ T_ref_sweep[:3, :3] @ ([twist[0], twist[1], 0] + lever)
                    if radar.velocity == "aliased":
                        velocity, phase = 0.0, 2 * np.pi * velocity / radar.period
            position = T[:3, 3] + ray
            position[:2] += unit[:2] * velocity * age
            column, row = (
                int(np.floor((position[i] - (spec.grid.x_min, spec.grid.y_min)[i]) / spec.radar.cell)) for i in (0, 1)
            )
            if not (0 <= column < spec.radar_width() and 0 <= row < spec.radar_height()):
                count["outside"] += 1
            elif count["used"] == spec.radar.max_points:
                count["overflow"] += 1
            else:
                count["used"] += 1
                a, b, c = rig.ground_plane or (0, 0, 0)
                height = position[2] - (a * position[0] + b * position[1] + c)
                turn = (0, 0) if phase is None else (np.cos(phase), np.sin(phase))
                cells.setdefault((row, column), []).append(
                    [*position[:2], height, point[3], *(velocity * unit[:2]), *turn, age]
                )
    grid = np.zeros((len(spec.radar.features), spec.radar_height(), spec.radar_width()))
    for (row, column), points in cells.items():
        x, y, z, intensity, vx, vy, c, s, age = np.array(points).T
        centre = spec.grid.x_min + (column + 0.5) * spec.radar.cell, spec.grid.y_min + (row + 0.5) * spec.radar.cell
        means = [q.mean() for q in (intensity, vx, vy, c, s, z)]
        values = [
            np.log(1 + len(x)),
            intensity.max(),
            *means,
            z.min(),
            z.max(),
            x.mean() - centre[0],
            y.mean() - centre[1],
            age.min(),
        ]
        value = dict(zip(STATISTICS, values, strict=True))
        grid[:, row, column] = [(value[f.statistic] - f.offset) * f.scale for f in spec.radar.features]
    return grid, count


def check(spec: ModelSpec, rig: SensorRig, sweeps: list[RadarSweep], ego: Ego | None = None, twist=None) -> None:
    expected, count = reference(spec, rig, sweeps, ego, twist)
    grid, stats = voxelize_radar(spec, rig, sweeps, NOW, ego)
    assert {name: getattr(stats, name) for name in count} == count
    assert count["used"] > 0
    assert np.abs(grid - expected).max() < 2e-4


def random_sweeps(rig: SensorRig, seed: int, per_radar: int = 3, points: int = 120) -> list[RadarSweep]:
    rng = np.random.default_rng(seed)
    sweeps = []
    for radar in rig.radars:
        for k in range(per_radar):
            cloud = random_points(rng, points)
            cloud[rng.integers(0, points, 3), rng.integers(0, 5, 3)] = rng.choice([np.nan, np.inf, -np.inf], 3)
            sweeps.append(RadarSweep(radar.name, cloud, NOW - k * 77_000_000 - int(rng.integers(0, 10**6))))
    return sweeps


@pytest.mark.parametrize("velocity", ["compensated", "raw", "aliased"])
@pytest.mark.parametrize("seed", range(6))
def test_equals_plain_loops_with_a_twist(seed: int, velocity: str) -> None:
    rng = np.random.default_rng(seed)
    rig = random_rig(seed, cameras=0, velocity=velocity)
    rig.ground_plane = (0.02, -0.03, 0.2)
    spec = small_spec()
    twist = (rng.uniform(-5, 20), rng.uniform(-0.5, 0.5), rng.choice([0, 1e-9, 0.4, -0.8]))
    check(spec, rig, random_sweeps(rig, seed), Ego(twist=twist), twist)


@pytest.mark.parametrize("seed", range(6))
def test_equals_plain_loops_with_poses_and_a_twist_for_the_velocity(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rig = random_rig(seed, cameras=0, velocity="raw" if seed % 2 else "aliased")
    here, twist = random_pose(rng, reach=500), (8.0, 0.1, 0.2)
    sweeps = [
        RadarSweep(
            s.radar,
            s.points,
            s.timestamp_ns,
            here @ moved(twist, (s.timestamp_ns - NOW) * 1e-9) @ random_pose(rng, 0.01, 0.1),
        )
        for s in random_sweeps(rig, seed)
    ]
    check(small_spec(), rig, sweeps, Ego(here, twist), twist)


@pytest.mark.parametrize("rate", [0.0, 0.3, -1.2])
def test_poses_alone_tell_the_twist(rate: float) -> None:
    rig, twist = random_rig(5, cameras=0, velocity="raw"), (9.0, -0.4, rate)
    here = shift(1000, -2000, 7) @ rotation(2.2)
    sweeps = [
        RadarSweep(s.radar, s.points, s.timestamp_ns, here @ moved(twist, (s.timestamp_ns - NOW) * 1e-9))
        for s in random_sweeps(rig, 5)
    ]
    check(small_spec(), rig, sweeps, Ego(T_world_ego=here), twist)


@pytest.mark.parametrize("velocity", ["raw", "aliased"])
def test_a_velocity_that_cannot_be_compensated_is_left_out(velocity: str) -> None:
    """Random velocities fit no ego speed, so none is estimated."""
    rig = random_rig(8, cameras=0, velocity=velocity)
    check(small_spec(), rig, random_sweeps(rig, 8, per_radar=1, points=400), None, None)


@pytest.mark.parametrize("velocity", ["raw", "aliased"])
def test_without_odometry_a_static_world_is_compensated_by_its_own_returns(velocity: str) -> None:
    rng = np.random.default_rng(4)
    period = 10.4 if velocity == "aliased" else 0
    rig = SensorRig(radars=[RadarCalibration(name="r", T_ego_radar=shift(3, 0, 0.5), velocity=velocity, period=period)])
    cloud = random_points(rng, 600)
    cloud[:, 0] = np.abs(cloud[:, 0])
    cloud[:, 4] = -13.0 * cloud[:, 0] / np.linalg.norm(cloud[:, :3], axis=1)  # static, from an ego at 13 m/s forward
    if period:
        cloud[:, 4] -= period * np.round(cloud[:, 4] / period)
    spec = small_spec()
    grid, stats = voxelize_radar(spec, rig, [RadarSweep("r", cloud, NOW)], NOW)
    occupied = grid[STATISTICS.index("log_count")] > 0
    assert stats.used > 300
    if period:
        assert np.abs(grid[STATISTICS.index("phase_cos")][occupied] - 1).max() < 2e-3
    else:
        assert np.abs(grid[[STATISTICS.index("velocity_x"), STATISTICS.index("velocity_y")]]).max() < 0.05


@pytest.mark.parametrize("capacity", [1, 7, 100, 359, 5000])
def test_points_beyond_the_capacity_are_dropped_and_counted(capacity: int) -> None:
    rig = random_rig(2, cameras=0)
    spec = small_spec()
    spec.radar.max_points = capacity
    check(spec, rig, random_sweeps(rig, 2), Ego(twist=(3, 0, 0)), (3, 0, 0))


@pytest.mark.parametrize("name", STATISTICS)
def test_each_statistic_alone_is_scaled_and_offset(name: str) -> None:
    rig = random_rig(3, cameras=0, velocity="aliased" if name.startswith("phase") else "compensated")
    features = [RadarFeature(statistic=name, offset=0.75, scale=-0.5)]
    check(
        small_spec(radar=RadarSpec(cell=0.25, features=features)),
        rig,
        random_sweeps(rig, 3),
        Ego(twist=(2, 0, 0)),
        (2, 0, 0),
    )


def test_one_point_computed_by_hand() -> None:
    """Radar at (1, 2, 0.5), rotated left by 90 degrees; half a second ago a point 3 m ahead of it receded at 2 m/s."""
    radar = RadarCalibration(name="r", T_ego_radar=shift(1, 2, 0.5) @ rotation(np.pi / 2))
    rig = SensorRig(radars=[radar], ground_plane=(0, 0, -0.5))
    spec = small_spec()
    grid, stats = voxelize_radar(
        spec, rig, [RadarSweep("r", np.array([[3, 0, 0.25, 7, 2]], np.float32), NOW - 500_000_000)], NOW
    )
    flat = 3 / np.hypot(3, 0.25)
    y = 2 + 3 + 2 * flat * 0.5  # 5.9966
    expected = dict.fromkeys(STATISTICS, 0.0) | {
        "log_count": np.log(2),
        "intensity_max": 7,
        "intensity_mean": 7,
        "velocity_y": 2 * flat,
        "z_mean": 1.25,
        "z_min": 1.25,
        "z_max": 1.25,
        "offset_x": 1 - 1.25,  # cell [1, 1.5)
        "offset_y": y - 5.75,  # cell [5.5, 6)
        "age_min": 0.5,
    }
    row, column = int((5.5 + 12) / 0.5), int((1 + 16) / 0.5)
    assert grid[:, row, column].tolist() == pytest.approx(list(expected.values()), abs=1e-5)
    assert stats.used == 1 and np.count_nonzero(grid.any(axis=0)) == 1


@pytest.mark.parametrize("bad", range(5))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_point_with_any_value_not_finite_is_dropped_and_counted(bad: int, value: float) -> None:
    rig = random_rig(0, cameras=0, radars=1)
    cloud = np.ones((3, 5), np.float32)
    cloud[1, bad] = value
    grid, stats = voxelize_radar(small_spec(), rig, [RadarSweep("r0", cloud, NOW)], NOW)
    assert (stats.used, stats.invalid, stats.outside) == (2, 1, 0) and np.isfinite(grid).all()


@pytest.mark.parametrize("value", [3e38, -3e38, 1e20])
def test_huge_values_are_outside_and_harm_nothing(value: float) -> None:
    rig = random_rig(0, cameras=0, radars=1)
    far = [value, value, value, 0, 0]  # two, as a sweep that is mostly invalid is left out whole
    cloud = np.array([far, far, [1, 1, value, value, 0], [1, 1, 0, 0, value]], np.float32)
    grid, stats = voxelize_radar(small_spec(), rig, [RadarSweep("r0", cloud, NOW - 10_000_000)], NOW)
    assert (stats.used, stats.invalid, stats.outside) == (0, 2, 2) and not grid.any()


@pytest.mark.parametrize("velocity", ["compensated", "raw", "aliased"])
@pytest.mark.parametrize("column", [3, 4])
@pytest.mark.parametrize("sign", [1, -1])
def test_no_return_is_stronger_than_300_db_or_faster_than_300_metres_a_second(
    column: int, sign: int, velocity: str
) -> None:
    rig = SensorRig(
        radars=[
            RadarCalibration(name="r", T_ego_radar=np.eye(4), velocity=velocity, period=10 * (velocity == "aliased"))
        ]
    )
    cloud = np.full((3, 5), 2, np.float32)
    cloud[:2, column] = np.float32(300) * sign, np.nextafter(np.float32(300), np.float32(301)) * sign
    grid, stats = voxelize_radar(small_spec(), rig, [RadarSweep("r", cloud, NOW)], NOW, Ego(twist=(5, 0, 0)))
    assert (stats.used, stats.invalid) == (2, 1) and valid_points(cloud).tolist() == [True, False, True]
    assert (
        grid.tobytes()
        == voxelize_radar(small_spec(), rig, {"r": cloud[[0, 2]]}, NOW, Ego(twist=(5, 0, 0)))[0].tobytes()
    )


@pytest.mark.parametrize("direction", [(1, 0, 0), (0, -1, 0), (0, 0, 1), (1, -1, 1)])
def test_a_point_nearer_than_a_tenth_of_a_metre_is_invalid(direction: tuple[int, int, int]) -> None:
    unit = np.array(direction) / np.linalg.norm(direction)
    cloud = np.array([[*(unit * r), 5, 9] for r in (0, 0.0999, 0.1001, 2)], np.float32)
    rig = SensorRig(radars=[RadarCalibration(name="r", T_ego_radar=np.eye(4))])
    grid, stats = voxelize_radar(small_spec(), rig, [RadarSweep("r", cloud, NOW)], NOW)
    assert (stats.used, stats.invalid) == (2, 2) and valid_points(cloud).tolist() == [False, False, True, True]
    assert grid.tobytes() == voxelize_radar(small_spec(), rig, {"r": cloud[2:]}, NOW)[0].tobytes()


@pytest.mark.parametrize(
    ("age_ms", "used"), [(0, True), (999, True), (1001, False), (-999, True), (-1001, False), (10**7, False)]
)
def test_sweeps_older_than_the_limit_are_left_out(age_ms: int, used: bool) -> None:
    rig = random_rig(0, cameras=0, radars=1)
    _, stats = voxelize_radar(
        small_spec(), rig, [RadarSweep("r0", np.ones((4, 5), np.float32), NOW - age_ms * 1_000_000)], NOW
    )
    assert stats.used == (4 if used else 0)


def test_a_sweep_without_a_time_and_a_dict_mean_now() -> None:
    rig, cloud = random_rig(1, cameras=0), random_points(np.random.default_rng(1), 80)
    timed = voxelize_radar(small_spec(), rig, [RadarSweep("r1", cloud, NOW)], NOW)[0]
    assert voxelize_radar(small_spec(), rig, [RadarSweep("r1", cloud)], NOW)[0].tobytes() == timed.tobytes()
    assert voxelize_radar(small_spec(), rig, {"r1": cloud}, NOW)[0].tobytes() == timed.tobytes()


@pytest.mark.parametrize("sweeps", [[], [RadarSweep("r0", np.zeros((0, 5), np.float32), NOW)]])
def test_no_points_give_an_empty_grid(sweeps: list[RadarSweep]) -> None:
    grid, stats = voxelize_radar(small_spec(), random_rig(0, cameras=0), sweeps, NOW)
    assert grid.shape == (13, 48, 64) and not grid.any() and stats.used == 0


@given(st.integers(0, 10**6))
@settings(derandomize=True, max_examples=25, deadline=None)
def test_the_order_of_sweeps_and_empty_sweeps_change_no_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rig, spec, ego = random_rig(seed, cameras=0), small_spec(), Ego(twist=(6, 0, 0.1))
    sweeps = random_sweeps(rig, seed, points=60)
    first = voxelize_radar(spec, rig, sweeps, NOW, ego)[0]
    extra = [RadarSweep("r1", np.zeros((0, 5), np.float32), NOW - int(t)) for t in rng.integers(0, 10**9, 3)]
    mixed = sweeps + extra
    rng.shuffle(mixed)
    assert voxelize_radar(spec, rig, mixed, NOW, ego)[0].tobytes() == first.tobytes()


@given(st.integers(0, 10**6), st.integers(-8, 8), st.integers(-8, 8))
@settings(derandomize=True, max_examples=25, deadline=None)
def test_moving_the_rig_by_whole_cells_moves_the_grid(seed: int, dx: int, dy: int) -> None:
    spec, rig, other = small_spec(), random_rig(seed, cameras=0), random_rig(seed, cameras=0)
    for radar in other.radars:
        radar.T_ego_radar = shift(dx * 0.5, dy * 0.5) @ radar.T_ego_radar
    sweeps = random_sweeps(rig, seed, per_radar=1)
    before, after = (voxelize_radar(spec, r, sweeps, NOW)[0] for r in (rig, other))
    rows, columns = (slice(max(d, 0), n + min(d, 0)) for d, n in ((dy, 48), (dx, 64)))
    same = np.abs(np.roll(before, (dy, dx), (1, 2))[:, rows, columns] - after[:, rows, columns]).max(axis=0) < 1e-4
    assert same.mean() > 0.999


@given(st.integers(0, 10**6), st.integers(1, 3))
@settings(derandomize=True, max_examples=25, deadline=None)
def test_turning_the_rig_by_quarters_turns_the_grid(seed: int, quarters: int) -> None:
    square = GridSpec(x_min=-16, x_max=16, y_min=-16, y_max=16, z_min=-3, z_max=4, cell=1.0)
    names = [n for n in STATISTICS if not n.startswith(("velocity", "offset"))]
    spec = small_spec(grid=square, radar=RadarSpec(cell=0.5, features=[RadarFeature(statistic=n) for n in names]))
    rig, rotated = random_rig(seed, cameras=0), random_rig(seed, cameras=0)
    for radar in rotated.radars:
        radar.T_ego_radar = np.round(rotation(quarters * np.pi / 2)) @ radar.T_ego_radar
    sweeps = random_sweeps(rig, seed, per_radar=1)
    before, after = (voxelize_radar(spec, r, sweeps, NOW)[0] for r in (rig, rotated))
    assert (np.abs(np.rot90(before, -quarters, (1, 2)) - after).max(axis=0) < 1e-4).mean() > 0.999
