"""The ground of a scene, painted as an image pyramid over the world's x-y plane."""

from __future__ import annotations

import cv2
import numpy as np

from imkd_edge.sources.synth.layout import Layout
from imkd_edge.sources.synth.roads import Road
from imkd_edge.sources.synth.world import Scene

RESOLUTION = 0.1  # m per pixel of the finest level
LEVELS = 4
SHIFT = 4  # fractional bits of polygon corners, as OpenCV takes them
_MARGIN = 34.0  # m of grass around the road
_GRASS, _PAVING, _ASPHALT = (104, 112, 78), (150, 146, 140), (82, 84, 88)
_CYCLE, _PARKING = (120, 74, 66), (98, 98, 100)
_WHITE, _YELLOW, _KERB = (214, 214, 208), (206, 170, 60), (172, 170, 166)
_SIDE_STREET = 4.0  # m, half its width
_JUNCTION = 5.5  # m to both sides of a side street without lane marks


def fixed_point(pixels: np.ndarray) -> np.ndarray:
    """Pixel coordinates as int32 with SHIFT fractional bits."""
    return np.round(pixels * (1 << SHIFT)).astype(np.int32)


class Ground:
    """RGB levels of the map; level k has RESOLUTION * 2**k m per pixel and pixel (0, 0)'s centre near `origin`."""

    def __init__(self, scene: Scene):
        road = scene.road
        s = np.arange(scene.first - 25, scene.last + 25, 2.0)
        middle = road.point(s)
        self.origin = middle.min(0) - _MARGIN  # world x, y of the corner of pixel (0, 0)
        width, height = np.ceil((middle.max(0) + _MARGIN - self.origin) / RESOLUTION / 8).astype(int) * 8
        image = np.empty((height, width, 3), np.uint8)
        image[:] = _GRASS
        self._paint(image, scene, s)
        _grain(image, scene)
        self.levels = [image]
        for _ in range(LEVELS - 1):
            image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            self.levels.append(image)
        # brightness of level 1 without shadows, for the LiDAR
        self.bare = cv2.cvtColor(self.levels[1], cv2.COLOR_RGB2GRAY)
        self.border = tuple(int(v) for v in image.reshape(-1, 3)[::97].mean(0) * 0.2 + np.array(_GRASS) * 0.8)

    def pixels(self, xy: np.ndarray, level: int) -> np.ndarray:
        """Map pixels (..., 2) of a level, centres at integers, of world points (..., 2) m."""
        return (xy - self.origin) / (RESOLUTION * 2**level) - 0.5

    def _fill(self, image: np.ndarray, polygon: np.ndarray, colour) -> None:
        cv2.fillPoly(image, [fixed_point(self.pixels(polygon, 0))], colour, cv2.LINE_8, SHIFT)

    def _strip(self, image, road, s, low, high, colour) -> None:
        """The band between two offsets along the road, in chunks: a longer polygon could cross itself."""
        for i in range(0, len(s) - 1, 8):
            chunk = s[i : i + 9]
            self._fill(image, np.concatenate([road.point(chunk, low), road.point(chunk[::-1], high)]), colour)

    def _paint(self, image: np.ndarray, scene: Scene, s: np.ndarray) -> None:
        road, layout = scene.road, scene.layout
        street = layout.crossing_street

        # surfaces
        if street is not None:
            self._side_street(image, road, street, layout.walk + 60, layout.walk - layout.kerb)
        for side in (1, -1):
            self._strip(image, road, s, side * layout.kerb, side * layout.walk, _PAVING)
        self._strip(image, road, s, -layout.kerb, layout.kerb, _ASPHALT)
        if street is not None:
            self._side_street(image, road, street, layout.walk + 1, 0.0)

        # lanes and their marks, interrupted at the junction
        stretches = [s] if street is None else [s[s < street - _JUNCTION], s[s > street + _JUNCTION]]
        for stretch in stretches:
            self._lanes(image, road, layout, stretch)
        if layout.zebra is not None:
            along = np.array([layout.zebra - 1.9, layout.zebra + 1.9])
            for offset in np.arange(-layout.kerb + 0.5, layout.kerb - 0.4, 1.0):
                self._strip(image, road, along, offset - 0.25, offset + 0.25, _WHITE)

    def _lanes(self, image: np.ndarray, road: Road, layout: Layout, s: np.ndarray) -> None:
        edge, path = layout.edge(), layout.path()
        for side in (1, -1):
            self._strip(image, road, s, side * path, side * layout.kerb, _PARKING)
            if layout.red_cycle_path:
                self._strip(image, road, s, side * (edge + 0.1), side * path, _CYCLE)
            for offset, colour, width in ((edge, _WHITE, 0.12), (path, _WHITE, 0.1), (layout.kerb, _KERB, 0.25)):
                self._strip(image, road, s, side * (offset - width / 2), side * (offset + width / 2), colour)
            for lane in range(1, layout.lanes):
                self._dashes(image, road, s, side * lane * layout.lane_width)
        if layout.centre_yellow:
            for offset in (-0.13, 0.13):
                self._strip(image, road, s, offset - 0.05, offset + 0.05, _YELLOW)
        else:
            self._dashes(image, road, s, 0.0)

    def _dashes(self, image, road, s, offset) -> None:
        if len(s) < 2:
            return
        for start in np.arange(s[0], s[-1] - 3, 9.0):
            self._strip(image, road, np.array([start, start + 3.0]), offset - 0.07, offset + 0.07, _WHITE)

    def _side_street(self, image, road, s, reach, sidewalk) -> None:
        origin, heading = road.point(np.array(s)), float(road.heading(np.array(s)))
        along = np.array([-np.sin(heading), np.cos(heading)])
        across = np.array([np.cos(heading), np.sin(heading)])
        bands = [(-_SIDE_STREET - sidewalk, _SIDE_STREET + sidewalk, _PAVING)] if sidewalk else []
        for low, high, colour in [*bands, (-_SIDE_STREET, _SIDE_STREET, _ASPHALT)]:
            corners = [origin + a * reach * along + b * across for a, b in ((-1, low), (-1, high), (1, high), (1, low))]
            self._fill(image, np.array(corners), colour)


_TILES: dict[int, np.ndarray] = {}


def _tile(size: int = 512) -> np.ndarray:
    """A tile of fine and coarse noise around 128, the same in every scene."""
    if size not in _TILES:
        rng = np.random.default_rng(12345)
        noise = rng.normal(0, 7.0, (size, size))
        for cells, strength in ((64, 5.0), (16, 6.0), (4, 5.0)):
            coarse = rng.normal(0, strength, (cells, cells)).astype(np.float32)
            coarse = np.pad(coarse, 2, mode="wrap")
            scale = size // cells
            fine = cv2.resize(coarse, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
            noise += fine[2 * scale : -2 * scale, 2 * scale : -2 * scale]
        _TILES[size] = noise
    return _TILES[size]


def _grain(image: np.ndarray, scene: Scene) -> None:
    """Adds the tile of noise all over the map, shifted by the scene."""
    noise = np.round(_tile()).astype(np.int16)
    shift = np.random.default_rng([scene.seed, scene.index, 3]).integers(0, 512, 2)
    noise = np.roll(noise, tuple(shift), (0, 1))
    up, down = np.clip(noise, 0, 255).astype(np.uint8), np.clip(-noise, 0, 255).astype(np.uint8)
    height, width = image.shape[:2]
    for y in range(0, height, 512):
        for x in range(0, width, 512):
            block = image[y : y + 512, x : x + 512]
            h, w = block.shape[:2]
            cv2.add(block, cv2.merge([up[:h, :w]] * 3), dst=block)
            cv2.subtract(block, cv2.merge([down[:h, :w]] * 3), dst=block)
