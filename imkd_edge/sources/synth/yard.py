"""Shapes of a yard, beside those of a street: forklifts and loaded pallets. See shapes.py."""

from __future__ import annotations

import numpy as np

from imkd_edge.sources.synth.pieces import METAL, RUBBER, Colour, Piece, box, disc, frustum, panel

_WOOD: Colour = (166, 132, 88)
_DARK: Colour = (44, 46, 50)
_LOADS: list[Colour] = [(186, 152, 108), (202, 196, 184), (70, 110, 150), (150, 60, 50)]


def forklift(l, w, h, colour: Colour, rng: np.random.Generator) -> list[Piece]:
    """A body with a counterweight, a roof on four posts, a mast and two forks ahead of it."""
    piece = Piece((-l / 2, l / 2, -w / 2, w / 2))
    front, mast = 0.5 * l - 0.42 * l, 0.5 * l - 0.36 * l  # x of the body's front and of the mast
    for side in (1.0, -1.0):  # the forks lie lowest and farthest ahead
        box(piece, mast, l / 2, side * 0.22 * w - 0.06, side * 0.22 * w + 0.06, 0.08, 0.14, _DARK)
    low, high = (-l / 2, front, -w / 2, w / 2), (-l / 2 + 0.08, front, -w / 2 * 0.92, w / 2 * 0.92)
    frustum(piece, low, high, 0.16, 0.42 * h, colour)
    panel(piece, low, high, 0.16, 0.42 * h, "back", 0.05, 0.95, 0.1, 0.9, _DARK, 0.3)
    for face in ("left", "right"):
        panel(piece, low, high, 0.16, 0.42 * h, face, 0.0, 1.0, 0.0, 0.25, _DARK, 0.15)
    for side in (1.0, -1.0):
        for x, radius in ((-l / 2 + 0.12 * l, 0.2), (front - 0.1 * l, 0.26)):
            disc(piece, x, side * w / 2, radius, radius, RUBBER, side, 0.0)
            disc(piece, x, side * w / 2, radius, radius * 0.5, METAL, side, radius)
    box(piece, -0.28 * l, -0.16 * l, -0.2 * w, 0.2 * w, 0.42 * h, 0.7 * h, (30, 32, 36))  # the seat
    for x in (-l / 2 + 0.1, front - 0.06):
        for side in (1.0, -1.0):
            y = side * (w / 2 - 0.1)
            box(piece, x - 0.04, x + 0.04, y - 0.04, y + 0.04, 0.42 * h, 0.95 * h, _DARK)
    box(piece, -l / 2 + 0.05, front, -w / 2 * 0.9, w / 2 * 0.9, 0.95 * h, h, colour)
    for side in (1.0, -1.0):
        box(piece, front, mast, side * 0.25 * w - 0.05, side * 0.25 * w + 0.05, 0.08, h, _DARK)
    piece.solid(*low, 0.16, 0.42 * h, "paint")
    piece.solid(front, mast, -0.3 * w, 0.3 * w, 0.08, h, "metal")
    piece.solid(-l / 2 + 0.05, front, -w / 2 * 0.9, w / 2 * 0.9, 0.95 * h, h, "paint")
    piece.solid(mast, l / 2, -0.3 * w, 0.3 * w, 0.08, 0.14, "metal")
    return [piece]


def pallet(l, w, h, colour: Colour, rng: np.random.Generator) -> list[Piece]:
    """A wooden deck on blocks, and a load on it where there is height for one."""
    low = (-l / 2, l / 2, -w / 2, w / 2)
    piece, deck = Piece(low), min(0.15, h)
    box(piece, *low, 0.0, deck, _WOOD)
    for face in ("left", "right", "front", "back"):
        for left, right in ((0.14, 0.42), (0.58, 0.86)):
            panel(piece, low, low, 0.0, deck, face, left, right, 0.1, 0.65, (40, 34, 26), 0.1)
    piece.solid(*low, 0.0, deck, "bark")
    if h > deck + 0.05:
        load = (-l / 2 * 0.96, l / 2 * 0.96, -w / 2 * 0.96, w / 2 * 0.96)
        tint = _LOADS[rng.integers(len(_LOADS))]
        box(piece, *load, deck, h, tint)
        for face in ("left", "right", "front", "back"):
            panel(piece, load, load, deck, h, face, 0.46, 0.54, 0.0, 1.0, tuple(0.7 * c for c in tint), 0.1)
            panel(piece, load, load, deck, h, face, 0.1, 0.36, 0.55, 0.8, (236, 236, 230), 0.2)
        piece.solid(*load, deck, h, "panel")
    return [piece]
