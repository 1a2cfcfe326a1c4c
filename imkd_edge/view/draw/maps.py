"""A row of bird's-eye-view maps: the gates of camera and radar, and the segmentation."""

from __future__ import annotations

import numpy as np

from imkd_edge.result import Result
from imkd_edge.spec import GridSpec
from imkd_edge.view.draw.bev import Extent, View, draw_ego
from imkd_edge.view.draw.camera import Shape
from imkd_edge.view.draw.canvas import Canvas, Color, Theme, ramp
from imkd_edge.view.draw.geometry import box_corners

TITLES = {"i_cam": "camera gate I_cam", "i_rad": "radar gate I_rad", "segmentation": "vehicle probability"}
# Colours of 0 to 1.
SCALE: list[Color] = [(24, 20, 58), (84, 40, 120), (176, 58, 106), (238, 116, 72), (250, 190, 90), (252, 248, 190)]
HEAD, GAP = 24, 6  # px
MIN_SPAN = 0.05  # of the values between the ends of a scale


def maps_of(result: Result | None) -> dict[str, np.ndarray]:
    """Name -> (H, W) map of 0..1: the gates of Detector(debug=True), and the segmentation of models that have it."""
    if result is None:
        return {}
    return result.debug | ({} if result.segmentation is None else {"segmentation": result.segmentation})


def map_width(width: int, count: int, bev_width: int) -> int:
    """Width of one map, px: the view's, if a row of `count` maps `width` px wide has room for that."""
    return min(bev_width, (width - (count - 1) * GAP) // count)


def strip_height(map_width: int, extent: Extent, forward_right: bool) -> int:
    """Height of a row of maps with their titles, px."""
    along, across = extent.x_max - extent.x_min, extent.y_max - extent.y_min
    return HEAD + round(map_width * (across / along if forward_right else along / across))


def scale_of(name: str, values: np.ndarray) -> tuple[float, float]:
    """The values at the ends of a map's colours: 0 and 1 of a probability, else the 1st and 99th percentile."""
    finite = values[np.isfinite(values)]
    if name == "segmentation" or not len(finite):
        return 0.0, 1.0
    low, high = np.percentile(finite, [1, 99])
    return float(low), float(max(high, low + MIN_SPAN))


def draw_maps(
    canvas: Canvas,
    maps: dict[str, np.ndarray],
    bev_width: int,
    grid: GridSpec,
    extent: Extent,
    forward_right: bool,
    shapes: list[Shape],
    theme: Theme,
) -> None:
    """Draws each map below its name and colour scale, with the footprints of the detections."""
    width = map_width(canvas.width, len(maps), bev_width)
    for index, (name, values) in enumerate(maps.items()):
        panel = canvas.window(index * (width + GAP), 0, width, canvas.height)
        panel.box(0, 0, width, canvas.height, theme.panel)
        low, high = scale_of(name, values)
        _draw_head(panel, TITLES.get(name, name), low, high, theme)
        window = panel.window(0, HEAD, width, canvas.height - HEAD)
        view = View(window, extent, forward_right)
        _draw_map(window, view, (values - low) / (high - low), grid, forward_right)
        for box, _, _ in shapes:
            for color, line in (((0, 0, 0), 3.0), ((255, 255, 255), 1.2)):  # contrasts with every colour
                window.lines(view(box_corners(box)[:4]), color, line, closed=True)
        draw_ego(window, view, theme)


def _draw_head(canvas: Canvas, title: str, low: float, high: float, theme: Theme) -> None:
    left = 8 + canvas.text(8, 16, title, theme.text, 12) + 12
    left += canvas.text(left, 16, f"{low:.2f}", theme.muted, 10.5) + 5
    bar = min(110.0, canvas.width - left - 40)
    canvas.color_bar(left, 8, bar, 8, ramp(np.linspace(0, 1, 64), SCALE))
    canvas.text(left + bar + 5, 16, f"{high:.2f}", theme.muted, 10.5)


def _draw_map(canvas: Canvas, view: View, values: np.ndarray, grid: GridSpec, forward_right: bool) -> None:
    """Draws values (rows along y, columns along x) with y up where forward is right, else with x up and y left."""
    corners = view(np.array([[grid.x_min, grid.y_min], [grid.x_max, grid.y_max]]))
    left, top = np.clip(np.floor(corners.min(0)).astype(int), 0, None)
    right, bottom = np.minimum(np.ceil(corners.max(0)).astype(int), [canvas.width, canvas.height])
    cells = values[::-1] if forward_right else values.T[::-1, ::-1]
    colors = ramp(cells.ravel(), SCALE).reshape(*cells.shape, 3)
    enlarged = colors.repeat(8, 0).repeat(8, 1)  # keeps the edges of cells sharp
    canvas.window(left, top, right - left, bottom - top).image(enlarged)
