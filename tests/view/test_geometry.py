"""Boxes in images: corners, clipping at the near plane, the lens."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from imkd_edge.rig import CameraCalibration
from imkd_edge.view.draw.geometry import EDGES, NEAR, box_corners, clip_near, is_visible, project_edges

LOOKING_FORWARD = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], float)  # ego <- camera


def camera(distortion: str = "none", coefficients: tuple[float, ...] = ()) -> CameraCalibration:
    K = np.array([[500, 0, 319.5], [0, 500, 179.5], [0, 0, 1]], float)
    lens = {"distortion": distortion, "coefficients": list(coefficients)}
    return CameraCalibration(name="front", width=640, height=360, K=K, T_ego_camera=LOOKING_FORWARD, **lens)


def test_corners_of_a_box_turned_by_a_quarter() -> None:
    corners = box_corners(np.array([10, 0, 1, 4, 2, 2, np.pi / 2, 0, 0]))
    expected_front_left = [10 - 1, 2, 0]  # facing left: its left is backward, its front is y = +2
    np.testing.assert_allclose(corners[0], expected_front_left, atol=1e-12)
    np.testing.assert_allclose(corners.min(0), [9, -2, 0], atol=1e-12)
    np.testing.assert_allclose(corners.max(0), [11, 2, 2], atol=1e-12)


def test_corners_of_many_boxes_are_those_of_each() -> None:
    boxes = np.random.default_rng(0).uniform(0.5, 4, (3, 9))
    np.testing.assert_array_equal(box_corners(boxes), [box_corners(box) for box in boxes])


def test_a_segment_through_the_near_plane_is_cut_there() -> None:
    segments = np.array([[[0.0, 0, -1], [2.0, 4, 1]], [[2.0, 4, 1], [0.0, 0, -1]]])
    start, end, in_front = clip_near(segments[:, 0], segments[:, 1], near=0.0)
    np.testing.assert_allclose(start, [[1, 2, 0], [2, 4, 1]])
    np.testing.assert_allclose(end, [[2, 4, 1], [1, 2, 0]])
    assert in_front.all()


def test_a_segment_behind_the_camera_is_discarded() -> None:
    assert not clip_near(np.array([[0.0, 0, -1]]), np.array([[5.0, 0, NEAR / 2]]))[2].any()


def test_an_edge_of_a_box_is_bent_by_the_lens() -> None:
    lens = camera("rational_polynomial", (0.41, -0.12, 0.0009, -0.0006, 0.011, 0.63, -0.05, 0.017))
    corners = box_corners(np.array([6, 1, 0, 4, 2, 2, 0.4, 0, 0]))
    optical = np.stack([-corners[:, 1], -corners[:, 2], corners[:, 0]], 1)
    K, zero, k = np.asarray(lens.K), np.zeros(3), np.array(lens.coefficients)
    for (a, b), path in zip(EDGES, project_edges(lens, corners, EDGES), strict=True):
        points = np.linspace(optical[a], optical[b], len(path))
        expected, _ = cv2.projectPoints(points, zero, zero, K, k)
        np.testing.assert_allclose(path, expected[:, 0], atol=1e-6)


def test_an_edge_beyond_the_fold_of_the_lens_is_cut_there() -> None:
    lens = camera("plumb_bob", (-0.3, 0, 0, 0, 0))  # r (1 - 0.3 r^2) grows up to r = 1.054
    (path,) = project_edges(lens, np.array([[4.0, 0, 0], [4.0, -8.0, 0]]), [(0, 1)])
    assert 2 <= len(path) < 9 and (np.diff(path[:, 0]) > 0).all()


def test_a_fisheye_sees_edges_beside_and_behind_it() -> None:
    lens = camera("fisheye", (0, 0, 0, 0))
    lens.K = np.array([[180, 0, 319.5], [0, 180, 179.5], [0, 0, 1]])  # 90 degrees are 283 px
    (path,) = project_edges(lens, np.array([[1.0, -4.0, 0], [-0.2, -4.0, 0]]), [(0, 1)])
    assert path[0, 0] == pytest.approx(319.5 + 180 * np.arctan2(4, 1))
    assert path[-1, 0] == pytest.approx(319.5 + 180 * np.arctan2(4, -0.2)) and is_visible(lens, [path])


def test_a_box_behind_a_fisheye_is_not_in_its_image() -> None:
    lens = camera("fisheye", (0, 0, 0, 0))
    lens.K = np.array([[180, 0, 319.5], [0, 180, 179.5], [0, 0, 1]])
    paths = project_edges(lens, box_corners(np.array([-6, 0, 0, 4, 3, 2, 0, 0, 0])), EDGES)
    assert paths and not is_visible(lens, paths)


def test_a_box_around_the_camera_is_clipped_and_a_box_behind_is_invisible() -> None:
    lens = camera()
    around = project_edges(lens, box_corners(np.array([0, 0, 0, 6, 3, 2, 0, 0, 0])), EDGES)
    assert around and len(around) < len(EDGES)
    behind = project_edges(lens, box_corners(np.array([-10, 0, 0, 4, 2, 2, 0, 0, 0])), EDGES)
    assert not is_visible(lens, behind)


def test_a_box_beside_the_view_is_invisible() -> None:
    assert not is_visible(
        camera(), project_edges(camera(), box_corners(np.array([10, 30, 0, 4, 2, 2, 0, 0, 0])), EDGES)
    )
