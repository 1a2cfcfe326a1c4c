"""Low-polygon shapes of the synthetic world's objects and fixtures, each in its own frame.

Origin at the middle of the footprint on the ground, x forward, y left, z up; a shape fills its box of length l,
width w, height h. It is one or more pieces with disjoint footprints, so that they can be sorted by depth.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from imkd_edge.sources.synth.pieces import GLASS, METAL, RUBBER, Colour, Piece, box, disc, frustum, panel, unit3, wheels
from imkd_edge.sources.synth.yard import forklift, pallet

HIP, SHOULDER = 0.47, 0.8  # of a person's height
_WHITE_LAMP, _RED_LAMP = (250, 250, 225), (205, 22, 20)


def car(l, w, h, colour: Colour, rng: np.random.Generator) -> list[Piece]:
    """A saloon, a hatchback or a van, at random."""
    style = rng.integers(3)  # saloon, hatchback, van
    rear_low, rear_high, nose, brow = [
        (-0.40, -0.26, 0.24, 0.06),
        (-0.49, -0.40, 0.22, 0.06),
        (-0.5, -0.47, 0.32, 0.18),
    ][style]
    belt, sill = (0.56 if style < 2 else 0.52) * h, 0.16

    # body with lamps and plates
    piece = Piece((-l / 2, l / 2, -w / 2, w / 2))
    low, high = (-l / 2, l / 2, -w / 2, w / 2), (-l / 2 * 0.99, l / 2 * 0.97, -w / 2 * 0.96, w / 2 * 0.96)
    frustum(piece, low, high, sill, belt, colour)
    dark = tuple(0.45 * c for c in colour)
    for face in ("front", "back", "left", "right"):
        panel(piece, low, high, sill, belt, face, 0.0, 1.0, 0.0, 0.16, dark, 0.15)
    for u in (0.03, 0.75):
        panel(piece, low, high, sill, belt, "front", u, u + 0.22, 0.55, 0.82, _WHITE_LAMP, 0.25, True)
        panel(piece, low, high, sill, belt, "back", u, u + 0.22, 0.6, 0.9, _RED_LAMP, 0.25, True)
    panel(piece, low, high, sill, belt, "front", 0.3, 0.7, 0.3, 0.7, (40, 40, 44), 0.3)
    panel(piece, low, high, sill, belt, "back", 0.38, 0.62, 0.35, 0.55, (235, 235, 230), 0.3)
    wheels(piece, (-0.31 * l, 0.32 * l), w, 0.32)

    # cabin with windows
    base = (rear_low * l, nose * l, -w / 2 * 0.94, w / 2 * 0.94)
    roof = (rear_high * l, brow * l, -w / 2 * 0.76, w / 2 * 0.76)
    frustum(piece, base, roof, belt, h, colour)
    panel(piece, base, roof, belt, h, "front", 0.06, 0.94, 0.08, 0.9, GLASS, 0.4)
    panel(piece, base, roof, belt, h, "back", 0.08, 0.92, 0.12, 0.88, GLASS, 0.4)
    for face in ("left", "right"):
        panel(piece, base, roof, belt, h, face, 0.06, 0.48, 0.12, 0.88, GLASS, 0.4)
        panel(piece, base, roof, belt, h, face, 0.52, 0.94, 0.12, 0.88, GLASS, 0.4)

    piece.solid(*low, sill, belt, "paint")
    x0, x1, y0, y1 = (np.array(base) + np.array(roof)) / 2
    piece.solid(x0, x1, y0, y1, belt, h, "glass")
    return [piece]


def truck(l, w, h, colour: Colour, rng: np.random.Generator) -> list[Piece]:
    """A cab and, as a second piece, a cargo box of another colour."""
    cab_length = min(2.1, 0.32 * l)
    split = l / 2 - cab_length
    cargo_colour: Colour = [(228, 228, 222), (196, 200, 206), (70, 96, 140), (176, 120, 70)][rng.integers(4)]

    cab = Piece((split + 0.05, l / 2, -w / 2, w / 2))
    low, high = (split + 0.05, l / 2, -w / 2, w / 2), (split + 0.05, l / 2 - 0.12, -w / 2 * 0.96, w / 2 * 0.96)
    top = min(h * 0.86, 2.9)
    frustum(cab, low, high, 0.35, top, colour)
    panel(cab, low, high, 0.35, top, "front", 0.06, 0.94, 0.52, 0.9, GLASS, 0.6)
    panel(cab, low, high, 0.35, top, "front", 0.22, 0.78, 0.12, 0.4, (50, 50, 54), 0.6)
    for u in (0.04, 0.8):
        panel(cab, low, high, 0.35, top, "front", u, u + 0.16, 0.1, 0.24, _WHITE_LAMP, 0.3, True)
    for face, a, b in (("left", 0.45, 0.92), ("right", 0.08, 0.55)):
        panel(cab, low, high, 0.35, top, face, a, b, 0.55, 0.88, GLASS, 0.6)
    wheels(cab, (l / 2 - 0.55 * cab_length,), w, 0.48)
    cab.solid(*low, 0.35, top, "paint")

    cargo = Piece((-l / 2, split, -w / 2, w / 2))
    box(cargo, -l / 2, split, -w / 2 * 0.9, w / 2 * 0.9, 0.45, 1.0, (58, 58, 60))
    wheels(cargo, (-l / 2 + 0.7, -l / 2 + 1.75), w, 0.48)
    low = (-l / 2, split, -w / 2, w / 2)
    frustum(cargo, low, low, 1.0, h, cargo_colour)
    for face in ("left", "right"):
        panel(cargo, low, low, 1.0, h, face, 0.1, 0.9, 0.32, 0.5, tuple(0.6 * c for c in colour), 0.5)
    panel(cargo, low, low, 1.0, h, "back", 0.485, 0.515, 0.02, 0.98, (60, 60, 60), 0.3)
    for u in (0.02, 0.86):
        panel(cargo, low, low, 1.0, h, "back", u, u + 0.12, 0.0, 0.07, _RED_LAMP, 0.3, True)
    cargo.solid(-l / 2, split, -w / 2 * 0.9, w / 2 * 0.9, 0.45, 1.0, "dark")
    cargo.solid(*low, 1.0, h, "panel")
    return [cab, cargo]


def bus(l, w, h, colour: Colour, rng: np.random.Generator) -> list[Piece]:
    """One long box with windows along both sides and a lit sign above the windscreen."""
    piece = Piece((-l / 2, l / 2, -w / 2, w / 2))
    low = (-l / 2, l / 2, -w / 2, w / 2)
    frustum(piece, low, low, 0.25, h, colour, roof=(225, 225, 225))
    for face in ("left", "right"):
        count = int(l / 1.5)
        for i in range(count):
            panel(piece, low, low, 0.25, h, face, (i + 0.12) / count, (i + 0.92) / count, 0.42, 0.86, GLASS, 0.7)
    panel(piece, low, low, 0.25, h, "front", 0.04, 0.96, 0.32, 0.84, GLASS, 0.7)
    panel(piece, low, low, 0.25, h, "front", 0.2, 0.8, 0.87, 0.97, (250, 170, 40), 0.4, True)
    panel(piece, low, low, 0.25, h, "back", 0.12, 0.88, 0.55, 0.85, GLASS, 0.7)
    for u in (0.03, 0.83):
        panel(piece, low, low, 0.25, h, "front", u, u + 0.14, 0.08, 0.16, _WHITE_LAMP, 0.3, True)
        panel(piece, low, low, 0.25, h, "back", u, u + 0.14, 0.1, 0.26, _RED_LAMP, 0.3, True)
    wheels(piece, (-0.3 * l, 0.28 * l), w, 0.5)
    piece.solid(*low, 0.25, h, "panel")
    return [piece]


def _skin(rng: np.random.Generator) -> Colour:
    return [(224, 178, 148), (190, 138, 104), (120, 82, 60)][rng.integers(3)]


def pedestrian(l, w, h, colour: Colour, rng: np.random.Generator) -> list[Piece]:
    """A person with swinging legs and arms; `colour` is that of the jacket."""
    piece = Piece((-l / 2, l / 2, -w / 2, w / 2))
    trousers: Colour = [(40, 44, 62), (60, 56, 50), (30, 30, 32), (96, 90, 80)][rng.integers(4)]
    hip, neck, t = HIP * h, 0.84 * h, 0.14
    for side, swing in ((1, 1.0), (-1, -1.0)):
        box(piece, -0.09, 0.09, *_sides(side, 0.03, 0.19), 0, hip, trousers, swing)
    sleeve = tuple(0.85 * c for c in colour)
    for side, swing in ((1, -0.7), (-1, 0.7)):
        box(piece, -0.06, 0.06, *_sides(side, 0.24, w / 2), 0.45 * h, SHOULDER * h, sleeve, swing)
    frustum(piece, (-t, t, -0.2, 0.2), (-t, t, -0.25, 0.25), hip, neck, colour)
    skin, hair, head = _skin(rng), (50, 38, 30), (-0.1, 0.1, -0.09, 0.09)
    frustum(piece, head, head, neck, h, skin, roof=hair)
    panel(piece, head, head, neck, h, "back", 0, 1, 0.3, 1, hair, 0.15)
    piece.solid(-0.16, 0.16, -0.2, 0.2, 0, hip, "cloth")
    piece.solid(-t, t, -w / 2, w / 2, hip, neck, "cloth")
    piece.solid(*head, neck, h, "skin")
    return [piece]


def _sides(side: int, inner: float, outer: float) -> tuple[float, float]:
    """y from, y to of a part between two offsets, on the left (1) or the right (-1)."""
    return min(side * inner, side * outer), max(side * inner, side * outer)


def _ring(piece: Piece, x, radius, colour: Colour, thick: float) -> None:
    """A wheel of eight segments in the plane y = 0, visible from both sides."""
    angle = np.arange(9) * np.pi / 4
    for a, b in pairwise(angle):
        points = [
            (x + r * np.cos(q), 0.0, radius + r * np.sin(q))
            for r, q in ((radius, a), (radius, b), (radius - thick, b), (radius - thick, a))
        ]
        piece.add(points, (0, 0, 0), colour)


def _rider(piece: Piece, x, seat, w, h, colour: Colour, rng: np.random.Generator) -> None:
    """A person who sits at x, leaning forward: legs, trunk, arms to the handlebar, head with a helmet."""
    neck = h - 0.24
    for side in (1, -1):
        box(piece, x + 0.05, x + 0.2, *_sides(side, 0.07, 0.2), 0.22, seat + 0.08, (48, 50, 64))
    frustum(piece, (x - 0.16, x + 0.12, -0.17, 0.17), (x + 0.02, x + 0.3, -0.2, 0.2), seat, neck, colour)
    for side in (1, -1):
        hands, shoulders = (x + 0.45, x + 0.6), (x + 0.1, x + 0.28)
        y = _sides(side, 0.2, w / 2)
        frustum(piece, (*hands, *y), (*shoulders, *y), neck - 0.38, neck - 0.08, colour)
    box(piece, x + 0.1, x + 0.3, -0.09, 0.09, neck, h, _skin(rng))
    rim = [(x + 0.08, -0.1), (x + 0.32, -0.1), (x + 0.32, 0.1), (x + 0.08, 0.1)]
    piece.add([(*xy, h - 0.1) for xy in rim], (0, 0, 1), (40, 40, 46))


def bicycle(l, w, h, colour: Colour, rng: np.random.Generator) -> list[Piece]:
    """Two wheels, a frame and the rider, who is part of the box; `colour` is that of the rider's clothes."""
    piece = Piece((-l / 2, l / 2, -w / 2, w / 2))
    radius = 0.34
    back, front = -l / 2 + radius, l / 2 - radius
    _ring(piece, back, radius, RUBBER, 0.07)
    _ring(piece, front, radius, RUBBER, 0.07)
    frame: Colour = [(190, 40, 40), (40, 90, 180), (230, 230, 230), (50, 140, 80)][rng.integers(4)]
    bars = [
        ((back, radius), (0, 0.32)),
        ((0, 0.32), (front - 0.1, 0.85)),
        ((back, radius), (-0.2, 0.85)),
        ((-0.2, 0.85), (front - 0.1, 0.85)),
        ((0, 0.32), (-0.2, 0.9)),
        ((front, radius), (front - 0.15, 1.0)),
    ]
    for (xa, za), (xb, zb) in bars:
        x, z = np.array([za - zb, xb - xa]) / np.hypot(xb - xa, zb - za) * 0.025  # half a tube's width across it
        tube = [(xa + x, 0, za + z), (xb + x, 0, zb + z), (xb - x, 0, zb - z), (xa - x, 0, za - z)]
        piece.add(tube, (0, 0, 0), frame)
    box(piece, front - 0.2, front - 0.1, -w / 2, w / 2, 1.0, 1.05, RUBBER)
    _rider(piece, -0.25, 0.9, w, h, colour, rng)
    piece.solid(-l / 2, l / 2, -0.05, 0.05, 0.0, 0.8, "metal")
    piece.solid(-0.4, 0.1, -w / 2, w / 2, 0.8, h, "cloth")
    return [piece]


def motorcycle(l, w, h, colour: Colour, rng: np.random.Generator) -> list[Piece]:
    """Two wheels, a body in `colour` and the rider, who is part of the box."""
    piece = Piece((-l / 2, l / 2, -w / 2, w / 2))
    radius = 0.32
    for x in (-l / 2 + radius, l / 2 - radius):
        box(piece, x - radius, x + radius, -0.07, 0.07, 0.05, 2 * radius - 0.05, RUBBER)
        disc(piece, x, 0.075, radius, radius, RUBBER, 0, 0.0)
        disc(piece, x, 0.08, radius, radius * 0.55, METAL, 0, radius)
    low, high = (-0.3 * l, 0.28 * l, -0.16, 0.16), (-0.42 * l, 0.2 * l, -0.14, 0.14)
    frustum(piece, low, high, 0.3, 0.82, colour)
    fairing, screen = (0.2 * l, 0.4 * l, -w / 2 * 0.6, w / 2 * 0.6), (0.2 * l, 0.3 * l, -w / 2 * 0.5, w / 2 * 0.5)
    frustum(piece, fairing, screen, 0.6, 1.1, colour)
    panel(piece, fairing, screen, 0.6, 1.1, "front", 0.3, 0.7, 0.3, 0.6, (255, 255, 225), 0.15, True)
    panel(piece, low, high, 0.3, 0.82, "back", 0.2, 0.8, 0.6, 0.9, _RED_LAMP, 0.15, True)
    _rider(piece, -0.3, 0.8, w, h, [(40, 42, 50), (120, 30, 30), (60, 70, 90)][rng.integers(3)], rng)
    piece.solid(-l / 2, l / 2, -0.16, 0.16, 0.0, 0.82, "metal")
    piece.solid(-0.45, 0.2, -w / 2, w / 2, 0.82, h, "cloth")
    return [piece]


def building(l, w, h, colour: Colour, rng: np.random.Generator) -> list[Piece]:
    """A block with a flat roof and, on all sides, a row of windows for every 3.2 m of height."""
    piece = Piece((-l / 2, l / 2, -w / 2, w / 2))
    low = (-l / 2, l / 2, -w / 2, w / 2)
    frustum(piece, low, low, 0, h, colour, roof=(110, 100, 96))
    floor = 3.2
    window: Colour = [(58, 70, 86), (84, 96, 108), (46, 50, 58)][rng.integers(3)]
    for face, extent in (("left", l), ("right", l), ("front", w), ("back", w)):
        columns = max(1, int(extent / 2.6))
        panel(piece, low, low, 0, h, face, 0, 1, 0, 0.6 / h, tuple(0.6 * c for c in colour), 0.6)
        for k in range(max(1, int(h / floor))):
            for i in range(columns):
                left, right = (i + 0.22) / columns, (i + 0.78) / columns
                z = (k * floor + (1.0 if k else 0.7)) / h
                panel(piece, low, low, 0, h, face, left, right, z, z + 1.5 / h, window, 1.4)
    piece.solid(*low, 0, h, "stone")
    return [piece]


def slab(l, w, h, colour: Colour, rng: np.random.Generator) -> list[Piece]:
    """A wall, a hedge, a kiosk, a bin: a plain box."""
    low = (-l / 2, l / 2, -w / 2, w / 2)
    piece = Piece(low)
    box(piece, *low, 0, h, colour)
    for face in ("left", "right"):
        panel(piece, low, low, 0, h, face, 0, 1, 0.9, 1, tuple(0.7 * c for c in colour), 0.3)
    piece.solid(*low, 0, h, "stone")
    return [piece]


def pole(l, w, h, colour: Colour, rng: np.random.Generator) -> list[Piece]:
    """A mast with a road sign near its top or, more often, a crossbar."""
    piece = Piece((-l / 2, l / 2, -w / 2, w / 2))
    box(piece, -l / 2, l / 2, -w / 2, w / 2, 0, h, colour)
    if rng.random() < 0.4:  # a sign near the top, facing along the road
        sign: Colour = [(200, 30, 30), (30, 80, 170), (240, 200, 40)][rng.integers(3)]
        piece.add([(0, -0.35, h - 0.8), (0, 0.35, h - 0.8), (0, 0.35, h - 0.1), (0, -0.35, h - 0.1)], (0, 0, 0), sign)
    else:
        box(piece, -0.1, 0.1, -0.5, 0.5, h - 0.12, h, colour)
    piece.solid(-l / 2, l / 2, -w / 2, w / 2, 0, h, "metal")
    return [piece]


def tree(l, w, h, colour: Colour, rng: np.random.Generator) -> list[Piece]:
    """A square trunk and an eight-sided crown as wide as l."""
    piece = Piece((-0.15, 0.15, -0.15, 0.15))
    box(piece, -0.15, 0.15, -0.15, 0.15, 0, 0.5 * h, (92, 70, 50))
    angle = np.arange(8) * np.pi / 4 + np.pi / 8
    rings = [(0.38 * h, 0.55), (0.55 * h, 1.0), (0.78 * h, 0.8), (h, 0.25)]
    for (za, ra), (zb, rb) in pairwise(rings):
        ra, rb = ra * l / 2, rb * l / 2
        for a, b in zip(angle, np.roll(angle, -1)):
            corners = ((ra, a, za), (ra, b, za), (rb, b, zb), (rb, a, zb))
            points = [(radius * np.cos(q), radius * np.sin(q), z) for radius, q, z in corners]
            mid = a + np.pi / 8
            normal = unit3((np.cos(mid) * (zb - za), np.sin(mid) * (zb - za), (ra - rb)))
            shade = rng.uniform(0.85, 1.1)
            piece.add(points, normal, tuple(shade * c for c in colour))
    piece.solid(-0.15, 0.15, -0.15, 0.15, 0, 0.4 * h, "bark")
    piece.solid(-0.42 * l, 0.42 * l, -0.42 * l, 0.42 * l, 0.42 * h, 0.95 * h, "leaf")
    return [piece]


BUILDERS = {
    "car": car,
    "truck": truck,
    "bus": bus,
    "pedestrian": pedestrian,
    "bicycle": bicycle,
    "motorcycle": motorcycle,
    "forklift": forklift,
    "pallet": pallet,
    "building": building,
    "slab": slab,
    "pole": pole,
    "tree": tree,
}
