"""imkd-edge check of a radar whose velocities fit no motion: the cure names what may be wrong, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from imkd_edge.checks.data import Finding
from imkd_edge.checks.data.velocity import EgoReturns, judge
from imkd_edge.rig import RadarCalibration

SWEEPS, POINTS, WALL = 20, 100, 20  # WALL: points of a wall at the right
SPEED = 3.5  # m/s of a yard tractor


def about_z(degrees: float) -> np.ndarray:
    a = np.radians(degrees)
    return np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])


def mounted(degrees: float, velocity: str = "raw") -> RadarCalibration:
    """A radar that looks so far to the left."""
    T = np.eye(4)
    T[:3, :3] = about_z(degrees)
    return RadarCalibration(name="corner", T_ego_radar=T, velocity=velocity, period=0.0)


def sweep(
    mounting: np.ndarray, random: np.random.Generator, over_ground: np.ndarray | float = 0.0, speed: float = SPEED
) -> np.ndarray:
    """(POINTS, 5) returns of a radar with that rotation, on a vehicle that drives ahead."""
    azimuth, distance = random.uniform(-65, 65, POINTS), random.uniform(3, 50, POINTS)
    azimuth[:WALL] = random.uniform(-62, -50, WALL)
    azimuth = np.radians(azimuth)
    points = np.zeros((POINTS, 5))
    points[:, :2] = np.column_stack([np.cos(azimuth), np.sin(azimuth)]) * distance[:, None]
    along = (points[:, :3] / distance[:, None]) @ mounting[0]
    points[:, 3] = random.normal(5, 8, POINTS)
    points[:, 4] = over_ground - along * speed + random.normal(0, 0.05, POINTS)
    return points


def findings_of(radar: RadarCalibration, sweeps: list[np.ndarray], speed: float = SPEED) -> list[Finding]:
    returns = EgoReturns()
    for points in sweeps:
        returns.add(points, radar, np.array([speed, 0.0, 0.0]))
    return list(judge(radar.name, radar, returns, returns.fit(radar)))


def standing(true_degrees: float) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [sweep(about_z(true_degrees), random) for _ in range(SWEEPS)]


def assert_names_the_mounting(findings: list[Finding]) -> None:
    assert len(findings) == 1, findings
    assert "T_ego_radar" in findings[0].fix and "columns" in findings[0].fix and "left" in findings[0].fix
    assert "compensated" not in findings[0].fix


def test_a_radar_as_its_rig_says_has_no_finding() -> None:
    assert findings_of(mounted(-35), standing(-35)) == []


def test_a_forgotten_roll_or_a_y_to_the_right_is_not_called_compensated() -> None:
    """A fifth of such returns seems to stand at velocity 0: that is no majority."""
    rolled = [points * [1, -1, 1, 1, 1] for points in standing(-35)]
    assert_names_the_mounting(findings_of(mounted(-35), rolled))


def test_what_most_returns_show_names_the_kind() -> None:
    compensated = standing(-35)
    for points in compensated:
        points[:, 4] = 0.01
    (finding,) = findings_of(mounted(-35), compensated)
    assert '"compensated"' in finding.fix and finding.code == "E0306"


@pytest.mark.parametrize("speed", [1.2, 2.6])
def test_kind_and_sign_are_told_of_a_delivery_robot_too(speed: float) -> None:
    random, radar = np.random.default_rng(1), mounted(180)
    raw = [sweep(about_z(180), random, speed=speed) for _ in range(SWEEPS)]
    assert findings_of(radar, raw, speed) == []
    (finding,) = findings_of(radar, [points * [1, 1, 1, 1, -1] for points in raw], speed)
    assert finding.code == "E0306" and "sign is reversed" in finding.fix
    (finding,) = findings_of(mounted(180, "compensated"), raw, speed)
    assert finding.code == "E0306" and '"raw"' in finding.fix
    standing_still = [points * [1, 1, 1, 1, 0] for points in raw]
    (finding,) = findings_of(radar, standing_still, speed)
    assert finding.code == "E0306" and '"compensated"' in finding.fix


def test_a_vehicle_that_hardly_moves_tells_nothing() -> None:
    random = np.random.default_rng(1)
    assert findings_of(mounted(0), [sweep(about_z(0), random, speed=-0.5) for _ in range(SWEEPS)], 0.5) == []


SWAPPED = [0, 1, 2, 4, 3]


def azimuth_in_degrees(points: np.ndarray) -> np.ndarray:
    distance, angle = np.hypot(points[:, 0], points[:, 1]), np.degrees(np.arctan2(points[:, 1], points[:, 0]))
    return np.column_stack([distance * np.cos(angle), distance * np.sin(angle), points[:, 2:]])


@pytest.mark.parametrize(
    ("radar", "sweeps"),
    [
        (mounted(0), [points[:, SWAPPED] for points in standing(0)]),
        (mounted(75), standing(-15)),
        (mounted(-35), [azimuth_in_degrees(points) for points in standing(-35)]),
    ],
    ids=["columns_swapped", "yaw_90_degrees_off", "azimuth_in_degrees"],
)
def test_velocities_that_no_motion_explains_are_told(radar: RadarCalibration, sweeps: list[np.ndarray]) -> None:
    assert_names_the_mounting(findings_of(radar, sweeps))


def test_where_no_share_fits_it_is_a_warning() -> None:
    (finding,) = findings_of(mounted(0), [points[:, SWAPPED] for points in standing(0)])
    assert "no static pattern" in finding.what and finding.code == "W0306"


@pytest.mark.parametrize("kind", ["raw", "compensated"])
def test_a_radar_that_leaves_out_what_stands_has_no_finding(kind: str) -> None:
    """Its returns move over ground at 0.8 to 8 m/s, either way."""
    random = np.random.default_rng(2)
    moving = [random.uniform(0.8, 8, POINTS) * random.choice([-1, 1], POINTS) for _ in range(SWEEPS)]
    sweeps = [sweep(about_z(0), random, speeds) for speeds in moving]
    if kind == "compensated":
        for points, speeds in zip(sweeps, moving):
            points[:, 4] = speeds
    assert findings_of(mounted(0, kind), sweeps) == []


def test_few_returns_have_no_finding() -> None:
    few = [points[::8, SWAPPED] for points in standing(0)]
    assert 100 <= sum(len(points) for points in few) < 300
    assert findings_of(mounted(0), few) == []


def test_a_scale_that_few_returns_show_is_none() -> None:
    """A quarter of the returns shows 0.85 times the motion, the others move at up to 6 m/s."""
    random, radar = np.random.default_rng(3), mounted(0)
    sweeps = [sweep(about_z(0), random, random.uniform(-6, 6, POINTS)) for _ in range(SWEEPS)]
    for points in sweeps:
        points[:25, 4] = -0.85 * points[:25, 0] / np.hypot(points[:25, 0], points[:25, 1]) * SPEED
    assert [finding.topic for finding in findings_of(radar, sweeps)] == ["velocity pattern"]
