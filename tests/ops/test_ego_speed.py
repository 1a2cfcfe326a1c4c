"""Ego speed from the static returns alone."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from op_cases import rotation, shift

from imkd_edge.ops import estimate_ego_speed
from imkd_edge.rig import RadarCalibration, SensorRig

PERIOD = 10.39  # m/s, of the Astyx 6455


def rig_of(*yaws: float, velocity: str = "aliased", period: float = PERIOD) -> SensorRig:
    period = period if velocity == "aliased" else 0
    radars = [
        RadarCalibration(name=f"r{i}", T_ego_radar=shift(3, i, 0.5) @ rotation(yaw), velocity=velocity, period=period)
        for i, yaw in enumerate(yaws)
    ]
    return SensorRig(radars=radars)


def world(
    rig: SensorRig, speed: float, seed: int, count: int = 500, movers: float = 0.0, noise: float = 0.05
) -> dict[str, np.ndarray]:
    """Returns of a static world from an ego at `speed`; a share of them is of moving objects."""
    rng = np.random.default_rng(seed)
    out = {}
    for radar in rig.radars:
        azimuth, elevation, distance = (
            rng.uniform(-0.95, 0.95, count),
            rng.uniform(-0.1, 0.1, count),
            rng.uniform(2, 80, count),
        )
        unit = np.stack(
            [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)], 1
        )
        forward = (unit @ radar.T_ego_radar[:3, :3].T)[:, 0]
        velocity = -forward * speed + rng.normal(0, noise, count)
        moving = rng.random(count) < movers
        velocity[moving] += rng.uniform(-20, 20, moving.sum())
        if radar.velocity == "aliased":
            velocity -= radar.period * np.round(velocity / radar.period)
        out[radar.name] = np.concatenate(
            [unit * distance[:, None], np.full((count, 1), 50), velocity[:, None]], 1
        ).astype(np.float32)
    return out


@pytest.mark.parametrize("velocity", ["raw", "aliased"])
@pytest.mark.parametrize("speed", [-8.0, -1.3, 0.0, 0.4, 5.2, 13.9, 27.7, 41.0])
def test_a_static_world_tells_the_speed(speed: float, velocity: str) -> None:
    rig = rig_of(0.0, velocity=velocity)
    ego = estimate_ego_speed(rig, world(rig, speed, seed=1))
    assert ego.valid and ego.speed == pytest.approx(speed, abs=0.05)
    assert 0.02 < ego.residual < 0.06 and ego.inliers > 480  # median of |N(0, 0.05)| is 0.034


@pytest.mark.parametrize("movers", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_moving_objects_do_not_move_the_estimate(seed: int, movers: float) -> None:
    rig = rig_of(0.0)
    ego = estimate_ego_speed(rig, world(rig, 16.0, seed, count=800, movers=movers))
    assert ego.valid and ego.speed == pytest.approx(16.0, abs=0.1)


@pytest.mark.parametrize("yaws", [(0.5,), (-0.6, 0.6), (0.0, 2.0, -2.0), (np.pi,)])
def test_radars_in_any_direction_agree(yaws: tuple[float, ...]) -> None:
    rig = rig_of(*yaws)
    ego = estimate_ego_speed(rig, world(rig, 11.0, seed=2, count=700))
    assert ego.valid and ego.speed == pytest.approx(11.0, abs=0.1)


def test_velocities_without_a_common_speed_give_none() -> None:
    rig = rig_of(0.0)
    clouds = world(rig, 10.0, seed=3)
    clouds["r0"][:, 4] = np.random.default_rng(3).uniform(-PERIOD / 2, PERIOD / 2, 500)
    assert not estimate_ego_speed(rig, clouds).valid


def test_too_few_returns_give_none() -> None:
    rig = rig_of(0.0)
    assert not estimate_ego_speed(rig, world(rig, 10.0, seed=3, count=6)).valid
    assert not estimate_ego_speed(rig, {}).valid
    assert not estimate_ego_speed(rig, {"r0": np.full((50, 5), np.nan, np.float32)}).valid


def test_a_compensated_radar_tells_nothing() -> None:
    rig = rig_of(0.0, velocity="compensated")
    assert not estimate_ego_speed(rig, world(rig, 0.0, seed=4)).valid


def test_nan_points_do_not_matter() -> None:
    rig = rig_of(0.0)
    clouds = world(rig, 9.0, seed=5)
    clouds["r0"][::7, 2] = np.nan
    clouds["r0"][3] = 0  # at the radar itself: no direction
    ego = estimate_ego_speed(rig, clouds)
    assert ego.valid and ego.speed == pytest.approx(9.0, abs=0.05)


def test_more_points_than_are_sampled_give_the_same_speed() -> None:
    rig = rig_of(0.0, 1.0)
    ego = estimate_ego_speed(rig, world(rig, 21.5, seed=6, count=20000))
    assert ego.valid and ego.speed == pytest.approx(21.5, abs=0.05) and 900 < ego.inliers <= 1024


def astyx_frame(data: Path, number: int) -> np.ndarray:
    """(N, 5) points; the file's velocity is positive when approaching."""
    with gzip.open(data / "astyx" / "radar_6455" / f"{number:06d}.txt.gz", "rt") as file:
        table = np.loadtxt([line for line in file if line.strip() and line.lstrip()[0] in "-0123456789"])
    return (table[:, [0, 1, 2, 4, 3]] * [1, 1, 1, 1, -1]).astype(np.float32)


def searched(points: np.ndarray) -> float:
    """All points, every speed in steps of 2 cm/s, float64, another kernel (Cauchy)."""
    forward = points[:, 0] / np.linalg.norm(points[:, :3].astype(float), axis=1)
    speeds = np.arange(-15, 60, 0.02)
    residual = points[:, 4].astype(float)[:, None] + forward[:, None] * speeds
    residual -= PERIOD * np.round(residual / PERIOD)
    return speeds[np.log1p((residual / 0.3) ** 2).sum(axis=0).argmin()]


def test_real_frames_agree_with_an_exhaustive_search(shared_data: Path) -> None:
    rig = SensorRig(radars=[RadarCalibration(name="r", T_ego_radar=np.eye(4), velocity="aliased", period=PERIOD)])
    near, valid = 0, 0
    for number in range(5, 465, 20):
        points = astyx_frame(shared_data, number)
        ego = estimate_ego_speed(rig, {"r": points})
        if ego.valid:
            valid += 1
            near += abs(ego.speed - searched(points[:: max(1, len(points) // 1500)])) < 0.15
            assert ego.residual < 0.4
    assert valid >= 22 and near >= valid - 1


def test_speeds_of_neighbouring_real_frames_are_smooth(shared_data: Path) -> None:
    """Frames 56-68 are one braking manoeuvre without a gap in the recording: the speed falls from frame to frame."""
    rig = SensorRig(radars=[RadarCalibration(name="r", T_ego_radar=np.eye(4), velocity="aliased", period=PERIOD)])
    speeds = [estimate_ego_speed(rig, {"r": astyx_frame(shared_data, n)}) for n in range(57, 69)]
    assert all(s.valid for s in speeds)
    assert np.abs(np.diff([s.speed for s in speeds])).max() < 1.0
