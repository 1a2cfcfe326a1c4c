"""Pictures: objects fill the projections of their boxes; occlusion is counted."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from synth.bare import SIZES, bare_mesh, pose

from imkd_edge.sources.synth import SynthSource, default_rig
from imkd_edge.sources.synth.camera import Camera, Renderer, depth_order

RIG = default_rig((480, 270))
FRONT = Camera(RIG.cameras[0].K, RIG.cameras[0].T_ego_camera, 480, 270)


def look(objects=(), fixtures=(), camera=FRONT):
    mesh = bare_mesh(objects, fixtures)
    return Renderer(mesh).draw([camera], mesh.pose(mesh.scene.state(0.0)), pose(), [0])[0]


def corners(box) -> np.ndarray:
    """(8, 3) of x, y, z, l, w, h, yaw."""
    signs = np.array([(a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]) / 2
    p = signs * box[3:6]
    c, s = np.cos(box[6]), np.sin(box[6])
    return np.stack([c * p[:, 0] - s * p[:, 1], s * p[:, 0] + c * p[:, 1], p[:, 2]], 1) + box[:3]


def projected(calibration, box, scale=2) -> np.ndarray | None:
    """Convex outline (k, 2) of the box on the doubled id image; None when part of it is behind the camera."""
    T = np.linalg.inv(calibration.T_ego_camera)
    q = corners(box) @ T[:3, :3].T + T[:3, 3]
    if q[:, 2].min() < 0.5:
        return None
    uv = (q @ np.asarray(calibration.K).T)[:, :2] / q[:, 2:]
    return cv2.convexHull((uv * scale + (scale - 1) / 2).astype(np.float32))[:, 0].astype(float)


def outside(hull: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """How far each pixel (n, 2) is beyond the lines of a convex outline; negative inside."""
    edges = np.roll(hull, -1, 0) - hull
    normals = np.stack([edges[:, 1], -edges[:, 0]], 1) / np.maximum(np.linalg.norm(edges, axis=1, keepdims=True), 1e-9)
    if ((hull.mean(0) - hull) * normals).sum(1).max() > 0:
        normals = -normals
    return (pixels @ normals.T - (hull * normals).sum(1)).max(1)


@pytest.mark.parametrize("name", ["s000-f004", "s003-f001"])
def test_every_visible_object_is_inside_its_projected_box(name):
    source = SynthSource(seed=0, scenes=4, frames_per_scene=5)
    sample, ids, tracks = source[name], source.id_images(name), source.instances(name)
    checked = 0
    for calibration in source.rig.cameras:
        image = ids[calibration.name]
        for track, box in zip(tracks, sample.truth.boxes):
            rows, columns = np.nonzero(image == track)
            hull = projected(calibration, box)
            if len(rows) < 30 or hull is None:
                continue
            beyond = outside(hull, np.stack([columns, rows], 1).astype(float)).max()
            assert beyond < 1.5, (calibration.name, track)  # of the doubled image: 0.75 px
            checked += 1
    assert checked > 15


@pytest.mark.parametrize("kind", sorted(SIZES))
@pytest.mark.parametrize("yaw", [0.0, 0.8, np.pi / 2, -2.5])
def test_a_lone_object_fills_its_projected_box(kind, yaw):
    picture = look([(kind, 18.0, 1.0, yaw, 0, 0)])
    length, width, height = SIZES[kind]
    box = np.array([18.0, 1.0, height / 2, length, width, height, yaw])
    rows, columns = np.nonzero(picture.ids == 0)
    hull = projected(RIG.cameras[0], box)
    assert outside(hull, np.stack([columns, rows], 1).astype(float)).max() < 1.5
    near = 18.0 - 1.7 - length / 2  # m from the camera; gaps below the body and rounded corners are at most 0.5 m
    margin = 2 + 0.5 * 2 * FRONT.focal / near
    extent = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
    np.testing.assert_allclose(extent, [*hull.min(0), *hull.max(0)], atol=margin)
    area = cv2.contourArea(hull.astype(np.float32))
    assert len(rows) > (0.55 if kind in ("car", "truck", "bus") else 0.15) * area
    assert picture.visible[0] == picture.total[0] == len(rows)


def test_a_wall_in_front_hides_and_half_a_wall_hides_half():
    bus = [("bus", 25.0, 0.0, np.pi / 2, 0, 0)]
    free = look(bus)
    assert free.visible[0] == free.total[0] > 2000
    hidden = look(bus, [("slab", (0.4, 14.0, 4.0), 15.0, 0.0)])
    assert hidden.visible[0] == 0 and hidden.total[0] == free.total[0]
    behind = look(bus, [("slab", (0.4, 14.0, 4.0), 35.0, 0.0)])
    assert behind.visible[0] == free.visible[0]
    half = look(bus, [("slab", (0.4, 10.0, 4.0), 15.0, 5.02)])  # its edge is at y = 0.02, where the camera is
    assert half.visible[0] / half.total[0] == pytest.approx(0.5, abs=0.02)


def test_occlusion_of_truth_follows_the_visible_share():
    source = SynthSource(seed=0, scenes=2, frames_per_scene=3)
    levels = np.zeros(4, int)
    for name in source.names:
        sample, ids, tracks = source[name], source.id_images(name), source.instances(name)
        for track, level in zip(tracks, sample.truth.occlusion):
            count = sum(int((image == track).sum()) for image in ids.values())
            assert count > 0 or level == 3
            levels[level] += 1
    assert levels[0] > 40 and levels[3] > 20 and levels[1] + levels[2] > 3


def test_the_nearer_of_two_cars_is_in_front():
    picture = look([("car", 14.0, 0.0, 0.0, 0, 0), ("truck", 24.0, 0.5, 0.0, 0, 0)])
    assert picture.visible[0] == picture.total[0] and 0 < picture.visible[1] < picture.total[1]


def test_heading_and_light_are_in_the_picture():
    """Red lamps are visible from behind, white ones from the front."""
    away, towards = look([("car", 12.0, 0.0, 0.0, 0, 0)]), look([("car", 12.0, 0.0, np.pi, 0, 0)])
    red = [((p.pixels[..., 0] > 150) & (p.pixels[..., 1] < 80)).sum() for p in (away, towards)]
    white = [(p.pixels.min(-1) > 190)[150:].sum() for p in (away, towards)]
    assert red[0] > 40 and red[1] == 0 and white[1] > white[0] + 40


def test_depth_order_agrees_with_rays():
    """The box that a ray from the eye hits first must be drawn last."""
    rng = np.random.default_rng(4)
    rays = ordered = 0
    for _ in range(20):
        boxes = disjoint_boxes(rng, 12)
        rank = np.empty(len(boxes), int)
        rank[depth_order(boxes, np.zeros(2))] = np.arange(len(boxes))
        for angle in rng.uniform(-np.pi, np.pi, 40):
            direction = np.array([np.cos(angle), np.sin(angle)])
            hits = sorted((t, k) for k, box in enumerate(boxes) if (t := first_hit(box, direction)) is not None)
            order = [rank[k] for _, k in hits]
            assert order == sorted(order, reverse=True)
            rays, ordered = rays + 1, ordered + (len(hits) > 1)
    assert ordered > 100


def disjoint_boxes(rng, count) -> np.ndarray:
    from shapely import Polygon

    boxes: list[np.ndarray] = []
    while len(boxes) < count:
        yaw, size, centre = rng.uniform(-np.pi, np.pi), rng.uniform((0.3, 0.3), (16, 5)), rng.uniform(-30, 30, 2)
        c, s = np.cos(yaw), np.sin(yaw)
        local = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * size / 2
        box = local @ np.array([[c, s], [-s, c]]) + centre
        shape = Polygon(box)
        if shape.distance(Polygon([(0, 0), (0.01, 0), (0, 0.01)])) > 0.5 and not any(
            shape.intersects(Polygon(b)) for b in boxes
        ):
            boxes.append(box)
    return np.array(boxes)


def first_hit(box: np.ndarray, direction: np.ndarray) -> float | None:
    times = []
    for a, b in zip(box, np.roll(box, -1, 0)):
        matrix = np.stack([direction, a - b], 1)
        if abs(np.linalg.det(matrix)) < 1e-12:
            continue
        t, u = np.linalg.solve(matrix, a)
        if t > 0 and 0 <= u <= 1:
            times.append(t)
    return min(times) if times else None


def test_a_tilted_camera_draws_ground_and_sky_on_the_right_side():
    tilt = np.radians(30)
    T = FRONT.T.copy()
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    T[:3, :3] = T[:3, :3] @ turn  # rolled about the optical axis
    picture = look(camera=Camera(FRONT.K, T, 480, 270)).pixels.astype(int)
    v, u = np.mgrid[0:270, 0:480].astype(float)
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(FRONT.K).T @ T[:3, :3].T
    blue = picture[..., 2] > picture[..., 1] + 8
    assert blue[rays[..., 2] > 0.15].mean() > 0.98 and blue[rays[..., 2] < -0.02].mean() < 0.02
