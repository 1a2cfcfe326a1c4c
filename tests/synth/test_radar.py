"""Radar returns: statistics of noise, RCS and Doppler against the model's constants."""

from __future__ import annotations

import numpy as np
import pytest
from synth.bare import SIZES, bare_mesh, pose

from imkd_edge.sources.synth import SynthSource
from imkd_edge.sources.synth.radar import AZIMUTH_NOISE, MAX_POINTS, RCS, RadarModel


def sweeps(objects=(), fixtures=(), count=200):
    mesh = bare_mesh(objects, fixtures)
    model, state = RadarModel(mesh), mesh.scene.state(0.0)
    return [model.sweep(state, pose(z=0.5), np.random.default_rng([1, k])) for k in range(count)]


def inside(points, kind, x, y, yaw=0.0, margin=0.6):
    """Returns of an object: within its footprint and a margin for the noise."""
    length, width, _ = SIZES[kind]
    c, s = np.cos(yaw), np.sin(yaw)
    dx, dy = points[:, 0] - x, points[:, 1] - y
    return points[(np.abs(c * dx + s * dy) < length / 2 + margin) & (np.abs(-s * dx + c * dy) < width / 2 + margin)]


@pytest.mark.parametrize("speed", [8.0, -8.0, 3.0])
def test_receding_is_positive(speed):
    points = np.concatenate([inside(p, "car", 25, 0) for p in sweeps([("car", 25.0, 0.0, 0.0, speed, 0.0)])])
    moving = points[np.abs(points[:, 4]) > 1.5]
    assert len(moving) > 200 and np.median(moving[:, 4]) == pytest.approx(speed, abs=0.05)
    assert np.ptp(np.percentile(moving[:, 4], [16, 84])) / 2 == pytest.approx(np.hypot(0.1, 0.05), rel=0.3)


def test_only_the_part_along_the_line_of_sight_is_measured():
    x, y, v = 20.0, 15.0, np.array([-5.0, 4.0])
    points = np.concatenate([inside(p, "car", x, y, 0.6) for p in sweeps([("car", x, y, 0.6, *v)])])
    moving = points[np.abs(points[:, 4]) > 0.6]
    sight = moving[:, :2] / np.hypot(moving[:, 0], moving[:, 1])[:, None]
    residual = moving[:, 4] - sight @ v
    assert len(moving) > 100 and abs(residual.mean()) < 0.08 and residual.std() < 0.35
    crossing = np.concatenate(
        [inside(p, "car", 20, 0, np.pi / 2) for p in sweeps([("car", 20.0, 0.0, np.pi / 2, 0.0, 9.0)])]
    )
    assert np.abs(np.median(crossing[:, 4])) < 0.2


def test_rcs_orders_the_classes():
    mean = {
        kind: np.concatenate([inside(p, kind, 18, 0, 0.7) for p in sweeps([(kind, 18.0, 0.0, 0.7, 0, 0)])])[:, 3].mean()
        for kind in SIZES
    }
    assert mean["truck"] > mean["car"] + 4 > mean["car"] > mean["bicycle"] + 3 > mean["bicycle"] > mean["pedestrian"]
    assert abs(mean["car"] - RCS["car"]) < 3


def test_a_flat_side_flashes():
    rcs = [
        np.median(np.concatenate([inside(p, "car", 18, 0, yaw) for p in sweeps([("car", 18.0, 0.0, yaw, 0, 0)])])[:, 3])
        for yaw in (np.pi / 2, 0.7)
    ]
    assert rcs[0] > rcs[1] + 4


def test_range_and_azimuth_noise():
    points = np.concatenate(
        [
            p[np.hypot(p[:, 0] - 20, p[:, 1]) < 1.2]
            for p in sweeps(fixtures=[("pole", (0.16, 0.16, 5.0), 20.0, 0.0)], count=800)
        ]
    )
    pole = points[points[:, 3] > -1]  # above most of the ground clutter
    assert len(pole) > 60
    azimuth, r = np.arctan2(pole[:, 1], pole[:, 0]), np.hypot(pole[:, 0], pole[:, 1])
    assert abs(azimuth.mean()) < np.radians(0.1) and azimuth.std() == pytest.approx(AZIMUTH_NOISE, rel=0.5)
    assert 19.9 < np.median(r) < 20.6 and r.std() < 0.5


def test_the_weaker_and_farther_the_more_is_missed():
    def missed(kind, x):
        return np.mean(
            [len(inside(p, kind, x, 0, margin=1.0)[:, 0]) == 0 for p in sweeps([(kind, x, 0.0, 0.0, 0, 0)], count=300)]
        )

    near, far, weak = missed("car", 20.0), missed("car", 80.0), missed("pedestrian", 80.0)
    assert 0 < near < 0.25 and near + 0.1 < far < weak and weak > 0.8


def test_a_building_hides_and_a_car_hides_partly():
    def returns(fixtures, objects=()):
        points = [inside(p, "truck", 40, 0) for p in sweeps([("truck", 40.0, 0.0, 0.0, 9.0, 0.0), *objects], fixtures)]
        return sum((np.abs(p[:, 4] - 9) < 1).sum() for p in points)

    free, walled = returns([]), returns([("building", (2.0, 20.0, 6.0), 25.0, 0.0)])
    shadowed = returns([], [("bus", 20.0, 0.0, np.pi / 2, 0, 0)])
    assert free > 200 and walled <= 0.01 * free and 0.02 * free < shadowed < 0.5 * free


def test_field_of_view_count_and_height():
    source = SynthSource(seed=2, scenes=6, frames_per_scene=1, image=(64, 36))
    counts = []
    for sample in source:
        for sweep in sample.radar:
            p = sweep.points.astype(float)
            r, azimuth = np.hypot(p[:, 0], p[:, 1]), np.degrees(np.abs(np.arctan2(p[:, 1], p[:, 0])))
            assert (r < 100.01).all()
            assert (azimuth < 60.01).all()
            assert (azimuth[r > 70.01] < 20.01).all()
            assert (p[:, 2] == 0).all()
            assert np.isfinite(p).all() and len(p) <= MAX_POINTS
            counts.append(len(p))
    assert 50 <= np.median(counts) <= 125 and min(counts) > 5


def test_static_things_stand_still_and_ghosts_are_rare():
    points = np.concatenate(sweeps(fixtures=[("building", (6.0, 30.0, 8.0), 30.0, 0.0)], count=60))
    assert (np.abs(points[:, 4]) < 0.6).mean() > 0.97
    assert (np.abs(points[:, 4]) > 2).any()  # but not never: false alarms
    behind = points[points[:, 0] > 38]
    assert len(behind) < 0.02 * len(points)


def test_points_in_truth_agree_with_a_count_by_hand():
    source = SynthSource(seed=0, scenes=1, frames_per_scene=2, image=(64, 36))
    sample = source["s000-f001"]
    poses = {r.name: r.T_ego_radar for r in source.rig.radars}
    cloud = []
    for radar in poses:
        newest = next(s for s in sample.radar if s.radar == radar)
        T = np.linalg.inv(sample.ego.T_world_ego) @ newest.T_world_ego @ poses[radar]
        cloud.append(newest.points[:, :3].astype(float) @ T[:3, :3].T + T[:3, 3])
    cloud = np.concatenate(cloud)
    for box, count in zip(sample.truth.boxes, sample.truth.radar_points):
        c, s = np.cos(box[6]), np.sin(box[6])
        local = (cloud[:, :2] - box[:2]) @ np.array([[c, -s], [s, c]])
        assert (np.abs(local) <= box[3:5] / 2).all(1).sum() == count
    assert sample.truth.radar_points.sum() > 10
