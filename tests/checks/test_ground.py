"""The ground that returns propose is the ground on which labelled cars stand, in any mounting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from imkd_edge.checks.ground import compare_planes, propose_ground, propose_plane
from imkd_edge.errors import Error
from imkd_edge.sources.astyx import AstyxSource
from imkd_edge.sources.base import Sample
from imkd_edge.sources.plane import fit_plane
from imkd_edge.sources.remount import lift, remount, tilt
from imkd_edge.sources.synth import SynthSource


@pytest.fixture(scope="module")
def drive(shared_data: Path) -> list[Sample]:
    source = AstyxSource(shared_data / "astyx", images=False)
    return [source[name] for name in source.splits["train"][::4]]


@pytest.fixture(scope="module")
def street() -> list[Sample]:
    source = SynthSource(lidar=True)
    return [source[name] for name in source.names[::5][:8]]


def test_lidar_proposes_the_plane_under_the_labelled_cars(drive):
    boxes = [box for sample in drive for box, label in zip(sample.truth.boxes, sample.truth.labels) if label == "car"]
    cars = np.array(boxes)[:, :3] - np.array([0, 0, 0.5]) * np.array(boxes)[:, 5:6]
    proposal = propose_ground(drive)
    difference = compare_planes(proposal.plane, fit_plane(cars))
    assert abs(difference.height) < 0.1 and difference.tilt < 0.5
    assert proposal.sensor == "lidar" and proposal.points > 100_000 and proposal.residual < 0.1
    assert 0 < proposal.height_error < 0.1 and 0 < proposal.tilt_error < 0.5
    agreement = compare_planes(proposal.plane, drive[0].rig.ground_plane)
    assert abs(agreement.height) < 0.1 and agreement.tilt < 0.5


def test_radar_proposes_a_plane_within_its_uncertainty(drive):
    proposal = propose_ground(drive, "radar")
    difference = compare_planes(proposal.plane, drive[0].rig.ground_plane)
    assert abs(difference.height) < proposal.height_error and difference.tilt < proposal.tilt_error
    assert proposal.height_error >= 0.4 and proposal.tilt_error >= 3


def test_a_synthetic_street_is_flat(street):
    proposal = propose_ground(street)
    difference = compare_planes(proposal.plane, (0, 0, 0))
    assert abs(difference.height) < 0.01 and difference.tilt < 0.05


@pytest.mark.parametrize(("degrees", "azimuth", "height"), [(2, 45, 0.2), (5, 200, -1.5), (10, 300, 1.8)])
@pytest.mark.parametrize("sensor", ["lidar", "radar"])
def test_the_proposal_follows_the_mounting(drive, degrees, azimuth, height, sensor):
    T = lift(height) @ tilt(degrees, azimuth)
    moved = [remount(sample, T) for sample in drive]
    wanted = remount(replace(drive[0], rig=with_plane(drive[0], propose_ground(drive, sensor).plane)), T)
    difference = compare_planes(propose_ground(moved, sensor).plane, wanted.rig.ground_plane)
    tolerance = 1 if sensor == "lidar" else 5  # a tilt brings other radar returns into the lane
    assert abs(difference.height) < 0.02 * tolerance and difference.tilt < 0.1 * tolerance


def with_plane(sample: Sample, plane: tuple[float, float, float]):
    rig = type(sample.rig).from_json(sample.rig.to_json())
    rig.ground_plane = plane
    return rig


def plain(count: int, seed: int = 0) -> np.ndarray:
    """(count, 3) returns of the plane z = 0.02 x - 1.7, 2 cm noise."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(-25, 25, (count, 2))
    return np.column_stack([xy, 0.02 * xy[:, 0] - 1.7 + rng.normal(0, 0.02, count)])


def test_objects_and_reflections_do_not_lift_or_sink_it():
    rng = np.random.default_rng(1)
    walls = plain(20_000, 2) + np.column_stack([np.zeros((20_000, 2)), rng.uniform(0.3, 4, 20_000)])
    walls = walls[(walls[:, 1] > 8) & (rng.random(20_000) < 0.8)]
    reflections = plain(400, 3) - [0, 0, 2]
    difference = compare_planes(propose_plane([plain(20_000), walls, reflections]).plane, (0.02, 0, -1.7))
    assert abs(difference.height) < 0.02 and difference.tilt < 0.1


def test_the_order_of_points_does_not_matter():
    points = plain(5000)
    assert propose_plane([points]).plane == propose_plane([points[::-1]]).plane


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((0, 3)),
        plain(40),
        plain(5000) * [1, 0.01, 1],  # a line
        np.full((5000, 3), np.nan),
        plain(5000) * 100,  # beyond the range
    ],
)
def test_thin_support_proposes_nothing(points):
    assert propose_plane([points]) is None and propose_plane([], "radar") is None


def test_a_radar_without_elevation_proposes_nothing():
    flat = plain(200_000) * [1, 1, 0] + [0, 0, 0.5]
    assert propose_plane([flat], "radar") is None


def test_one_frame_has_no_uncertainty():
    assert np.isnan(propose_plane([plain(5000)]).height_error)


def test_another_sensor_is_refused():
    with pytest.raises(Error, match="sonar"):
        propose_plane([plain(100)], "sonar")


def test_the_difference_of_planes_is_that_of_their_normals():
    R = Rotation.from_euler("x", 3, degrees=True).as_matrix()
    n = R @ [0, 0, 1]
    difference = compare_planes((-n[0] / n[2], -n[1] / n[2], 0.2), (0, 0, -0.1))
    assert difference.tilt == pytest.approx(3) and difference.height == pytest.approx(0.3)
