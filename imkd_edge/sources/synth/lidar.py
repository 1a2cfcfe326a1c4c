"""A spinning 32-beam LiDAR: first hit of every ray among the solids and the ground, with reflectance by material."""

from __future__ import annotations

import numpy as np

from imkd_edge.sources.synth.ground import Ground
from imkd_edge.sources.synth.layout import FLAT_SIDED
from imkd_edge.sources.synth.mesh import SceneMesh
from imkd_edge.sources.synth.roads import State

BEAMS = np.radians(np.linspace(-30.67, 10.67, 32))
COLUMNS = 1080
MAX_RANGE, MIN_RANGE = 70.0, 1.0  # m
RANGE_NOISE = 0.02  # m
MATERIALS = {  # share of the colour's brightness, offset; reflectance 0..255
    "paint": (0.28, 14),
    "panel": (0.3, 22),
    "glass": (0.0, 6),
    "dark": (0.0, 8),
    "cloth": (0.25, 14),
    "skin": (0.0, 55),
    "metal": (0.15, 50),
    "stone": (0.25, 14),
    "bark": (0.0, 24),
    "leaf": (0.0, 46),
}


class LidarModel:
    """Simulates sweeps in one scene; all points of a sweep are of one instant."""

    def __init__(self, mesh: SceneMesh, ground: Ground):
        self.mesh, self.ground = mesh, ground
        objects, fixtures = mesh.scene.objects, mesh.scene.fixtures
        colours = np.array(objects.colours + fixtures.colours, float).reshape(-1, 3).mean(1)
        owner = mesh.solids[:, 6].astype(int)
        share, offset = np.array([MATERIALS[m] for m in mesh.materials]).reshape(-1, 2).T

        # (B + 1,) rows of solids; the last one is the ground
        self.base = np.append(share * colours[owner] + offset, 0.0)  # reflectance
        self.glass = np.array([m == "glass" for m in mesh.materials] + [False])
        vehicles = np.array([k in FLAT_SIDED for k in objects.kinds] + [False] * len(fixtures.kinds), bool)
        self.vehicle = np.append(vehicles[owner], False)
        self.solids = np.concatenate([mesh.solids, [[0, 0, 0, 0, 0, 0, -1]]])  # (B + 1, 7)

    def sweep(self, state: State, T_world_lidar: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Points (n, 4) float32 in the LiDAR frame, x, y, z m and reflectance, and (n,) what was hit.

        That is the index of an object or fixture, or -1 for the ground.
        """
        # the ground
        direction = _directions()
        eye = T_world_lidar[:3, 3]
        distance = np.where(direction[:, 2] < 0, eye[2] / np.maximum(-direction[:, 2], 1e-9), np.inf)
        hit, slant = np.full(len(direction), -1), np.abs(direction[:, 2])
        face = np.zeros(len(direction), int)
        local_z, local_y = np.zeros((2, len(direction)))

        # the nearest solid, where it is in front of the ground
        ray, solid, t, cos, axis, y, z = self._pairs(state, eye, direction)
        nearer = np.flatnonzero(t < distance[ray])
        nearer = nearer[np.argsort(-t[nearer], kind="stable")]  # nearest last: it overwrites the others
        ray, solid = ray[nearer], solid[nearer]
        distance[ray], hit[ray], slant[ray], face[ray] = t[nearer], solid, cos[nearer], axis[nearer]
        local_y[ray], local_z[ray] = y[nearer], z[nearer]

        # reflectance, losses and noise of range
        points = eye + direction * np.where(np.isfinite(distance), distance, 0)[:, None]
        reflectance = self._reflectance(points, hit, slant, face, local_y, local_z, rng)
        loss = 0.02 + 0.5 * (distance / MAX_RANGE) ** 2 * (1 - reflectance / 255) + 0.5 * self.glass[hit]
        ok = (distance < MAX_RANGE) & (distance > MIN_RANGE) & (rng.random(len(distance)) > loss)
        noisy = distance + rng.normal(0, RANGE_NOISE, len(distance))
        points = (eye + direction[ok] * noisy[ok, None] - eye) @ T_world_lidar[:3, :3]
        owner = self.solids[hit[ok], 6].astype(int)
        return np.concatenate([points, reflectance[ok, None]], 1).astype(np.float32), owner

    def _pairs(self, state: State, eye: np.ndarray, direction: np.ndarray):
        """Every (ray, solid) pair that intersects: ray, solid, t m, |cos| to the face, face axis, y and z of the hit.

        y and z are in the solid's frame.
        """
        mesh = self.mesh
        owner = mesh.solids[:, 6].astype(int)
        fixtures = mesh.scene.fixture_poses
        xy = np.concatenate([state.xy, fixtures[:, :2]])[owner] - eye[:2]
        yaw = np.concatenate([state.yaw, fixtures[:, 2]])[owner]
        c, s = np.cos(yaw), np.sin(yaw)
        cx, cy = mesh.solids[:, [0, 1, 1, 0]], mesh.solids[:, [2, 2, 3, 3]]
        px, py = c[:, None] * cx - s[:, None] * cy + xy[:, :1], s[:, None] * cx + c[:, None] * cy + xy[:, 1:]  # (B, 4)

        # the columns of rays that each solid spans
        middle = np.arctan2(py.mean(1), px.mean(1))
        spread = (np.arctan2(py, px) - middle[:, None] + np.pi) % (2 * np.pi) - np.pi
        first = np.ceil((middle + spread.min(1) + np.pi) / (2 * np.pi) * COLUMNS).astype(int)
        last = np.floor((middle + spread.max(1) + np.pi) / (2 * np.pi) * COLUMNS).astype(int)
        near = np.hypot(px, py).min(1)
        columns = np.where(near < MAX_RANGE, np.maximum(last - first + 1, 0), 0)
        solid = np.repeat(np.arange(len(owner)), columns)
        column = (np.arange(columns.sum()) - np.repeat(np.cumsum(columns) - columns, columns) + first[solid]) % COLUMNS

        # slabs of x, y, z in the solid's frame
        rays = direction.reshape(COLUMNS, len(BEAMS), 3)[column]  # (pairs, beams, 3)
        cos_yaw, sin_yaw = c[solid, None], s[solid, None]
        dx, dy = rays[..., 0] * cos_yaw + rays[..., 1] * sin_yaw, -rays[..., 0] * sin_yaw + rays[..., 1] * cos_yaw
        ox, oy = (-xy[:, 0] * c - xy[:, 1] * s)[solid, None], (xy[:, 0] * s - xy[:, 1] * c)[solid, None]
        enter, leave = np.full(dx.shape, -np.inf), np.full(dx.shape, np.inf)
        axis, cos = np.zeros(dx.shape, int), np.zeros(dx.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            for k, (o, d) in enumerate(((ox, dx), (oy, dy), (eye[2], rays[..., 2]))):
                low, high = (mesh.solids[solid, 2 * k, None] - o) / d, (mesh.solids[solid, 2 * k + 1, None] - o) / d
                inward = np.minimum(low, high)
                axis, cos = np.where(inward > enter, k, axis), np.where(inward > enter, np.abs(d), cos)
                enter, leave = np.maximum(enter, inward), np.minimum(leave, np.maximum(low, high))

        hit = (enter < leave) & (enter > 0)
        pair, beam = np.nonzero(hit)
        t, ray = enter[hit], column[pair] * len(BEAMS) + beam
        y, z = np.broadcast_to(oy, hit.shape)[hit] + t * dy[hit], eye[2] + t * rays[..., 2][hit]
        return ray, solid[pair], t, cos[hit], axis[hit], y, z

    def _reflectance(self, points, hit, slant, face, local_y, local_z, rng) -> np.ndarray:
        value = self.base[hit] * (0.55 + 0.45 * slant)
        ground = hit < 0
        pixel = np.round(self.ground.pixels(points[ground, :2], 1)).astype(int)
        height, width = self.ground.bare.shape
        inside = ((pixel >= 0) & (pixel < (width, height))).all(1)
        bright = np.full(len(pixel), 105.0)
        bright[inside] = self.ground.bare[pixel[inside, 1], pixel[inside, 0]]
        value[ground] = 5 + 0.05 * bright + 0.7 * np.maximum(bright - 150, 0)
        solids = self.solids[hit]
        lamp = self.vehicle[hit] & (face == 0) & (np.abs(local_y) > 0.3 * (solids[:, 3] - solids[:, 2]))
        lamp &= (local_z > 0.45) & (local_z < 1.15)
        value[lamp] = 215 + 40 * rng.random(int(lamp.sum()))  # lamps and plates are retroreflectors
        return np.clip(np.round(value + rng.normal(0, 1, len(value)) * (1.5 + 0.06 * value)), 0, 255)


def _directions() -> np.ndarray:
    """(COLUMNS * beams, 3) unit vectors of the rays, column by column, for an upright LiDAR."""
    azimuth = np.arange(COLUMNS) * 2 * np.pi / COLUMNS - np.pi
    x, y = np.outer(np.cos(azimuth), np.cos(BEAMS)), np.outer(np.sin(azimuth), np.cos(BEAMS))
    return np.stack([x, y, np.broadcast_to(np.sin(BEAMS), x.shape)], -1).reshape(-1, 3)
