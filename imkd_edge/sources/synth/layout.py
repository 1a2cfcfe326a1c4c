"""Cross-section of a street, and the sizes and colours of what stands in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CLASSES = ("car", "truck", "bus", "motorcycle", "bicycle", "pedestrian", "forklift", "pallet")
VEHICLES = ("car", "truck", "bus", "motorcycle")
FLAT_SIDED = ("car", "truck", "bus")  # also with lamps at both ends
SIZES = {  # class -> (lowest, highest) length, width, height m
    "car": ((3.9, 1.72, 1.42), (5.0, 1.98, 1.8)),
    "truck": ((6.2, 2.2, 2.7), (9.5, 2.55, 3.7)),
    "bus": ((10.2, 2.5, 2.9), (12.0, 2.6, 3.3)),
    "motorcycle": ((1.95, 0.7, 1.45), (2.25, 0.85, 1.7)),
    "bicycle": ((1.65, 0.5, 1.6), (1.85, 0.66, 1.85)),
    "pedestrian": ((0.55, 0.58, 1.5), (0.8, 0.7, 1.92)),
    "forklift": ((2.4, 1.1, 2.05), (3.4, 1.35, 2.3)),
    "pallet": ((1.15, 0.78, 0.7), (1.25, 0.84, 1.6)),
}
PAINTS = [
    *((186, 188, 190), (232, 232, 230), (44, 46, 50), (150, 28, 30), (36, 66, 128)),
    *((92, 98, 104), (70, 84, 62), (196, 160, 90), (24, 90, 110), (120, 30, 60)),
]
CLOTHES = [
    *((160, 40, 44), (44, 70, 130), (210, 200, 180), (50, 52, 56)),
    *((206, 160, 50), (70, 110, 80), (130, 80, 130), (200, 110, 50)),
]
FACADES = [
    *((188, 160, 132), (160, 96, 78), (206, 200, 186), (150, 150, 152)),
    *((196, 176, 120), (122, 132, 146), (172, 120, 100)),
]
CYCLE_PATH, PARKING = 1.4, 2.3  # m, widths of the strips between the lanes and the kerb


@dataclass
class Layout:
    """Cross-section and furniture of the street; offsets in m from the centre line."""

    lanes: int  # per direction
    lane_width: float
    kerb: float  # offset of the kerb
    walk: float  # offset of the outer edge of the sidewalk
    crossing_street: float | None  # arc length of a street that crosses at right angles
    zebra: float | None  # arc length of a pedestrian crossing
    centre_yellow: bool
    red_cycle_path: bool

    def edge(self) -> float:
        """Offset of the outer edge of the lanes."""
        return self.lanes * self.lane_width

    def path(self) -> float:
        """Offset of the outer edge of the cycle path."""
        return self.edge() + CYCLE_PATH

    def parking(self) -> float:
        """Offset of the middle of the parking strip."""
        return self.path() + PARKING / 2

    def near_crossing(self, s: float, reach: float) -> bool:
        """Whether an arc length is within `reach` m of the crossing street."""
        return self.crossing_street is not None and abs(s - self.crossing_street) < reach


def random_layout(rng: np.random.Generator, ahead: float) -> Layout:
    """A street for an ego that drives `ahead` m along it."""
    lanes = int(rng.choice([1, 2], p=[0.55, 0.45]))
    width = float(rng.uniform(3.3, 3.7))
    crossing = float(rng.uniform(15, 60 + ahead)) if rng.random() < 0.6 else None
    zebra = float(rng.uniform(10, 50 + ahead)) if rng.random() < 0.6 else None
    if crossing is not None and zebra is not None and abs(crossing - zebra) < 14:
        zebra = crossing + 14
    kerb = lanes * width + CYCLE_PATH + PARKING
    return Layout(
        lanes=lanes,
        lane_width=width,
        kerb=kerb,
        walk=kerb + float(rng.uniform(2.8, 4.0)),
        crossing_street=crossing,
        zebra=zebra,
        centre_yellow=bool(rng.random() < 0.4),
        red_cycle_path=bool(rng.random() < 0.4),
    )
