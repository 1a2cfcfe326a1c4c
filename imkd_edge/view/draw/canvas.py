"""An anti-aliased drawing surface on OpenCV, with 2 x 2 supersampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imkd_edge.errors import Code, Error

try:
    import cv2

    from imkd_edge.view.draw.font import text_mask
except ImportError as error:  # this module is imported only to draw
    problem, fix = "pictures need OpenCV and Pillow", 'pip install "opencv-python-headless<5" pillow'
    raise Error(Code.missing_extra, problem, "imkd_edge.view.draw", fix) from error

Color = tuple[int, int, int]  # RGB
SUPERSAMPLING = 2
_SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates
_FAR = 1 << 13  # px; coordinates beyond it would overflow in fixed point


@dataclass(frozen=True)
class Theme:
    """Colours of a picture."""

    background: Color
    panel: Color
    line: Color
    muted: Color
    text: Color
    truth: Color
    good: Color
    bad: Color
    static: Color  # a radar return without radial motion


DARK = Theme(
    background=(13, 17, 26),
    panel=(21, 27, 40),
    line=(52, 62, 84),
    muted=(139, 150, 173),
    text=(232, 236, 244),
    truth=(255, 255, 255),
    good=(94, 214, 140),
    bad=(255, 107, 107),
    static=(150, 158, 172),
)
LIGHT = Theme(
    background=(255, 255, 255),
    panel=(244, 246, 250),
    line=(206, 212, 224),
    muted=(104, 114, 134),
    text=(24, 30, 42),
    truth=(30, 30, 30),
    good=(28, 140, 78),
    bad=(205, 48, 48),
    static=(120, 126, 138),
)
THEMES = {"dark": DARK, "light": LIGHT}

PALETTE: dict[str, Color] = {
    "car": (64, 196, 255),
    "truck": (255, 179, 48),
    "bus": (255, 126, 54),
    "trailer": (214, 148, 80),
    "construction_vehicle": (200, 170, 60),
    "pedestrian": (255, 92, 148),
    "person": (255, 92, 148),
    "cyclist": (122, 232, 122),
    "bicycle": (122, 232, 122),
    "motorcycle": (180, 140, 255),
    "barrier": (170, 178, 190),
    "traffic_cone": (255, 214, 102),
}
_SPARE: list[Color] = [
    (180, 140, 255),
    (80, 220, 200),
    (255, 160, 160),
    (200, 220, 90),
    (120, 160, 255),
    (240, 130, 240),
]


def class_color(name: str, index: int = 0) -> Color:
    """The colour of a class: from the palette for the usual names, else from a spare list by index."""
    return PALETTE.get(name, _SPARE[index % len(_SPARE)])


def rgb(color: np.ndarray) -> Color:
    """A colour from an array of three."""
    return int(color[0]), int(color[1]), int(color[2])


def ramp(value: np.ndarray, stops: Sequence[Color]) -> np.ndarray:
    """Interpolates colours between equally spaced stops.

    Args:
        value: (N,), clamped to [0, 1]; NaN counts as 0.
        stops: at least two.

    Returns:
        (N, 3) uint8 RGB.
    """
    table = np.asarray(stops, np.float64)
    position = np.clip(np.nan_to_num(value, nan=0.0), 0, 1) * (len(table) - 1)
    low = np.minimum(position.astype(int), len(table) - 2)
    fraction = (position - low)[:, None]
    return (table[low] * (1 - fraction) + table[low + 1] * fraction).round().astype(np.uint8)


class Canvas:
    """A surface drawn in logical pixels (floats); `window` is a clipped view that shares its memory."""

    def __init__(self, width: int, height: int, color: Color, pixels: np.ndarray | None = None):
        self.width, self.height = width, height
        s = SUPERSAMPLING
        if pixels is None:
            pixels = np.empty((height * s, width * s, 3), np.uint8)
            pixels.reshape(height * s, -1)[:] = np.tile(np.array(color, np.uint8), width * s)  # a row at a time
        self.pixels = pixels

    def window(self, x: int, y: int, width: int, height: int) -> Canvas:
        """A rectangle with its own origin, to which drawing is clipped."""
        s = SUPERSAMPLING
        return Canvas(width, height, (0, 0, 0), self.pixels[y * s : (y + height) * s, x * s : (x + width) * s])

    def picture(self) -> np.ndarray:
        """The finished picture, (H, W, 3) uint8 RGB."""
        return cv2.resize(self.pixels, (self.width, self.height), interpolation=cv2.INTER_AREA)

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        scaled = np.clip(np.asarray(points, np.float64).reshape(-1, 2), -_FAR, _FAR) * SUPERSAMPLING
        return np.round(scaled * (1 << _SHIFT)).astype(np.int32)

    def _thickness(self, width: float) -> int:
        return max(1, round(width * SUPERSAMPLING))

    def lines(self, points: np.ndarray, color: Color, width: float = 1, closed: bool = False) -> None:
        """A polyline through points (N, 2)."""
        cv2.polylines(self.pixels, [self._fixed(points)], closed, color, self._thickness(width), cv2.LINE_AA, _SHIFT)

    def dashes(self, paths: Sequence[np.ndarray], color: Color, width: float = 1, dash: float = 5) -> None:
        """Polylines (N, 2) of dashes; dash and gap are equally long, and every polyline begins with a dash."""
        pieces = [piece for path in paths for piece in _dashes(np.asarray(path, np.float64), dash)]
        if pieces:
            fixed = list(self._fixed(np.concatenate(pieces)).reshape(-1, 2, 2))
            cv2.polylines(self.pixels, fixed, False, color, self._thickness(width), cv2.LINE_AA, _SHIFT)

    def fill(self, points: np.ndarray, color: Color, alpha: float = 1.0) -> None:
        """A filled polygon (N, 2), blended with the pixels below by alpha."""
        fixed = self._fixed(points)
        if alpha >= 1:
            cv2.fillPoly(self.pixels, [fixed], color, cv2.LINE_AA, _SHIFT)
            return
        low = np.clip(fixed.min(0) >> _SHIFT, 0, None)
        high = np.clip((fixed.max(0) >> _SHIFT) + 2, 0, self.pixels.shape[1::-1])
        if (high <= low).any():
            return
        window = self.pixels[low[1] : high[1], low[0] : high[0]]
        layer = window.copy()
        cv2.fillPoly(layer, [fixed - (low << _SHIFT).astype(np.int32)], color, cv2.LINE_AA, _SHIFT)
        window[:] = cv2.addWeighted(layer, alpha, window, 1 - alpha, 0)

    def box(self, x: float, y: float, width: float, height: float, color: Color, alpha: float = 1.0) -> None:
        """A filled rectangle."""
        self.fill(np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]]), color, alpha)

    def disc(self, x: float, y: float, radius: float, color: Color, width: float | None = None) -> None:
        """A disc, or a ring of the given line width."""
        if abs(x) > _FAR or abs(y) > _FAR:
            return
        center = self._fixed(np.array([x, y]))[0]
        thickness = -1 if width is None else self._thickness(width)
        size = round(radius * SUPERSAMPLING * (1 << _SHIFT))
        cv2.circle(self.pixels, (int(center[0]), int(center[1])), size, color, thickness, cv2.LINE_AA, _SHIFT)

    def dots(self, points: np.ndarray, colors: np.ndarray, radius: float) -> None:
        """Discs without anti-aliasing, all at once; later ones lie above earlier ones.

        Args:
            points: (N, 2) px; those outside the canvas and those that are not finite are omitted.
            colors: (N, 3) uint8 RGB.
            radius: px.
        """
        reach = math.ceil(radius * SUPERSAMPLING)
        height, width = self.pixels.shape[:2]
        scaled = np.asarray(points, np.float64).reshape(-1, 2) * SUPERSAMPLING
        with np.errstate(invalid="ignore"):
            inside = ((scaled >= 0) & (scaled < [width, height])).all(1)
        x, y = np.floor(scaled[inside]).astype(int).T
        offsets = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
        down, right = offsets[:, (offsets**2).sum(0) <= (radius * SUPERSAMPLING) ** 2]
        rows, columns = (y[:, None] + down).ravel(), (x[:, None] + right).ravel()
        visible = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        self.pixels[rows[visible], columns[visible]] = colors[inside].repeat(len(down), 0)[visible]

    def image(self, pixels: np.ndarray) -> None:
        """Fills the canvas with an RGB image."""
        height, width = self.pixels.shape[:2]
        shrinks = pixels.shape[1] >= width
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        self.pixels[:] = cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=method)

    def color_bar(self, x: float, y: float, width: float, height: float, colors: np.ndarray) -> None:
        """A rectangle of columns of colours (N, 3)."""
        s = SUPERSAMPLING
        window = self.pixels[round(y * s) : round((y + height) * s), round(x * s) : round((x + width) * s)]
        if window.size:
            window[:] = colors[np.linspace(0, len(colors) - 1, window.shape[1]).round().astype(int)]

    def text_width(self, text: str, size: float, bold: bool = False) -> float:
        """Width in logical pixels."""
        return text_mask(text, round(size * SUPERSAMPLING), bold).advance / SUPERSAMPLING

    def text(
        self, x: float, y: float, text: str, color: Color, size: float = 12, bold: bool = False, anchor: str = "left"
    ) -> float:
        """Writes text with the baseline at y, in a font of `size` px; returns the width in px."""
        mask = text_mask(text, round(size * SUPERSAMPLING), bold)
        width = mask.advance / SUPERSAMPLING
        start = x - {"left": 0.0, "center": width / 2, "right": width}[anchor]
        left, top = round(start * SUPERSAMPLING) + mask.left, round(y * SUPERSAMPLING) + mask.top
        cut_x, cut_y = max(0, -left), max(0, -top)
        coverage = mask.coverage[cut_y:, cut_x:]
        window = self.pixels[max(0, top) :, max(0, left) :][: coverage.shape[0], : coverage.shape[1]]
        share = coverage[: window.shape[0], : window.shape[1], None].astype(np.float32) / 255
        window[:] = np.rint(window + share * (np.asarray(color, np.float32) - window))
        return width


def _dashes(path: np.ndarray, dash: float) -> list[np.ndarray]:
    """The dashes (2, 2) of a polyline, one for every second `dash` px of its length."""
    steps = np.hypot(*np.diff(path, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    if not 0 < along[-1] < _FAR:
        return []
    begin = np.arange(0, along[-1], 2 * dash)
    ends = np.stack([begin, np.minimum(begin + dash, along[-1])], 1)
    return list(np.stack([np.interp(ends, along, path[:, axis]) for axis in (0, 1)], -1))
