"""Radar returns and labelled boxes in the camera images, beside their bird's-eye view: whether they fit."""

from __future__ import annotations

import numpy as np

import imkd_edge.ops as ops
from imkd_edge.rig import CameraCalibration
from imkd_edge.sources.base import Sample
from imkd_edge.view.draw import bev
from imkd_edge.view.draw.camera import Shape, draw_camera
from imkd_edge.view.draw.canvas import THEMES, Canvas, class_color, ramp, rgb
from imkd_edge.view.draw.geometry import NEAR, to_camera

GAP, CAPTION, TILE, COLUMNS = 6, 26, 420, 3  # px, px, px, tiles in a row
NEAREST, FARTHEST = 5.0, 60.0  # m, at the ends of the colours of returns


def projections(sample: Sample, points: np.ndarray, reach: float = 60.0) -> np.ndarray:
    """One picture of a frame: its cameras with radar returns and labelled boxes, then the bird's-eye view.

    Args:
        sample: the frame.
        points: (N, 3) m radar returns in its ego frame.
        reach: m, of the bird's-eye view to all sides.
    Returns:
        (H, W, 3) uint8 RGB.
    """
    theme, motion = THEMES["dark"], sample.motion()
    cameras = list(motion.exposure_rig(sample.rig).cameras)
    shapes = _shapes(sample)
    aspect = max((camera.height / camera.width for camera in cameras), default=0.6)
    height, columns = round(TILE * aspect), min(COLUMNS, max(len(cameras), 1))
    rows = -(-len(cameras) // columns)
    width, side = columns * (TILE + GAP) - GAP, columns * (TILE + GAP) - GAP
    top = CAPTION + rows * (height + GAP)
    canvas = Canvas(width, top + min(side, 560), theme.background)
    text = f"frame {sample.name}: {len(points)} radar returns (blue near, red far), {len(shapes)} labelled boxes"
    canvas.text(4, 18, text, theme.text, 13)
    for index, camera in enumerate(cameras):
        x, y = index % columns * (TILE + GAP), CAPTION + index // columns * (height + GAP)
        tile = canvas.window(x, y, TILE, round(TILE * camera.height / camera.width))
        draw_camera(tile, camera, sample.frames.get(camera.name), [], shapes, theme)
        _draw_returns(tile, camera, points)
    extent = bev.Extent(-reach, reach, -reach, reach)
    window = canvas.window(0, top, width, min(side, 560))
    bev.draw_bev(window, extent, True, bev.radar_returns(sample, motion), [], shapes, theme)
    return canvas.picture()


def _shapes(sample: Sample) -> list[Shape]:
    """The labelled boxes, coloured by class."""
    if sample.truth is None:
        return []
    order = sorted(set(sample.truth.labels))
    pairs = zip(sample.truth.boxes, sample.truth.labels, strict=True)
    return [(np.asarray(box), class_color(label, order.index(label)), label) for box, label in pairs]


def _draw_returns(canvas: Canvas, camera: CameraCalibration, points: np.ndarray) -> None:
    optical = to_camera(camera, points)
    if camera.distortion != "fisheye":
        optical = optical[optical[:, 2] > NEAR]
    pixels = ops.project(camera, optical)
    scale = np.array([canvas.width / camera.width, canvas.height / camera.height])
    distance = np.linalg.norm(optical, axis=1)
    near_blue = [(70, 140, 255), (70, 215, 160), (255, 220, 80), (255, 92, 72)]
    colors = ramp((distance - NEAREST) / (FARTHEST - NEAREST), near_blue)
    for (u, v), color in zip((pixels + 0.5) * scale, colors, strict=True):
        if np.isfinite(u) and np.isfinite(v) and 0 <= u < canvas.width and 0 <= v < canvas.height:
            canvas.disc(u, v, 3.2, (0, 0, 0))
            canvas.disc(u, v, 2.4, rgb(color))
