"""Radar returns of a scene: objects, walls, ground clutter and ghosts, as of a cluster radar like the ARS 408."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imkd_edge.sources.synth.layout import FLAT_SIDED
from imkd_edge.sources.synth.mesh import SceneMesh
from imkd_edge.sources.synth.roads import State

HALF_ANGLE = np.radians(60.0)  # field of view at short range
FAR_HALF_ANGLE = np.radians(20.0)  # and beyond NEAR_RANGE
NEAR_RANGE, MAX_RANGE = 70.0, 100.0  # m
MAX_POINTS = 125
RANGE_NOISE = 0.12  # m
AZIMUTH_NOISE = np.radians(0.4)  # at boresight; doubles at the edge of the field of view
VELOCITY_NOISE = 0.1  # m/s
_RAYS = np.radians(np.arange(-60.0, 60.25, 0.5))
_LAYERS = 3  # things behind each other that one ray reports

# dBsm, mean over aspects
RCS = {
    "car": 8.0,
    "truck": 16.0,
    "bus": 17.0,
    "motorcycle": 4.0,
    "bicycle": 0.0,
    "pedestrian": -4.0,
    "forklift": 9.0,
    "pallet": 1.0,
}
# returns per sweep at 30 m
_RATE = {
    "car": 2.6,
    "truck": 4.2,
    "bus": 5.0,
    "motorcycle": 1.6,
    "bicycle": 1.3,
    "pedestrian": 1.1,
    "forklift": 2.4,
    "pallet": 1.0,
}
# m/s, of limbs and wheels
_FLUTTER = {"motorcycle": 0.2, "bicycle": 0.3, "pedestrian": 0.35}
# share of the power behind a thing
_TRANSMISSION = {
    "car": 0.3, "truck": 0.15, "bus": 0.15, "motorcycle": 0.7, "bicycle": 0.8, "pedestrian": 0.75,
    "forklift": 0.4, "pallet": 0.5, "pole": 0.8, "tree": 0.6,
}  # fmt: skip


@dataclass
class Hits:
    """Intersections of the rays of one sweep with things, nearest first; h hits."""

    ray: np.ndarray  # (h,) index into the rays
    owner: np.ndarray  # (h,) thing
    distance: np.ndarray  # (h,) m
    weight: np.ndarray  # (h,) share of the power that reaches it
    slant: np.ndarray  # (h,) |cos| of the angle between ray and face normal
    unoccluded: np.ndarray  # (N + F,) rays that intersect each thing, occluded or not
    wall: np.ndarray  # (rays,) m to the first opaque thing


class RadarModel:
    """Simulates the sweeps of any radar in one scene."""

    def __init__(self, mesh: SceneMesh):
        self.mesh = mesh
        kinds = mesh.scene.objects.kinds + mesh.scene.fixtures.kinds
        self.transmission = np.array([_TRANSMISSION.get(k, 0.0) for k in kinds])
        self.rcs = np.array([RCS.get(k, 0.0) for k in kinds])
        self.rate = np.array([_RATE.get(k, 0.0) for k in kinds])
        self.flutter = np.array([_FLUTTER.get(k, 0.05) for k in kinds])
        self.flat = np.array([k in FLAT_SIDED for k in kinds])
        self.long = np.array([k in ("bicycle", "motorcycle") for k in kinds], float)

    def sweep(self, state: State, T_world_radar: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Points (n, 5) float32: x, y, z = 0 m in the radar frame, RCS dBsm, radial velocity m/s over ground.

        Receding is positive. The detection probability follows from RCS and the fourth power of the range; 1 % of the
        objects have no return besides.

        Args:
            state: the objects at the sweep's time.
        """
        hits = self._cast(state, T_world_radar)
        parts = [self._objects(hits, state, T_world_radar, rng), self._fixtures(hits, rng), self._clutter(hits, rng)]
        polar = np.concatenate(parts)  # (n, 4) range m, azimuth rad, dBsm, m/s
        r, azimuth = polar[:, 0], polar[:, 1]
        half_angle = np.where(r < NEAR_RANGE, HALF_ANGLE, FAR_HALF_ANGLE)
        polar = polar[(r > 0.3) & (r < MAX_RANGE) & (np.abs(azimuth) < half_angle)]
        if len(polar) > MAX_POINTS:  # the device reports its strongest clusters relative to the range law
            strength = polar[:, 2] - 20 * np.log10(polar[:, 0])
            polar = polar[np.sort(np.argsort(-strength, kind="stable")[:MAX_POINTS])]
        polar = polar[np.argsort(polar[:, 0], kind="stable")]
        r, azimuth, rcs, v = polar.T
        x, y, rcs = r * np.cos(azimuth), r * np.sin(azimuth), np.round(rcs * 2) / 2  # half decibels
        return np.stack([x, y, np.zeros_like(r), rcs, v], 1).astype(np.float32)

    def _cast(self, state: State, T_world_radar: np.ndarray) -> Hits:
        mesh = self.mesh

        # pieces of the things in the field of view
        fixtures = mesh.scene.fixture_poses
        xy = np.concatenate([state.xy, fixtures[:, :2]])
        yaw = np.concatenate([state.yaw, fixtures[:, 2]])
        eye = T_world_radar[:2, 3]
        radius = np.hypot(*(mesh.sizes[:, :2] / 2).T)
        offset = xy - eye
        distance = np.hypot(*offset.T)
        offset = offset @ T_world_radar[:2, :2]  # x ahead of the radar, y to its left
        half_width = np.arcsin(np.minimum(radius / np.maximum(distance, 1e-9), 1))
        bearing = np.abs(np.arctan2(offset[:, 1], offset[:, 0])) - half_width
        in_view = (distance - radius < MAX_RANGE) & ((bearing < HALF_ANGLE) | (distance < radius))
        piece = np.flatnonzero(in_view[mesh.piece_owner])
        owner = mesh.piece_owner[piece]

        # rays in each footprint's frame, and where they enter it
        local = np.stack([np.cos(_RAYS), np.sin(_RAYS), np.zeros_like(_RAYS)], 1) @ T_world_radar[:3, :3].T  # (a, 3)
        c, s = np.cos(yaw[owner]), np.sin(yaw[owner])
        dx = local[:, :1] * c + local[:, 1:2] * s  # (a, p)
        dy = -local[:, :1] * s + local[:, 1:2] * c
        gap = eye - xy[owner]
        ox, oy = gap[:, 0] * c + gap[:, 1] * s, -gap[:, 0] * s + gap[:, 1] * c  # (p,)
        x0, x1, y0, y1 = mesh.footprint[piece].T
        with np.errstate(divide="ignore", invalid="ignore"):
            tx = np.stack([(x0 - ox) / dx, (x1 - ox) / dx])
            ty = np.stack([(y0 - oy) / dy, (y1 - oy) / dy])
        enter_x, enter_y = tx.min(0), ty.min(0)
        enter = np.maximum(enter_x, enter_y)
        hit = (enter < np.minimum(tx.max(0), ty.max(0))) & (enter > 0)
        slant = np.where(enter_x > enter_y, np.abs(dx), np.abs(dy))
        return self._layers(np.where(hit, enter, np.inf), owner, slant)

    def _layers(self, enter: np.ndarray, owner: np.ndarray, slant: np.ndarray) -> Hits:
        """The first few hits of each ray: `enter` m and `slant` are (a, p), inf where ray a misses piece p."""
        rays, hit = np.arange(len(_RAYS)), np.isfinite(enter)
        unoccluded = np.bincount(np.broadcast_to(owner, hit.shape)[hit], minlength=len(self.rcs))
        opaque = self.transmission[owner] == 0
        wall = np.where(opaque, enter, np.inf).min(1, initial=np.inf)
        weight = np.ones(len(rays))
        layers = []
        for _ in range(_LAYERS if len(owner) else 0):
            k = enter.argmin(1)
            distance = enter[rays, k]
            ok = np.isfinite(distance) & (weight > 0.01)
            layers.append((rays[ok], owner[k][ok], distance[ok], weight[ok].copy(), slant[rays, k][ok]))
            weight = np.where(ok, weight * self.transmission[owner[k]], 0)
            enter[rays, k] = np.inf
        if not layers:
            none = np.zeros(0)
            return Hits(none.astype(int), none.astype(int), none, none, none, unoccluded, wall)
        ray, thing, distance, power, cos = (np.concatenate(column) for column in zip(*layers))
        return Hits(ray, thing, distance, power, cos, unoccluded, wall)

    def _objects(self, hits: Hits, state: State, T_world_radar: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, 4) range m, azimuth rad, dBsm, m/s of the returns of objects, and of their ghosts."""
        index = np.flatnonzero(hits.owner < self.mesh.count)
        if not len(index):
            return np.zeros((0, 4))

        # how many returns each thing has, by the power that reaches it
        index = index[np.argsort(hits.owner[index], kind="stable")]
        things, first = np.unique(hits.owner[index], return_index=True)
        power = np.cumsum(hits.weight[index])
        total = np.add.reduceat(hits.weight[index], first)  # per thing
        share = np.minimum(total / np.maximum(hits.unoccluded[things], 1), 1)
        near = np.minimum.reduceat(hits.distance[index], first)
        expected = self.rate[things] * share * np.clip((30 / near) ** 0.6, 0.35, 2.2)
        count = np.minimum(rng.poisson(expected), 12) * (rng.random(len(things)) > 0.01)
        row = np.repeat(np.arange(len(things)), count)  # (n,) one entry per return
        n = len(row)

        # the ray of each return, drawn by its power
        before = power[first[row]] - hits.weight[index[first[row]]]
        ray = np.searchsorted(power, before + rng.random(n) * total[row])
        pick, thing = index[np.minimum(ray, len(index) - 1)], things[row]

        # RCS, velocity and range with their noise
        direction = T_world_radar[:2, :2] @ np.stack([np.cos(_RAYS), np.sin(_RAYS)])[:, hits.ray[pick]]  # (2, n)
        aspect = np.arctan2(direction[1], direction[0]) - state.yaw[thing]
        rcs = self.rcs[thing] + self._aspect_gain(thing, aspect) + rng.normal(0, 3, n)
        v = (direction.T * state.velocity[thing]).sum(1)
        v = v + rng.normal(0, 1, n) * np.hypot(VELOCITY_NOISE, self.flutter[thing])
        depth = rng.random(n) * np.minimum(0.5, 0.6 * self.mesh.sizes[thing, 1])
        r = hits.distance[pick] + depth + rng.normal(0, RANGE_NOISE, n)
        detected = rng.random(n) < 1 / (1 + np.exp(-(rcs + 14 - 40 * np.log10(np.maximum(r, 1) / 30)) / 2))
        points = np.stack([r, _blur(_RAYS[hits.ray[pick]], rng), rcs, v], 1)[detected]
        return np.concatenate([points, self._ghosts(points, rng)])

    @staticmethod
    def _ghosts(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Multipath: the same object again, farther away and weaker."""
        ghosts = points[rng.random(len(points)) < 0.025].copy()
        ghosts[:, 0] *= rng.uniform(1.2, 2.0, len(ghosts))
        ghosts[:, 1] += rng.normal(0, np.radians(4), len(ghosts))
        ghosts[:, 2] -= rng.uniform(4, 10, len(ghosts))
        return ghosts

    def _aspect_gain(self, thing: np.ndarray, aspect: np.ndarray) -> np.ndarray:
        """Gain of RCS, dB, where a flat side faces the radar; aspect: azimuth of the ray minus heading, rad."""
        side = np.exp(-((np.degrees(np.arccos(np.minimum(np.abs(np.sin(aspect)), 1))) / 14) ** 2))
        end = np.exp(-((np.degrees(np.arccos(np.minimum(np.abs(np.cos(aspect)), 1))) / 14) ** 2))
        return np.where(self.flat[thing], 7.0 * side + 4.0 * end - 1.5, 3.0 * np.sin(aspect) ** 2 * self.long[thing])

    def _fixtures(self, hits: Hits, rng: np.random.Generator) -> np.ndarray:
        """(n, 4) as `_objects`, of fixtures."""
        index = np.flatnonzero(hits.owner >= self.mesh.count)
        power = hits.weight[index] * (0.25 + 0.75 * hits.slant[index] ** 2)
        count = int(rng.binomial(len(index), 0.27)) if len(index) else 0
        count = min(count, 60)
        if count == 0:
            return np.zeros((0, 4))
        pick = index[rng.choice(len(index), count, p=power / power.sum())]
        rcs = rng.normal(3, 5, count) + 8 * hits.slant[pick] ** 6
        r = hits.distance[pick] + rng.exponential(0.35, count) + rng.normal(0, RANGE_NOISE, count)
        return np.stack([r, _blur(_RAYS[hits.ray[pick]], rng), rcs, rng.normal(0, VELOCITY_NOISE, count)], 1)

    @staticmethod
    def _clutter(hits: Hits, rng: np.random.Generator) -> np.ndarray:
        """(n, 4) as `_objects`, of the ground in front of walls; 2 % are false alarms with any velocity."""
        count = int(rng.poisson(20))
        ray = rng.integers(len(_RAYS), size=count)
        r = 1.5 + rng.gamma(2.0, 11.0, count)
        velocity = rng.normal(0, 0.15, count)
        false = rng.random(count) < 0.02
        velocity[false] = rng.normal(0, 5, int(false.sum()))
        points = np.stack([r, _blur(_RAYS[ray], rng), rng.normal(-6, 4, count), velocity], 1)
        return points[r < hits.wall[ray]]


def _blur(azimuth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Azimuths within the rays' bins, with their noise."""
    half_bin = np.radians(0.25)
    sigma = AZIMUTH_NOISE * (1 + np.abs(azimuth) / HALF_ANGLE)
    return azimuth + rng.uniform(-half_bin, half_bin, len(azimuth)) + rng.normal(0, 1, len(azimuth)) * sigma
