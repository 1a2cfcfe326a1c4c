"""Pieces of shapes: flat polygons with decals, and solids for rays."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Colour = tuple[float, ...]  # red, green, blue 0..255
GLASS: Colour = (38, 46, 58)
RUBBER: Colour = (24, 24, 26)
METAL: Colour = (120, 122, 126)


@dataclass
class Piece:
    """Polygons in drawing order over one rectangular footprint; the renderer culls back faces."""

    footprint: tuple[float, float, float, float]  # x min, x max, y min, y max, m
    polygons: list[np.ndarray] = field(default_factory=list)  # each (k, 3) m, convex, planar
    normals: list[tuple[float, float, float]] = field(default_factory=list)  # outward unit; 0 0 0: two-sided
    colours: list[Colour] = field(default_factory=list)
    details: list[float] = field(default_factory=list)  # m; drawn where larger than a pixel; 0: part of the outline
    glowing: list[bool] = field(default_factory=list)  # lamps: unshaded
    swings: list[float] = field(default_factory=list)  # legs: share of the walking swing at the lowest vertex
    solids: list[tuple[np.ndarray, str]] = field(default_factory=list)  # ((6,) x0 x1 y0 y1 z0 z1, material) for rays

    def add(
        self,
        points,  # (k, 3) m
        normal,  # (3,)
        colour: Colour,
        detail: float = 0.0,
        glow: bool = False,
        swing: float = 0.0,
    ) -> None:
        """Adds a polygon; each argument is an entry of its field."""
        self.polygons.append(np.asarray(points, float))
        self.normals.append(normal)
        self.colours.append(colour)
        self.details.append(detail)
        self.glowing.append(glow)
        self.swings.append(swing)

    def solid(self, x0, x1, y0, y1, z0, z1, material: str) -> None:
        """Adds a box, m, that LiDAR rays hit; its material is one of lidar.MATERIALS."""
        self.solids.append((np.array([x0, x1, y0, y1, z0, z1], float), material))


def frustum(
    piece: Piece, low, high, z0: float, z1: float, colour: Colour, swing: float = 0.0, roof: Colour | None = None
) -> None:
    """Five outer faces of a prism whose rectangle `low` (x0, x1, y0, y1) at z0 shrinks to `high` at z1."""
    a, b, c, d = low
    e, f, g, h = high
    dz = max(z1 - z0, 1e-6)
    faces = [
        ([(b, c, z0), (b, d, z0), (f, h, z1), (f, g, z1)], (dz, 0, b - f)),
        ([(a, d, z0), (a, c, z0), (e, g, z1), (e, h, z1)], (-dz, 0, e - a)),
        ([(b, d, z0), (a, d, z0), (e, h, z1), (f, h, z1)], (0, dz, d - h)),
        ([(a, c, z0), (b, c, z0), (f, g, z1), (e, g, z1)], (0, -dz, g - c)),
    ]
    for points, normal in faces:
        piece.add(points, unit3(normal), colour, swing=swing)
    piece.add([(e, g, z1), (f, g, z1), (f, h, z1), (e, h, z1)], (0, 0, 1), roof or colour, swing=swing)


def unit3(v) -> tuple[float, float, float]:
    """A vector (3,) scaled to length 1."""
    v = np.asarray(v, float)
    return tuple(v / np.linalg.norm(v))


def panel(
    piece: Piece, low, high, z0, z1, face: str, u0, u1, v0, v1, colour: Colour, detail: float, glow=False
) -> None:
    """A decal on one side of a frustum: u from 0 to 1 along the face (left to right from outside), v upwards."""
    a, b, c, d = low
    e, f, g, h = high
    corners = {
        "front": ((b, d, z0), (b, c, z0), (f, h, z1), (f, g, z1)),
        "back": ((a, c, z0), (a, d, z0), (e, g, z1), (e, h, z1)),
        "left": ((a, d, z0), (b, d, z0), (e, h, z1), (f, h, z1)),
        "right": ((b, c, z0), (a, c, z0), (f, g, z1), (e, g, z1)),
    }[face]
    p00, p10, p01, p11 = (np.array(p, float) for p in corners)
    dz = max(z1 - z0, 1e-6)
    normal = {"front": (dz, 0, b - f), "back": (-dz, 0, e - a), "left": (0, dz, d - h), "right": (0, -dz, g - c)}[face]
    u, v = np.array([u0, u1, u1, u0], float)[:, None], np.array([v0, v0, v1, v1], float)[:, None]
    points = (1 - u) * (1 - v) * p00 + u * (1 - v) * p10 + (1 - u) * v * p01 + u * v * p11  # (4, 3)
    piece.add(points, unit3(normal), colour, detail, glow)


def box(piece: Piece, x0, x1, y0, y1, z0, z1, colour: Colour, swing: float = 0.0) -> None:
    """Top and sides of an upright box, m, for pictures only: rays hit a `solid`."""
    frustum(piece, (x0, x1, y0, y1), (x0, x1, y0, y1), z0, z1, colour, swing)


def disc(piece: Piece, x, y, z, radius, colour: Colour, side: float, detail: float, corners: int = 10) -> None:
    """A wheel in a plane y; side +1 faces left, -1 right, 0 both."""
    angle = np.arange(corners) * 2 * np.pi / corners
    points = np.stack([x + radius * np.cos(angle), np.full(corners, y), z + radius * np.sin(angle)], 1)
    piece.add(points, (0, side, 0), colour, detail)


def wheels(piece: Piece, axles, width: float, radius: float) -> None:
    """A tyre and its hub on either side at each x of `axles`, m, on the ground."""
    for side in (1.0, -1.0):
        for x in axles:
            disc(piece, x, side * width / 2, radius, radius, RUBBER, side, 0.0)
            disc(piece, x, side * width / 2, radius, radius * 0.5, METAL, side, radius)
