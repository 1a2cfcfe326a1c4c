"""One camera image with radar returns and projected 3D boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import imkd_edge.ops as ops
from imkd_edge.rig import CameraCalibration
from imkd_edge.view.draw.canvas import Canvas, Color, Theme
from imkd_edge.view.draw.geometry import EDGES, NEAR, box_corners, is_visible, project_segments, to_camera

Shape = tuple[np.ndarray, Color, str]  # box (9,), colour, label
_FRONT = [EDGES.index(edge) for edge in ((0, 1), (4, 5))]
_LABEL, _LABEL_HEIGHT = 11, 15  # px
_SMALL = 16  # px; lower boxes get a label only directly above them


@dataclass(frozen=True)
class _Projection:
    """One box in the image, px of the canvas."""

    edges: list[list[np.ndarray]]  # polylines of each of EDGES
    heading: list[np.ndarray]
    visible: bool

    @property
    def paths(self) -> list[np.ndarray]:
        return [path for paths in self.edges for path in paths]


def draw_camera(
    canvas: Canvas,
    camera: CameraCalibration,
    image: np.ndarray | None,
    radar: tuple[np.ndarray, np.ndarray],
    truth: list[np.ndarray],
    shapes: list[Shape],
    theme: Theme,
    absent: str = "no image",
) -> None:
    """Fills the canvas with the image, radar returns, ground truth (thin, dashed) and detections (with labels).

    Args:
        canvas: in the proportions of the camera's image.
        camera: with its pose at the exposure.
        image: (H, W, 3) uint8 RGB, None if absent.
        radar: points (N, 3) m in the ego frame and their colours (N, 3) uint8.
        truth: boxes (9,).
        shapes: detections.
        theme: colours.
        absent: text instead of an image.
    """
    if image is None:
        canvas.box(0, 0, canvas.width, canvas.height, theme.panel)
        canvas.text(canvas.width / 2, canvas.height / 2 + 5, absent, theme.bad, 15, bold=True, anchor="center")
    else:
        canvas.image(image)
        _draw_radar(canvas, camera, *radar)
    boxes = _project(canvas, camera, truth)
    canvas.dashes([path for box in boxes if box.visible for path in box.paths], (255, 255, 255), 0.7, 3)
    shapes = sorted(shapes, key=lambda shape: -float(np.hypot(*shape[0][:2])))  # far ones first
    boxes = _project(canvas, camera, [box for box, _, _ in shapes])
    for box, (_, color, _) in zip(boxes, shapes, strict=True):
        _draw_box(canvas, box, color)
    _draw_labels(canvas, boxes, shapes)
    name_width = canvas.text_width(camera.name, 11) + 12
    canvas.box(0, 0, name_width, 19, (0, 0, 0), 0.55)
    canvas.text(6, 13.5, camera.name, (255, 255, 255), 11)


def _scale(canvas: Canvas, camera: CameraCalibration) -> np.ndarray:
    return np.array([canvas.width / camera.width, canvas.height / camera.height])


def _to_canvas(path: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return (path + 0.5) * scale  # pixel centres at integers in K, at half integers on the canvas


def _draw_radar(canvas: Canvas, camera: CameraCalibration, points: np.ndarray, colors: np.ndarray) -> None:
    """Draws the returns that the lens sees, near ones on top; what hides them is not known."""
    optical = to_camera(camera, points)
    far_first = np.argsort(-optical[:, 2])
    optical, colors = optical[far_first], colors[far_first]
    if camera.distortion != "fisheye":
        optical, colors = optical[optical[:, 2] > NEAR], colors[optical[:, 2] > NEAR]
    canvas.dots(_to_canvas(ops.project(camera, optical), _scale(canvas, camera)), colors, 1.5)


def _project(canvas: Canvas, camera: CameraCalibration, boxes: list[np.ndarray]) -> list[_Projection]:
    """Projects the edges and the heading of every box at once."""
    if not boxes:
        return []
    all_boxes, (first, second) = np.asarray(boxes), np.asarray(EDGES).T
    corners = box_corners(all_boxes)
    foot = (corners[:, :1] + corners[:, 2:3]) / 2
    nose = foot + 1.4 * ((corners[:, :1] + corners[:, 1:2]) / 2 - foot)
    starts = np.concatenate([corners[:, first], foot], 1).reshape(-1, 3)
    ends = np.concatenate([corners[:, second], nose], 1).reshape(-1, 3)
    segments = project_segments(camera, starts, ends)
    scale, count = _scale(canvas, camera), len(EDGES) + 1
    projections = []
    for index in range(0, len(segments), count):
        own = segments[index : index + count]
        visible = is_visible(camera, [path for paths in own[:-1] for path in paths])
        if visible:
            own = [[_to_canvas(path, scale) for path in paths] for paths in own]
        projections.append(_Projection(own[:-1], own[-1], visible))
    return projections


def _draw_box(canvas: Canvas, box: _Projection, color: Color) -> None:
    if not box.visible:
        return
    lower, upper = (box.edges[index] for index in _FRONT)
    if len(lower) == len(upper) == 1 and len(lower[0]) == len(upper[0]):  # no edge is cut by the lens
        canvas.fill(np.concatenate([lower[0], upper[0][::-1]]), color, 0.3)
    height = np.ptp(np.concatenate(box.paths)[:, 1])
    for path in box.paths:
        canvas.lines(path, color, 1.4 if height > _SMALL else 1.0)
    for path in box.heading:
        canvas.lines(path, color, 1.4)


def _draw_labels(canvas: Canvas, boxes: list[_Projection], shapes: list[Shape]) -> None:
    """Writes the labels, near boxes first: above its box, at its foot, or nowhere if both are taken."""
    taken: list[tuple[float, float, float]] = []  # left, bottom, width of the labels on the canvas, px
    for box, (_, color, label) in reversed(list(zip(boxes, shapes, strict=True))):
        if not box.visible:
            continue
        inside = np.clip(np.concatenate(box.paths), 0, [canvas.width, canvas.height])
        width = canvas.text_width(label, _LABEL) + 6
        middle = float(inside[:, 0].min() + inside[:, 0].max()) / 2
        left = float(np.clip(middle - width / 2, 0, max(0.0, canvas.width - width)))
        top, foot = float(inside[:, 1].min()), float(inside[:, 1].max())
        bottoms = [max(top - 3, _LABEL_HEIGHT)] + ([foot - 2] if foot - top > _SMALL else [])
        for bottom in bottoms:
            if all(left + width < x or x + w < left or abs(bottom - y) >= _LABEL_HEIGHT for x, y, w in taken):
                taken.append((left, bottom, width))
                canvas.box(left, bottom - 13, width, 14, color, 0.85)
                canvas.text(left + 3, bottom - 2.5, label, (10, 14, 20), _LABEL)
                break
