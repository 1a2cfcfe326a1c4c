"""Fills a scene: fixtures along the street, parked vehicles, traffic, cyclists, pedestrians, and who crosses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imkd_edge.sources.synth.layout import CLOTHES, CYCLE_PATH, FACADES, PAINTS, VEHICLES
from imkd_edge.sources.synth.roads import WAVE_PER_SPEED

if TYPE_CHECKING:
    from imkd_edge.sources.synth.world import Scene

MAX_OBJECTS = 250  # ids of the camera's id buffer are one byte
_PARKED = {"car": 0.86, "truck": 0.1, "bus": 0.0, "motorcycle": 0.04}  # shares
_MOVING = {"car": 0.7, "truck": 0.16, "bus": 0.08, "motorcycle": 0.06}
_FORKLIFTS, _PALLETS = 60, 90  # that are tried in a scene
_RIGHT_LANE = 1.9  # m right of the middle of the side street, which has one lane each way


@dataclass
class Things:
    """N objects or fixtures as arrays; `kinds` name builders of shapes.py."""

    kinds: list[str]
    sizes: np.ndarray  # (N, 3) length, width, height m
    colours: list[tuple[float, ...]]


@dataclass
class _Traces:
    """Where all objects, the ego and the fixtures are over the time of a scene."""

    times: np.ndarray  # (T,) s
    positions: np.ndarray  # (T, N, 2) m
    radii: np.ndarray  # (N,) m


def populate(scene: Scene, rng: np.random.Generator) -> tuple[Things, Things, np.ndarray]:
    """Objects, fixtures, and poses (F, 3) x, y m, yaw rad of the fixtures; adds the objects to the scene's motion."""
    population = _Population(scene, rng)
    population.add_fixtures()
    population.add_parked()
    population.add_traffic()
    population.add_cyclists()
    population.add_pedestrians()
    population.add_crossing()
    population.add_yard()
    return population.objects(), population.fixtures(), population.fixture_poses()


class _Population:
    """Collects objects and fixtures; every draw of random numbers is in order."""

    def __init__(self, scene: Scene, rng: np.random.Generator):
        self.scene, self.rng = scene, rng
        self.road, self.layout, self.motion = scene.road, scene.layout, scene.motion
        self._objects: list[tuple[str, np.ndarray, tuple]] = []  # kind, size (3,), colour
        self._fixtures: list[tuple[str, tuple, tuple, tuple]] = []  # kind, size, colour, (x, y, yaw)

    def objects(self) -> Things:
        sizes = np.array([size for _, size, _ in self._objects]).reshape(-1, 3)
        return Things([kind for kind, _, _ in self._objects], sizes, [colour for *_, colour in self._objects])

    def fixtures(self) -> Things:
        sizes = np.array([size for _, size, _, _ in self._fixtures], float).reshape(-1, 3)
        return Things([kind for kind, *_ in self._fixtures], sizes, [colour for *_, colour, _ in self._fixtures])

    def fixture_poses(self) -> np.ndarray:
        return np.array([pose for *_, pose in self._fixtures], float).reshape(-1, 3)

    def _size(self, kind: str) -> np.ndarray:
        """(3,) length, width, height m of an object."""
        return np.round(self.rng.uniform(*self.scene.catalogue.size_range(kind)), 3)

    def _object(self, kind: str, row: tuple, size: np.ndarray | None = None) -> None:
        """Adds an object with its row of motion, unless its class is left out or there are too many."""
        if kind not in self.scene.classes or len(self._objects) >= MAX_OBJECTS:
            return
        colours, rng = CLOTHES if kind in ("pedestrian", "bicycle") else PAINTS, self.rng
        colour = tuple(np.clip(np.array(colours[rng.integers(len(colours))]) + rng.uniform(-14, 14, 3), 8, 245))
        self._objects.append((kind, self._size(kind) if size is None else size, colour))
        self.motion.append(row)

    def _fixture(self, kind: str, size: tuple, colour, s: float, offset: float) -> None:
        if self.scene.first <= s <= self.scene.last:
            x, y = self.road.point(np.array(s), offset)
            pose = (x, y, float(self.road.heading(np.array(s))))
            self._fixtures.append((kind, size, tuple(np.clip(colour, 5, 250)), pose))

    def _vehicles(self, shares: dict[str, float]) -> tuple[list[str], np.ndarray]:
        """The vehicle classes of the scene and how often each is drawn; the list may be empty."""
        vehicles = [kind for kind in VEHICLES if kind in self.scene.classes]
        return vehicles, np.array([shares[kind] for kind in vehicles])

    # ---- fixtures ----
    def add_fixtures(self) -> None:
        for side in (1, -1):
            self._add_buildings(side)
            self._add_street_furniture(side)

    def _add_buildings(self, side: int) -> None:
        """The building line, with gaps and garden walls."""
        rng, walk, s = self.rng, self.layout.walk, self.scene.first
        while s < self.scene.last:
            length, depth, height = rng.uniform(8, 17), rng.uniform(7, 12), rng.uniform(4, 17)
            setback = rng.choice([0.4, rng.uniform(1, 7)])
            middle = s + length / 2
            if not self.layout.near_crossing(middle, length / 2 + 8):
                tint = np.array(FACADES[rng.integers(len(FACADES))]) + rng.uniform(-12, 12, 3)
                kind = rng.choice(["building", "wall", "hedge", "open"], p=[0.66, 0.13, 0.11, 0.1])
                if kind == "building":
                    offset = side * (walk + setback + depth / 2)
                    self._fixture("building", (length - 0.3, depth, height), tint, middle, offset)
                elif kind != "open":
                    tint = np.array((76, 100, 56)) if kind == "hedge" else tint * 0.9
                    size = (length - 1, 0.4, rng.uniform(1.1, 2.6))
                    self._fixture("slab", size, tint, middle, side * (walk + 0.4))
            s += length + rng.choice([0.0, rng.uniform(1, 9)])

    def _add_street_furniture(self, side: int) -> None:
        """Trees, lamp posts and boxes along the kerb."""
        rng, kerb = self.rng, self.layout.kerb
        s = self.scene.first + rng.uniform(0, 10)
        green = rng.random() < 0.6
        while s < self.scene.last:
            if not self.layout.near_crossing(s, 9):
                if green and rng.random() < 0.5:
                    size = (rng.uniform(2.2, 4.2),) * 2 + (rng.uniform(4.5, 7.5),)
                    colour = np.array((72, 108, 52)) + rng.uniform(-20, 20, 3)
                    self._fixture("tree", size, colour, s, side * (kerb + 0.6))
                elif rng.random() < 0.8:
                    self._fixture("pole", (0.16, 0.16, rng.uniform(3, 6.5)), (92, 94, 98), s, side * (kerb + 0.4))
                else:
                    size = (rng.uniform(0.6, 1.6), 0.6, rng.uniform(0.9, 1.7))
                    self._fixture("slab", size, rng.uniform(60, 150, 3), s, side * (kerb + 0.6))
            s += rng.uniform(7, 22)

    # ---- objects along the street ----
    def add_parked(self) -> None:
        rng, zebra = self.rng, self.layout.zebra
        vehicles, share = self._vehicles(_PARKED)
        for side in (1, -1):
            fullness = rng.uniform(0.05, 0.65)
            s = self.scene.first + rng.uniform(0, 6)
            while s < self.scene.last and vehicles:
                kind = str(rng.choice(vehicles, p=share / share.sum()))
                size = self._size(kind)
                middle = s + size[0] / 2
                blocks = self.layout.near_crossing(middle, 10 + size[0]) or (zebra is not None and abs(s - zebra) < 8)
                if rng.random() < fullness and not blocks:
                    shift = max(0.0, size[1] - 2.2) / 2
                    offset = side * (self.layout.parking() + shift + rng.uniform(-0.1, 0.1))
                    xy, heading = self.road.point(np.array(middle), offset), float(self.road.heading(np.array(middle)))
                    yaw = heading + rng.normal(0, 0.025) + np.pi * (rng.random() < (0.12 if side < 0 else 0.88))
                    self._object(kind, self.motion.line(xy, yaw), size)
                s += size[0] + rng.uniform(0.8, 2.0)

    def add_traffic(self) -> None:
        for direction in (1, -1):
            for lane in range(self.layout.lanes):
                self._add_lane(direction, -direction * (lane + 0.5) * self.layout.lane_width)

    def _add_lane(self, direction: int, offset: float) -> None:
        """Vehicles of one speed in one lane; the ego's lane has the ego's speed and a gap around it."""
        rng, first, last = self.rng, self.scene.first, self.scene.last
        vehicles, share = self._vehicles(_MOVING)
        ego_lane = direction > 0 and offset == self.scene.ego_offset
        speed = self.scene.ego_speed if ego_lane else float(rng.choice([0.0, rng.uniform(3, 14)], p=[0.08, 0.92]))
        travel = speed * self.scene.duration
        low, high = (first - travel, last) if direction > 0 else (first, last + travel)
        mean_gap, wave = rng.uniform(12, 55), WAVE_PER_SPEED * speed
        s, phase = low, rng.uniform(0, 6)
        while s < high and vehicles:
            kind = str(rng.choice(vehicles, p=share / share.sum()))
            size = self._size(kind)
            s += size[0] + 3.5 + 0.35 * speed + rng.exponential(mean_gap)
            middle = s - size[0] / 2
            if ego_lane and abs(middle) < size[0] / 2 + 6.5:
                continue
            if speed == 0 and self.layout.near_crossing(middle, 11):
                continue
            row = self.motion.lane(middle, offset + rng.uniform(-0.2, 0.2), direction, speed, wave, phase)
            self._object(kind, row, size)

    def add_cyclists(self) -> None:
        rng, path = self.rng, self.layout.edge() + CYCLE_PATH / 2
        for direction in (1, -1):
            speed = float(rng.uniform(2.5, 6.5))  # one speed per side: the path is too narrow to overtake
            travel = speed * self.scene.duration
            s = (self.scene.first - travel if direction > 0 else self.scene.first) + rng.exponential(20)
            while s < self.scene.last + (0 if direction > 0 else travel):
                row = self.motion.lane(s, -direction * path, direction, speed, 0.1 * speed, 1.0)
                self._object("bicycle", row)
                s += 4 + rng.exponential(28)

    def add_pedestrians(self) -> None:
        rng, kerb, walk = self.rng, self.layout.kerb, self.layout.walk
        for side in (1, -1):
            s = self.scene.first
            mean_gap = rng.uniform(7, 25)
            while s < self.scene.last:
                s += 1.0 + rng.exponential(mean_gap)
                offset = side * rng.uniform(kerb + 1.3, walk - 0.5)
                if rng.random() < 0.25:
                    xy = self.road.point(np.array(s), offset)
                    self._object("pedestrian", self.motion.line(xy, rng.uniform(-np.pi, np.pi)))
                else:
                    direction, speed = int(rng.choice([1, -1])), float(rng.uniform(0.8, 1.8))
                    row = self.motion.lane(s, offset, direction, speed, 0.05, rng.uniform(0, 6))
                    self._object("pedestrian", row)

    # ---- objects across the street ----
    def add_crossing(self) -> None:
        """Pedestrians on the zebra and vehicles in the crossing street, where the way is free."""
        rng, zebra, street, kerb = self.rng, self.layout.zebra, self.layout.crossing_street, self.layout.kerb
        traces = self._traces()
        if zebra is not None:
            for _ in range(int(rng.integers(1, 7))):
                s, speed = zebra + rng.uniform(-1.5, 1.5), rng.uniform(0.9, 1.7)
                self._try_to_cross("pedestrian", s, speed, kerb, traces)
        if street is not None:
            for _ in range(14):
                kind = str(rng.choice(["car", "car", "car", "truck", "bicycle", "motorcycle", "bus"]))
                speed = float(rng.choice([0.0, rng.uniform(4, 11)], p=[0.35, 0.65]))
                self._try_to_cross(kind, street, speed, kerb + 2, traces)

    def add_yard(self) -> None:
        """Forklifts that cross the street anywhere, slowly, and pallets at the kerbs; in worlds that have them only."""
        rng, kerb = self.rng, self.layout.kerb
        if not {"forklift", "pallet"} & set(self.scene.classes):
            return
        traces = self._traces()
        for _ in range(_FORKLIFTS if "forklift" in self.scene.classes else 0):
            s = rng.uniform(self.scene.first + 30, self.scene.last - 30)
            self._try_to_cross("forklift", s, float(rng.uniform(0.6, 2.5)), kerb, traces)
        for _ in range(_PALLETS if "pallet" in self.scene.classes else 0):
            s, side = rng.uniform(self.scene.first + 30, self.scene.last - 30), rng.choice([-1, 1])
            offset = side * rng.uniform(self.layout.path() + 0.7, self.layout.walk - 0.7)
            xy, size = self.road.point(np.array(s), offset), self._size("pallet")
            radius = 0.5 * float(np.hypot(size[0], size[1]))
            gap = np.hypot(*np.moveaxis(traces.positions - xy, -1, 0)) - traces.radii - radius
            if gap.min(initial=9.0) > 0.3:
                self._object("pallet", self.motion.line(xy, rng.uniform(-np.pi, np.pi)), size)
                still = np.broadcast_to(xy, (len(traces.times), 1, 2))
                traces.positions = np.concatenate([traces.positions, still], 1)
                traces.radii = np.append(traces.radii, radius)

    def _try_to_cross(self, kind: str, s: float, speed: float, kerb: float, traces: _Traces) -> None:
        """Adds an object that crosses the road at arc length s, unless it would come near another one."""
        rng, duration = self.rng, self.scene.duration
        direction = int(rng.choice([1, -1]))
        heading = float(self.road.heading(np.array(s))) + direction * np.pi / 2
        size = self._size(kind)

        # where it starts, m along its way from the road's centre line
        pedestrian = kind in ("pedestrian", "forklift")  # who starts from the kerb and crosses at any speed
        wait = kerb + size[0] / 2
        if pedestrian:
            start = rng.uniform(-kerb - 1 - speed * duration, kerb)
        elif speed == 0:
            start = rng.uniform(-wait - 45, -wait)
        else:
            start = rng.uniform(-wait - speed * duration, 40)
        ahead = np.array([np.cos(heading), np.sin(heading)])
        left = np.array([-ahead[1], ahead[0]])
        origin = self.road.point(np.array(s), 0.0) + start * ahead - (0 if pedestrian else _RIGHT_LANE) * left

        # its distance to all others over time
        radius = 0.5 * float(np.hypot(size[0], size[1]))
        path = origin + traces.times[:, None] * speed * ahead  # (T, 2)
        distances = np.hypot(*np.moveaxis(traces.positions - path[:, None], -1, 0))  # (T, N)
        gap = distances - traces.radii - radius
        if kind in self.scene.classes and gap.min(initial=9.0) > 0.4:
            self._object(kind, self.motion.line(origin, heading, speed * ahead), size)
            traces.positions = np.concatenate([traces.positions, path[:, None]], 1)
            traces.radii = np.append(traces.radii, radius)

    def _traces(self) -> _Traces:
        times = np.arange(0.0, self.scene.duration + 0.3, 0.25)
        narrow = [(size, pose) for kind, size, _, pose in self._fixtures if kind in ("pole", "tree")]
        still = np.array([(*pose[:2], 0.5 * np.hypot(*size[:2])) for size, pose in narrow]).reshape(-1, 3)
        states = [(self.motion.at(t), self.motion.at(t, self.scene.ego_rows)) for t in times]
        moving = np.array([np.concatenate([objects.xy, ego.xy]) for objects, ego in states])
        radii = np.array([0.5 * np.hypot(size[0], size[1]) for _, size, _ in self._objects] + [2.6])  # the ego's last
        positions = np.concatenate([moving, np.broadcast_to(still[:, :2], (len(times), len(still), 2))], 1)
        return _Traces(times, positions, np.concatenate([radii, still[:, 2]]))
