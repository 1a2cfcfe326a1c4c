"""Boxes in images: corners, clipping at the near plane, the lens models of OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from imkd_edge.rig import CameraCalibration
from imkd_edge.view.draw.geometry import EDGES, NEAR, box_corners, clip_near, is_visible, project, project_edges

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


def test_a_segment_through_the_near_plane_is_cut_there() -> None:
    start, end = np.array([0.0, 0.0, -1.0]), np.array([2.0, 4.0, 1.0])
    clipped = clip_near(start, end, near=0.0)
    assert clipped is not None
    np.testing.assert_allclose(clipped[0], [1, 2, 0])
    np.testing.assert_allclose(clipped[1], end)
    reverse = clip_near(end, start, near=0.0)
    assert reverse is not None
    np.testing.assert_allclose(reverse[1], [1, 2, 0])


def test_a_segment_behind_the_camera_is_discarded() -> None:
    assert clip_near(np.array([0.0, 0, -1]), np.array([5.0, 0, NEAR / 2])) is None


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [("none", ()), ("plumb_bob", (-0.3, 0.1, 0.001, -0.002, -0.01)), ("fisheye", (0.02, -0.01, 0.003, -0.0005))],
)
def test_projection_agrees_with_opencv(model: str, coefficients: tuple[float, ...]) -> None:
    random = np.random.default_rng(0)
    points = np.column_stack([random.uniform(-3, 3, 50), random.uniform(-2, 2, 50), random.uniform(5, 30, 50)])
    lens = camera(model, coefficients)
    K, zero = np.asarray(lens.K), np.zeros(3)
    if model == "fisheye":
        expected, _ = cv2.fisheye.projectPoints(points[:, None], zero, zero, K, np.array(coefficients))
    else:
        expected, _ = cv2.projectPoints(points, zero, zero, K, np.array(coefficients or [0.0] * 5))
    np.testing.assert_allclose(project(lens, points), expected.reshape(-1, 2), atol=1e-6)


def test_a_folded_lens_polynomial_gives_nan() -> None:
    far_out = np.array([[8.0, 0.0, 1.0]])  # r = 8: beyond the turning point of 1 - 0.3 r^2
    assert np.isnan(project(camera("plumb_bob", (-0.3, 0, 0, 0, 0)), far_out)).any()


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
