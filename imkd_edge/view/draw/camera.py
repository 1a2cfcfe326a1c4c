"""One camera image with projected 3D boxes."""

from __future__ import annotations

import itertools

import numpy as np

from imkd_edge.rig import CameraCalibration
from imkd_edge.view.draw.canvas import Canvas, Color, Theme
from imkd_edge.view.draw.geometry import EDGES, FRONT, box_corners, is_visible, project_edges

Shape = tuple[np.ndarray, Color, str]  # box (9,), colour, label


def draw_camera(
    canvas: Canvas,
    camera: CameraCalibration,
    image: np.ndarray | None,
    truth: list[np.ndarray],
    shapes: list[Shape],
    theme: Theme,
    absent: str = "no image",
) -> None:
    """Fills the canvas with the image, the ground truth (thin, dashed) and the detections (solid, with labels)."""
    if image is None:
        canvas.box(0, 0, canvas.width, canvas.height, theme.panel)
        canvas.text(canvas.width / 2, canvas.height / 2 + 5, absent, theme.bad, 15, bold=True, anchor="center")
    else:
        canvas.image(image)
    scale = np.array([canvas.width / camera.width, canvas.height / camera.height])
    for box in truth:
        _draw_truth(canvas, camera, box, scale)
    shapes = sorted(shapes, key=lambda shape: -float(np.hypot(*shape[0][:2])))  # far ones first
    anchors = [_draw_box(canvas, camera, box, color, scale) for box, color, _ in shapes]
    labels: list[tuple[float, float, float]] = []  # left, bottom, width of those on the canvas, px
    for anchor, (_, color, label) in reversed(list(zip(anchors, shapes, strict=True))):
        if anchor is not None:
            _draw_label(canvas, label, anchor, color, labels)
    name_width = canvas.text_width(camera.name, 11) + 12
    canvas.box(0, 0, name_width, 19, (0, 0, 0), 0.55)
    canvas.text(6, 13.5, camera.name, (255, 255, 255), 11)


def _to_canvas(path: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return (path + 0.5) * scale  # pixel centres at integers in K, at half integers on the canvas


def _draw_truth(canvas: Canvas, camera: CameraCalibration, box: np.ndarray, scale: np.ndarray) -> None:
    paths = project_edges(camera, box_corners(box), EDGES)
    if not is_visible(camera, paths):
        return
    for path in paths:
        points = _to_canvas(path, scale)
        for start, end in itertools.pairwise(points):
            canvas.dashes(start, end, (255, 255, 255), 0.7, 3)


def _draw_box(
    canvas: Canvas, camera: CameraCalibration, box: np.ndarray, color: Color, scale: np.ndarray
) -> tuple[float, float] | None:
    """Draws one box; returns the anchor of its label (middle, top) in px, or None where the box is out of view."""
    corners = box_corners(box)
    paths = project_edges(camera, corners, EDGES)
    if not is_visible(camera, paths):
        return None
    front = project_edges(camera, corners, FRONT)
    if len(front) == 4 and len({len(path) for path in front}) == 1:  # no edge is cut by the lens
        lower, upper = _to_canvas(front[0], scale), _to_canvas(front[1], scale)
        canvas.fill(np.concatenate([lower, upper[::-1]]), color, 0.3)
    points = _to_canvas(np.concatenate(paths), scale)
    width = 1.4 if np.ptp(points[:, 1]) > 14 else 1.0
    for path in paths:
        canvas.lines(_to_canvas(path, scale), color, width)
    _draw_heading(canvas, camera, box, color, scale)
    inside = np.clip(points, 0, [canvas.width, canvas.height])
    return float(inside[:, 0].min() + inside[:, 0].max()) / 2, float(inside[:, 1].min())


def _draw_heading(canvas: Canvas, camera: CameraCalibration, box: np.ndarray, color: Color, scale: np.ndarray) -> None:
    forward = np.array([np.cos(box[6]), np.sin(box[6]), 0]) * box[3] / 2
    foot = box[:3] - np.array([0, 0, box[5] / 2])
    for path in project_edges(camera, np.stack([foot, foot + forward * 1.4]), [(0, 1)]):
        canvas.lines(_to_canvas(path, scale), color, 1.4)


def _draw_label(
    canvas: Canvas, label: str, anchor: tuple[float, float], color: Color, labels: list[tuple[float, float, float]]
) -> None:
    """Writes the label above its box, or above the labels of nearer boxes; omits it after four collisions."""
    size, height = 10.5, 14.0
    width = canvas.text_width(label, size) + 6
    left = float(np.clip(anchor[0] - width / 2, 0, max(0.0, canvas.width - width)))
    for step in range(4):
        bottom = float(np.clip(anchor[1] - 3, height, canvas.height)) - step * (height + 1)
        if bottom < height:
            return
        if all(left + width < x or x + w < left or abs(bottom - y) >= height for x, y, w in labels):
            break
    else:
        return
    labels.append((left, bottom, width))
    canvas.box(left, bottom - 13, width, 14, color, 0.85)
    canvas.text(left + 3, bottom - 3, label, (10, 14, 20), size)
