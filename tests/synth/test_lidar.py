"""LiDAR points lie on the surfaces that the rays hit first, with the reflectance of their material."""

from __future__ import annotations

import numpy as np
from synth.bare import SIZES, bare_mesh, pose

from imkd_edge.sources.synth import T_EGO_LIDAR, SynthSource
from imkd_edge.sources.synth.ground import Ground
from imkd_edge.sources.synth.lidar import MAX_RANGE, LidarModel


def scan(objects=(), fixtures=()):
    mesh = bare_mesh(objects, fixtures)
    model = LidarModel(mesh, Ground(mesh.scene))
    points, owner = model.sweep(mesh.scene.state(0.0), pose(z=1.84), np.random.default_rng(0))
    return points + np.array([0, 0, 1.84, 0]), owner  # z above the ground


def test_ground_wall_and_shadow():
    points, owner = scan(fixtures=[("building", (4.0, 20.0, 8.0), 22.0, 0.0)])
    assert np.abs(points[owner == -1, 2]).max() < 0.15
    wall = points[owner == 0]
    assert len(wall) > 500 and np.abs(wall[:, 0] - 20).max() < 0.15 and np.abs(wall[:, 1]).max() < 10.1
    assert wall[:, 2].min() > -0.1 and wall[:, 2].max() > 4  # 10.67 degrees up at 20 m
    shadow = (points[:, 0] > 20.3) & (np.abs(points[:, 1]) < 9.9)
    assert not shadow.any()
    assert np.linalg.norm(points[:, :3] - [0, 0, 1.84], axis=1).max() < MAX_RANGE + 0.1


def test_range_noise_is_two_centimetres():
    points, owner = scan()
    down = points[owner == -1, :3] - [0, 0, 1.84]
    expected = 1.84 / (-down[:, 2] / np.linalg.norm(down, axis=1))
    error = np.linalg.norm(down, axis=1) - expected
    assert abs(error.mean()) < 0.002 and 0.015 < error.std() < 0.025


def test_points_of_every_class_are_in_their_boxes():
    kinds = sorted(SIZES)
    objects = [(kind, 12 * np.cos(k * 1.05), 12 * np.sin(k * 1.05), 0.4 * k, 0, 0) for k, kind in enumerate(kinds)]
    points, owner = scan(objects)
    for k, (kind, x, y, yaw, *_) in enumerate(objects):
        hits = points[owner == k]
        c, s = np.cos(yaw), np.sin(yaw)
        local = np.abs((hits[:, :2] - (x, y)) @ np.array([[c, -s], [s, c]]))
        length, width, height = SIZES[kind]
        assert len(hits) > 15, kind
        assert (local < np.array([length, width]) / 2 + 0.1).all()
        assert hits[:, 2].min() > -0.1
        assert hits[:, 2].max() < height + 0.1


def test_lamps_shine_and_asphalt_does_not():
    points, owner = scan([("car", 10.0, 0.0, 0.0, 0, 0)])
    car, ground = points[owner == 0], points[owner == -1]
    assert car[:, 3].max() > 200 and np.median(car[:, 3]) < 120 and np.median(ground[:, 3]) < 25
    assert points[:, 3].min() >= 0 and points[:, 3].max() <= 255


def test_lane_marks_are_brighter_than_the_road():
    source = SynthSource(seed=0, scenes=1, frames_per_scene=1, image=(64, 36), lidar=True)
    near = source["s000-f000"].lidar
    near = near[(np.abs(near[:, 2]) < 0.1) & (np.hypot(near[:, 0], near[:, 1]) < 12)]
    assert (near[:, 3] > 30).sum() > 10 and np.median(near[:, 3]) < 20


def test_counts_in_truth_are_points_on_the_objects():
    source = SynthSource(seed=0, scenes=1, frames_per_scene=1, image=(64, 36), lidar=True)
    sample = source["s000-f000"]
    cloud, truth = sample.lidar[:, :3].astype(float), sample.truth
    assert 10_000 < len(cloud) < 34_560
    for box, count in zip(truth.boxes, truth.lidar_points):
        c, s = np.cos(box[6]), np.sin(box[6])
        local = np.abs((cloud[:, :2] - box[:2]) @ np.array([[c, -s], [s, c]]))
        within = (local < box[3:5] / 2 + 0.1).all(1) & (np.abs(cloud[:, 2] - box[2]) < box[5] / 2 + 0.1)
        within_high = within & (cloud[:, 2] > 0.15)
        assert within_high.sum() <= count + 3 and count <= within.sum()  # 0.15 m: apart from the ground inside the box
    assert truth.lidar_points.max() > 50
    assert np.allclose(T_EGO_LIDAR[:3, :3] @ T_EGO_LIDAR[:3, :3].T, np.eye(3))
