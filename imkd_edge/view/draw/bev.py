"""The bird's-eye view: range rings, radar returns, ground truth and detections around the ego vehicle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imkd_edge.frames import valid_points
from imkd_edge.ops import EgoMotion
from imkd_edge.sources.base import Sample
from imkd_edge.view.draw.camera import Shape
from imkd_edge.view.draw.canvas import Canvas, Color, Theme, ramp
from imkd_edge.view.draw.geometry import box_corners

SPEED_LIMIT = 10.0  # m/s at the ends of the velocity colours
INTENSITY: list[Color] = [(68, 80, 160), (50, 140, 170), (70, 195, 130), (180, 222, 60), (255, 232, 90)]
APPROACHING: Color = (70, 140, 255)
RECEDING: Color = (255, 92, 72)
MOVING = 0.5  # m/s; slower objects get no velocity arrow


@dataclass(frozen=True)
class Extent:
    """Section of the ego plane in the view, m."""

    x_min: float
    x_max: float
    y_min: float
    y_max: float


@dataclass(frozen=True)
class Returns:
    """Radar returns in the ego frame at the reference time."""

    points: np.ndarray  # (N, 3) m
    value: np.ndarray  # (N,) radial velocity m/s, or intensity dB
    is_velocity: bool


class View:
    """Maps ego metres to canvas pixels; forward is up, or right with `forward_right`."""

    def __init__(self, canvas: Canvas, extent: Extent, forward_right: bool):
        self.forward_right = forward_right
        across, along = (extent.y_max - extent.y_min), (extent.x_max - extent.x_min)
        width, height = (along, across) if forward_right else (across, along)
        self.scale = min(canvas.width / width, canvas.height / height)  # px per metre
        self.x_middle, self.y_middle = (extent.x_min + extent.x_max) / 2, (extent.y_min + extent.y_max) / 2
        self.center = np.array([canvas.width / 2, canvas.height / 2])

    def __call__(self, points: np.ndarray) -> np.ndarray:
        forward = np.asarray(points)[..., 0] - self.x_middle
        left = np.asarray(points)[..., 1] - self.y_middle
        offset = np.stack([forward, -left] if self.forward_right else [-left, -forward], -1)
        return self.center + offset * self.scale


def radar_returns(sample: Sample, motion: EgoMotion) -> Returns:
    """Transforms all sweeps to the reference ego frame.

    Their value is the velocity where every radar compensates it for ego motion, else the intensity.
    """
    radars = {radar.name: radar for radar in sample.rig.radars}
    compensated = all(str(radar.velocity) == "compensated" for radar in sample.rig.radars)
    points, values = [np.zeros((0, 3))], [np.zeros(0)]
    for sweep in sample.radar:
        cloud = np.asarray(sweep.points, np.float64)
        cloud = cloud[valid_points(cloud)]
        T_ref_radar = np.asarray(radars[sweep.radar].T_ego_radar, np.float64)
        if sweep.timestamp_ns is not None:
            T_ref_radar = motion.T_ref_at(sweep.timestamp_ns) @ T_ref_radar
        points.append(cloud[:, :3] @ T_ref_radar[:3, :3].T + T_ref_radar[:3, 3])
        values.append(cloud[:, 4] if compensated else cloud[:, 3])
    return Returns(np.concatenate(points), np.concatenate(values), compensated)


def velocity_colors(speed: np.ndarray, theme: Theme) -> np.ndarray:
    """Blue for approaching, grey for static, red for receding."""
    return ramp(speed / (2 * SPEED_LIMIT) + 0.5, [APPROACHING, theme.static, RECEDING])


def intensity_range(returns: Returns) -> tuple[float, float]:
    """The 5th and 99th percentile, dB."""
    finite = returns.value[np.isfinite(returns.value)]
    if not len(finite):
        return 0.0, 1.0
    low, high = np.percentile(finite, [5, 99])
    return float(low), float(max(high, low + 1))


def draw_bev(
    canvas: Canvas,
    extent: Extent,
    forward_right: bool,
    returns: Returns,
    truth: list[np.ndarray],
    shapes: list[Shape],
    theme: Theme,
) -> None:
    """Draws range rings, radar returns, ground truth, detections, the ego vehicle and the radii, in this order."""
    view = View(canvas, extent, forward_right)
    canvas.box(0, 0, canvas.width, canvas.height, theme.panel)
    _draw_rings(canvas, view, extent, theme)
    _draw_returns(canvas, view, returns, theme)
    rings = [view(box_corners(box)[[0, 1, 2, 3, 0]]) for box in truth]
    canvas.dashes(rings, theme.truth, 1.0, 2.5)
    for box, color, _ in reversed(shapes):
        _draw_footprint(canvas, view, box, color)
    draw_ego(canvas, view, theme)
    _label_rings(canvas, view, extent, theme)
    caption = "bird's-eye view, forward is " + ("right" if forward_right else "up")
    canvas.box(0, 0, canvas.text_width(caption, 11) + 14, 20, theme.panel, 0.8)
    canvas.text(7, 14, caption, theme.muted, 11)


def _radii(extent: Extent) -> range:
    """Radii of the range rings, m."""
    reach = max(abs(extent.x_min), abs(extent.x_max), abs(extent.y_min), abs(extent.y_max))
    step = 10 if reach <= 60 else 20
    farthest = np.hypot(max(abs(extent.x_min), extent.x_max), max(abs(extent.y_min), extent.y_max))
    return range(step, int(farthest) + 1, step)


def _draw_rings(canvas: Canvas, view: View, extent: Extent, theme: Theme) -> None:
    angles = np.linspace(0, 2 * np.pi, 181)
    for radius in _radii(extent):
        canvas.lines(view(np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1)), theme.line, 0.7)
    for axis in (np.array([[-300.0, 0.0], [300.0, 0.0]]), np.array([[0.0, -300.0], [0.0, 300.0]])):
        canvas.lines(view(axis), theme.line, 0.5)


def _label_rings(canvas: Canvas, view: View, extent: Extent, theme: Theme) -> None:
    """Over the boxes, which would hide the text."""
    toward = np.array([1.0, 0.0]) if view.forward_right else np.array([np.cos(0.62), -np.sin(0.62)])
    for radius in _radii(extent):
        x, y = view(toward * radius)
        if 24 < x < canvas.width - 24 and 12 < y < canvas.height - 12:
            canvas.box(x - 17, y - 7, 34, 14, theme.panel, 0.5)
            canvas.text(x, y + 4, f"{radius} m", theme.muted, 10.5, anchor="center")


def return_colors(returns: Returns, theme: Theme) -> np.ndarray:
    """A colour (3,) uint8 of each return, by its velocity or its intensity."""
    if returns.is_velocity:
        return velocity_colors(returns.value, theme)
    low, high = intensity_range(returns)
    return ramp((returns.value - low) / (high - low), INTENSITY)


def _draw_returns(canvas: Canvas, view: View, returns: Returns, theme: Theme) -> None:
    value = np.nan_to_num(returns.value)
    order = np.argsort(np.abs(value) if returns.is_velocity else value)  # fast or strong ones on top
    canvas.dots(view(returns.points)[order], return_colors(returns, theme)[order], 1.5)


def _draw_footprint(canvas: Canvas, view: View, box: np.ndarray, color: Color) -> None:
    ring = view(box_corners(box)[:4])
    canvas.fill(ring, color, 0.28)
    canvas.lines(ring, color, 1.6, closed=True)
    heading = np.array([np.cos(box[6]), np.sin(box[6])])
    canvas.lines(view(np.stack([box[:2], box[:2] + heading * box[3] / 2])), color, 1.6)
    velocity = np.nan_to_num(box[7:9])
    if np.hypot(*velocity) > MOVING:
        _draw_arrow(canvas, view(box[:2]), view(box[:2] + velocity), color)


def _draw_arrow(canvas: Canvas, start: np.ndarray, end: np.ndarray, color: Color) -> None:
    """An arrow to the object's position in one second."""
    direction = (end - start) / max(1e-9, float(np.hypot(*(end - start))))
    normal = np.array([-direction[1], direction[0]])
    canvas.lines(np.stack([start, end]), color, 0.9)
    tip, back = end + direction * 2, end - direction * 4
    canvas.fill(np.stack([tip, back + normal * 3, back - normal * 3]), color)


def draw_ego(canvas: Canvas, view: View, theme: Theme) -> None:
    """The outline of the ego vehicle, at least 3.2 px per metre."""
    scale = max(1.0, 3.2 / view.scale)
    outline = np.array([[2.3, 0.55], [1.7, 0.95], [-2.2, 0.95], [-2.2, -0.95], [1.7, -0.95], [2.3, -0.55]])
    tip = np.array([[1.5, 0.0], [0.3, 0.6], [0.3, -0.6]])
    canvas.fill(view(outline * scale), theme.text)
    canvas.fill(view(tip * scale), theme.panel)
