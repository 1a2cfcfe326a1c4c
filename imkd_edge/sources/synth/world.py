"""The synthetic world: one street per scene, with traffic, walkers, parked vehicles and everything that can hide them.

A scene is a function of (seed, scene) alone and a moment in it of the time alone, so frames can be drawn in any order.
World frame: x, y on flat ground, z up. All motion is smooth in time and its velocity is the analytic derivative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imkd_edge.sources.synth.roads import Motion, Road, State

CLASSES = ("car", "truck", "bus", "motorcycle", "bicycle", "pedestrian")
SIZES = {  # class -> (lowest, highest) length, width, height m
    "car": ((3.9, 1.72, 1.42), (5.0, 1.98, 1.8)),
    "truck": ((6.2, 2.2, 2.7), (9.5, 2.55, 3.7)),
    "bus": ((10.2, 2.5, 2.9), (12.0, 2.6, 3.3)),
    "motorcycle": ((1.95, 0.7, 1.45), (2.25, 0.85, 1.7)),
    "bicycle": ((1.65, 0.5, 1.6), (1.85, 0.66, 1.85)),
    "pedestrian": ((0.55, 0.58, 1.5), (0.8, 0.7, 1.92)),
}
PAINTS = [
    (186, 188, 190),
    (232, 232, 230),
    (44, 46, 50),
    (150, 28, 30),
    (36, 66, 128),
    (92, 98, 104),
    (70, 84, 62),
    (196, 160, 90),
    (24, 90, 110),
    (120, 30, 60),
]
CLOTHES = [
    (160, 40, 44),
    (44, 70, 130),
    (210, 200, 180),
    (50, 52, 56),
    (206, 160, 50),
    (70, 110, 80),
    (130, 80, 130),
    (200, 110, 50),
]
FACADES = [
    (188, 160, 132),
    (160, 96, 78),
    (206, 200, 186),
    (150, 150, 152),
    (196, 176, 120),
    (122, 132, 146),
    (172, 120, 100),
]
MAX_OBJECTS = 250  # ids of the camera's id buffer are one byte


@dataclass
class Layout:
    """Cross-section and furniture of the street; offsets in m from the centre line."""

    lanes: int  # per direction
    lane_width: float
    parking: float  # offset of the middle of the parking strip
    kerb: float  # offset of the kerb
    walk: float  # offset of the outer edge of the sidewalk
    crossing_street: float | None  # arc length of a street that crosses at right angles
    zebra: float | None  # arc length of a pedestrian crossing
    centre_yellow: bool
    red_cycle_path: bool


@dataclass
class Things:
    """N objects or fixtures as arrays; `kind` names a builder of shapes.py."""

    kinds: list[str]
    sizes: np.ndarray  # (N, 3) length, width, height m
    colours: list[tuple[float, ...]]


class Scene:
    """One recording: the street, its objects (labelled) and fixtures (not labelled), light and the ego's motion."""

    def __init__(self, seed: int, index: int, duration: float, classes: tuple[str, ...]):
        self.seed, self.index, self.duration, self.classes = seed, index, duration, classes
        rng = np.random.default_rng([seed, index, 1])
        self.ego_speed = float(rng.choice([0.0, rng.uniform(3.0, 13.0)], p=[0.07, 0.93]))
        ahead = self.ego_speed * duration
        self.first, self.last = -105.0, ahead + 105.0  # stretch of the road that is furnished
        self.road = Road(rng, self.first - 15 * duration - 40, self.last + 15 * duration + 40)
        self.layout = self._layout(rng, ahead)
        self.motion = Motion(self.road)
        self.objects = Things([], np.zeros((0, 3)), [])
        self.fixtures = Things([], np.zeros((0, 3)), [])
        self.fixture_poses = np.zeros((0, 3))  # x, y, yaw
        self._sizes: list[np.ndarray] = []
        self._fixture_rows: list[tuple] = []
        lane = int(rng.integers(self.layout.lanes))
        self.ego_offset = -(lane + 0.5) * self.layout.lane_width
        self._ego = [
            self.motion.lane(0.0, self.ego_offset, 1, self.ego_speed, 0.12 * self.ego_speed, rng.uniform(0, 6))
        ]
        self._populate(rng, ahead)
        self.sun = self._sun(rng)
        self.haze = float(rng.uniform(0.0012, 0.0055))  # 1/m
        self.warmth = rng.uniform(0.93, 1.07, 3)  # white balance
        self.exposure = float(rng.uniform(0.82, 1.12))

    # -- what a sensor asks -------------------------------------------------------------------------------------------
    def ego_pose(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Pose T_world_ego (4, 4) and twist (vx, vy m/s, yaw rate rad/s in the ego frame) at time t s."""
        state = self.motion.at(t, self._ego)
        c, s = np.cos(state.yaw[0]), np.sin(state.yaw[0])
        pose = np.eye(4)
        pose[:2, :2] = [[c, -s], [s, c]]
        pose[:2, 3] = state.xy[0]
        speed = float(np.hypot(*state.velocity[0]))
        _, s0, _, _, v, wave, phase, _ = self._ego[0]
        at = s0 + v * t + wave * (np.sin(0.6 * t + phase) - np.sin(phase))
        rate = float(self.road.curvature(at)) * (v + 0.6 * wave * np.cos(0.6 * t + phase))
        return pose, np.array([speed, 0.0, rate])

    def state(self, t: float) -> State:
        """The labelled objects at time t s."""
        return self.motion.at(t)

    # -- building -----------------------------------------------------------------------------------------------------
    def _layout(self, rng: np.random.Generator, ahead: float) -> Layout:
        lanes = int(rng.choice([1, 2], p=[0.55, 0.45]))
        width = float(rng.uniform(3.3, 3.7))
        edge = lanes * width
        crossing = float(rng.uniform(15, 60 + ahead)) if rng.random() < 0.6 else None
        zebra = float(rng.uniform(10, 50 + ahead)) if rng.random() < 0.6 else None
        if crossing is not None and zebra is not None and abs(crossing - zebra) < 14:
            zebra = crossing + 14
        kerb = edge + 1.4 + 2.3
        return Layout(
            lanes,
            width,
            edge + 1.4 + 1.15,
            kerb,
            kerb + float(rng.uniform(2.8, 4.0)),
            crossing,
            zebra,
            bool(rng.random() < 0.4),
            bool(rng.random() < 0.4),
        )

    @staticmethod
    def _sun(rng: np.random.Generator) -> np.ndarray:
        azimuth, elevation = rng.uniform(-np.pi, np.pi), rng.uniform(0.35, 1.15)
        return np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])

    def _populate(self, rng: np.random.Generator, ahead: float) -> None:
        self._add_fixtures(rng)
        self._add_parked(rng)
        self._add_traffic(rng, ahead)
        self._add_cyclists(rng, ahead)
        self._add_walkers(rng)
        self._add_crossing(rng)
        self.objects.sizes = np.array(self._sizes).reshape(-1, 3)
        self.fixtures.sizes = np.array([r[1] for r in self._fixture_rows], float).reshape(-1, 3)
        self.fixtures.kinds = [r[0] for r in self._fixture_rows]
        self.fixtures.colours = [r[2] for r in self._fixture_rows]
        self.fixture_poses = np.array([r[3] for r in self._fixture_rows], float).reshape(-1, 3)

    def _size(self, kind: str, rng: np.random.Generator) -> np.ndarray:
        low, high = SIZES[kind]
        return np.round(rng.uniform(low, high), 3)

    def _object(self, kind: str, row: tuple, rng: np.random.Generator, size: np.ndarray | None = None) -> None:
        if kind not in self.classes or len(self.objects.kinds) >= MAX_OBJECTS:
            return
        paint = CLOTHES if kind in ("pedestrian", "bicycle") else PAINTS
        self.objects.kinds.append(kind)
        self.objects.colours.append(
            tuple(np.clip(np.array(paint[rng.integers(len(paint))]) + rng.uniform(-14, 14, 3), 8, 245))
        )
        self._sizes.append(self._size(kind, rng) if size is None else size)
        self.motion.append(row)

    def _fixture(self, kind: str, size, colour, s: float, offset: float, turn: float = 0.0) -> None:
        if self.first <= s <= self.last:
            xy = self.road.point(np.array(s), offset)
            colour = tuple(np.clip(colour, 5, 250))
            self._fixture_rows.append((kind, size, colour, (*xy, float(self.road.heading(np.array(s))) + turn)))

    def _near_crossing(self, s: float, reach: float) -> bool:
        c = self.layout.crossing_street
        return c is not None and abs(s - c) < reach

    def _add_fixtures(self, rng: np.random.Generator) -> None:
        walk, kerb = self.layout.walk, self.layout.kerb
        for side in (1, -1):
            s = self.first
            while s < self.last:  # the building line, with gaps and garden walls
                length, depth, height = rng.uniform(8, 17), rng.uniform(7, 12), rng.uniform(4, 17)
                setback = rng.choice([0.4, rng.uniform(1, 7)])
                if not self._near_crossing(s + length / 2, length / 2 + 8):
                    tint = np.array(FACADES[rng.integers(len(FACADES))]) + rng.uniform(-12, 12, 3)
                    kind = rng.choice(["building", "wall", "hedge", "open"], p=[0.66, 0.13, 0.11, 0.1])
                    if kind == "building":
                        self._fixture(
                            "building",
                            (length - 0.3, depth, height),
                            tint,
                            s + length / 2,
                            side * (walk + setback + depth / 2),
                        )
                    elif kind != "open":
                        tint = np.array((76, 100, 56)) if kind == "hedge" else tint * 0.9
                        self._fixture(
                            "slab", (length - 1, 0.4, rng.uniform(1.1, 2.6)), tint, s + length / 2, side * (walk + 0.4)
                        )
                s += length + rng.choice([0.0, rng.uniform(1, 9)])
            s = self.first + rng.uniform(0, 10)
            green = rng.random() < 0.6
            while s < self.last:  # lamp posts, trees and boxes along the kerb
                if not self._near_crossing(s, 9):
                    if green and rng.random() < 0.5:
                        self._fixture(
                            "tree",
                            (rng.uniform(2.2, 4.2),) * 2 + (rng.uniform(4.5, 7.5),),
                            np.array((72, 108, 52)) + rng.uniform(-20, 20, 3),
                            s,
                            side * (kerb + 0.6),
                        )
                    elif rng.random() < 0.8:
                        self._fixture("pole", (0.16, 0.16, rng.uniform(3, 6.5)), (92, 94, 98), s, side * (kerb + 0.4))
                    else:
                        self._fixture(
                            "slab",
                            (rng.uniform(0.6, 1.6), 0.6, rng.uniform(0.9, 1.7)),
                            rng.uniform(60, 150, 3),
                            s,
                            side * (kerb + 0.6),
                        )
                s += rng.uniform(7, 22)

    def _add_parked(self, rng: np.random.Generator) -> None:
        vehicles = [k for k in ("car", "truck", "bus", "motorcycle") if k in self.classes]
        share = np.array([{"car": 0.86, "truck": 0.1, "bus": 0.0, "motorcycle": 0.04}[k] for k in vehicles])
        for side in (1, -1):
            fullness = rng.uniform(0.05, 0.65)
            s = self.first + rng.uniform(0, 6)
            while s < self.last and vehicles:
                kind = str(rng.choice(vehicles, p=share / share.sum()))
                size = self._size(kind, rng)
                zebra = self.layout.zebra
                clear = self._near_crossing(s + size[0] / 2, 10 + size[0]) or (zebra is not None and abs(s - zebra) < 8)
                if rng.random() < fullness and not clear:
                    middle = s + size[0] / 2
                    shift = max(0.0, size[1] - 2.2) / 2
                    xy = self.road.point(
                        np.array(middle), side * (self.layout.parking + shift + rng.uniform(-0.1, 0.1))
                    )
                    yaw = (
                        float(self.road.heading(np.array(middle)))
                        + rng.normal(0, 0.025)
                        + np.pi * (rng.random() < (0.12 if side < 0 else 0.88))
                    )
                    self._object(kind, self.motion.line(xy, yaw), rng, size)
                s += size[0] + rng.uniform(0.8, 2.0)

    def _add_traffic(self, rng: np.random.Generator, ahead: float) -> None:
        vehicles = [k for k in ("car", "truck", "bus", "motorcycle") if k in self.classes]
        share = np.array([{"car": 0.7, "truck": 0.16, "bus": 0.08, "motorcycle": 0.06}[k] for k in vehicles])
        for direction in (1, -1):
            for lane in range(self.layout.lanes):
                offset = -direction * (lane + 0.5) * self.layout.lane_width
                own = direction > 0 and offset == self.ego_offset
                speed = self.ego_speed if own else float(rng.choice([0.0, rng.uniform(3, 14)], p=[0.08, 0.92]))
                travel = speed * self.duration
                low, high = (self.first - travel, self.last) if direction > 0 else (self.first, self.last + travel)
                mean_gap, wave = rng.uniform(12, 55), 0.12 * speed
                s, phase = low, rng.uniform(0, 6)
                while s < high and vehicles:
                    kind = str(rng.choice(vehicles, p=share / share.sum()))
                    size = self._size(kind, rng)
                    s += size[0] + 3.5 + 0.35 * speed + rng.exponential(mean_gap)
                    middle = s - size[0] / 2
                    if own and abs(middle) < size[0] / 2 + 6.5:
                        continue
                    if speed == 0 and self._near_crossing(middle, 11):
                        continue
                    self._object(
                        kind,
                        self.motion.lane(middle, offset + rng.uniform(-0.2, 0.2), direction, speed, wave, phase),
                        rng,
                        size,
                    )

    def _add_cyclists(self, rng: np.random.Generator, ahead: float) -> None:
        path = self.layout.lanes * self.layout.lane_width + 0.7
        for direction in (1, -1):
            speed = float(rng.uniform(2.5, 6.5))  # one speed per side: nobody overtakes on the narrow path
            travel = speed * self.duration
            s = (self.first - travel if direction > 0 else self.first) + rng.exponential(20)
            while s < self.last + (0 if direction > 0 else travel):
                self._object("bicycle", self.motion.lane(s, -direction * path, direction, speed, 0.1 * speed, 1.0), rng)
                s += 4 + rng.exponential(28)

    def _add_walkers(self, rng: np.random.Generator) -> None:
        kerb, walk = self.layout.kerb, self.layout.walk
        for side in (1, -1):
            s = self.first
            mean_gap = rng.uniform(7, 25)
            while s < self.last:
                s += 1.0 + rng.exponential(mean_gap)
                offset = side * rng.uniform(kerb + 1.3, walk - 0.5)
                if rng.random() < 0.25:
                    xy = self.road.point(np.array(s), offset)
                    self._object("pedestrian", self.motion.line(xy, rng.uniform(-np.pi, np.pi)), rng)
                else:
                    direction, speed = int(rng.choice([1, -1])), float(rng.uniform(0.8, 1.8))
                    self._object(
                        "pedestrian", self.motion.lane(s, offset, direction, speed, 0.05, rng.uniform(0, 6)), rng
                    )

    def _add_crossing(self, rng: np.random.Generator) -> None:
        """People on the zebra and vehicles in the crossing street, as far as nobody else is in their way."""
        track = self._track()
        if self.layout.zebra is not None:
            for _ in range(int(rng.integers(1, 7))):
                self._try_line(
                    "pedestrian",
                    self.layout.zebra + rng.uniform(-1.5, 1.5),
                    rng,
                    rng.uniform(0.9, 1.7),
                    self.layout.kerb,
                    track,
                )
        if self.layout.crossing_street is not None:
            for _ in range(14):
                kind = str(rng.choice(["car", "car", "car", "truck", "bicycle", "motorcycle", "bus"]))
                speed = float(rng.choice([0.0, rng.uniform(4, 11)], p=[0.35, 0.65]))
                self._try_line(kind, self.layout.crossing_street, rng, speed, self.layout.kerb + 2, track)

    def _try_line(self, kind: str, s: float, rng: np.random.Generator, speed: float, kerb: float, track: list) -> None:
        """Add an object that crosses the road at arc length s, unless it would come near another one."""
        direction = int(rng.choice([1, -1]))
        heading = float(self.road.heading(np.array(s))) + direction * np.pi / 2
        size = self._size(kind, rng)
        if kind == "pedestrian":
            start = rng.uniform(-kerb - 1 - speed * self.duration, kerb)
        else:
            wait = kerb + size[0] / 2
            start = rng.uniform(-wait - 45, -wait) if speed == 0 else rng.uniform(-wait - speed * self.duration, 40)
        ahead = np.array([np.cos(heading), np.sin(heading)])
        left = np.array([-ahead[1], ahead[0]])
        # the side street has one lane each way: keep right
        origin = self.road.point(np.array(s), 0.0) + start * ahead - (0 if kind == "pedestrian" else 1.9) * left
        row = self.motion.line(origin, heading, speed * ahead)
        radius = 0.5 * float(np.hypot(size[0], size[1]))
        times, positions, radii = track
        path = origin + times[:, None] * speed * ahead  # (T, 2)
        gap = np.hypot(*np.moveaxis(positions - path[:, None], -1, 0)) - radii - radius  # (T, N)
        if kind in self.classes and gap.min(initial=9.0) > 0.4:
            self._object(kind, row, rng, size)
            track[1] = np.concatenate([positions, path[:, None]], 1)
            track[2] = np.append(radii, radius)

    def _track(self) -> list:
        """Times (T,), positions (T, N, 2) and radii (N,) of all objects, the ego and the fixtures."""
        times = np.arange(0.0, self.duration + 0.3, 0.25)
        fixed = np.array(
            [(*r[3][:2], 0.5 * np.hypot(*r[1][:2])) for r in self._fixture_rows if r[0] in ("pole", "tree")]
        ).reshape(-1, 3)
        moving = np.array([np.concatenate([self.motion.at(t).xy, self.motion.at(t, self._ego).xy]) for t in times])
        radii = np.array([0.5 * np.hypot(z[0], z[1]) for z in self._sizes] + [2.6])
        positions = np.concatenate([moving, np.broadcast_to(fixed[:, :2], (len(times), len(fixed), 2))], 1)
        return [times, positions, np.concatenate([radii, fixed[:, 2]])]
