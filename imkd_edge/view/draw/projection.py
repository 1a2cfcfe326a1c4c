"""Radar returns and labelled boxes in the camera images, beside their bird's-eye view: whether they fit."""

from __future__ import annotations

import numpy as np

from imkd_edge.sources.base import Sample
from imkd_edge.view.draw import bev
from imkd_edge.view.draw.camera import Shape, draw_camera
from imkd_edge.view.draw.canvas import THEMES, Canvas, class_color, ramp

GAP, CAPTION = 6, 26  # px
TILES = {1: 900, 2: 600, 3: 420}  # px, width of an image by the number of images in a row
BEV_HEIGHT, FAR = 560, 100.0  # px; m to any side
NEAREST, FARTHEST = 5.0, 60.0  # m, at the ends of the colours of returns


def projections(sample: Sample, points: np.ndarray) -> np.ndarray:
    """One picture of a frame: its cameras with radar returns and labelled boxes, then the bird's-eye view.

    Args:
        sample: the frame.
        points: (N, 3) m radar returns in its ego frame.
    Returns:
        (H, W, 3) uint8 RGB.
    """
    theme, motion = THEMES["dark"], sample.motion()
    cameras = list(motion.exposure_rig(sample.rig).cameras)
    shapes = _shapes(sample)
    # sizes, px
    columns = min(max(TILES), max(len(cameras), 1))
    tile = TILES[columns]
    height = round(tile * max((camera.height / camera.width for camera in cameras), default=0))
    width, top = columns * (tile + GAP) - GAP, CAPTION + -(-len(cameras) // columns) * (height + GAP)
    # the canvas and what is on it
    canvas = Canvas(width, top + BEV_HEIGHT, theme.background)
    text = f"frame {sample.name}: {len(points)} radar returns (blue near, red far), {len(shapes)} labelled boxes"
    canvas.text(4, 18, text, theme.text, 13)
    colors = _distance_colors(points)
    for index, camera in enumerate(cameras):
        x, y = index % columns * (tile + GAP), CAPTION + index // columns * (height + GAP)
        window = canvas.window(x, y, tile, round(tile * camera.height / camera.width))
        draw_camera(window, camera, sample.frames.get(camera.name), (points, colors), [], shapes, theme)
    returns = bev.radar_returns(sample, motion)
    extent = _extent(np.concatenate([returns.points[:, :2], *(box[None, :2] for box, _, _ in shapes)]))
    bev.draw_bev(canvas.window(0, top, width, BEV_HEIGHT), extent, True, returns, [], shapes, theme)
    return canvas.picture()


def _extent(points: np.ndarray) -> bev.Extent:
    """The section with most of (N, 2) points m, and at least 10 m around the ego."""
    points = np.concatenate([points[np.isfinite(points).all(1)], np.zeros((1, 2))])
    low, high = np.clip(np.quantile(points, [0.01, 0.99], 0) + [[-5], [5]], -FAR, FAR)
    return bev.Extent(min(low[0], -10.0), max(high[0], 10.0), min(low[1], -10.0), max(high[1], 10.0))


def _shapes(sample: Sample) -> list[Shape]:
    """The labelled boxes, coloured by class."""
    if sample.truth is None:
        return []
    order = sorted(set(sample.truth.labels))
    pairs = zip(sample.truth.boxes, sample.truth.labels, strict=True)
    return [(np.asarray(box), class_color(label, order.index(label)), label) for box, label in pairs]


def _distance_colors(points: np.ndarray) -> np.ndarray:
    """(N, 3) uint8, blue near and red far from the ego."""
    near_to_far = [(70, 140, 255), (70, 215, 160), (255, 220, 80), (255, 92, 72)]
    return ramp((np.linalg.norm(points, axis=1) - NEAREST) / (FARTHEST - NEAREST), near_to_far)
