"""All shapes of a scene as flat arrays, and their poses in the world at one time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imkd_edge.sources.synth.pieces import Piece
from imkd_edge.sources.synth.roads import State
from imkd_edge.sources.synth.shapes import BUILDERS, HIP, SHOULDER
from imkd_edge.sources.synth.world import Scene

# Values of the id buffer; objects have their index.
FIXTURE_ID = 254
GROUND_ID = 255  # and sky


class SceneMesh:
    """Polygons, footprints and ray solids of N objects followed by F fixtures."""

    def __init__(self, scene: Scene):
        self.scene = scene
        self.count = len(scene.objects.kinds)  # N; things >= count are fixtures
        pieces: list[Piece] = []
        owners: list[int] = []
        things = zip(
            scene.objects.kinds + scene.fixtures.kinds,
            np.concatenate([scene.objects.sizes, scene.fixtures.sizes]),
            scene.objects.colours + scene.fixtures.colours,
        )
        for index, (kind, size, colour) in enumerate(things):
            rng = np.random.default_rng([scene.seed, scene.index, 2, index])
            length, width, height = (float(v) for v in size)
            shape = BUILDERS[kind](length, width, height, colour, rng)
            pieces += shape
            owners += [index] * len(shape)
        self.sizes = np.concatenate([scene.objects.sizes, scene.fixtures.sizes])  # (N + F, 3)
        self.still = np.concatenate([~scene.motion.moves(), np.ones(len(scene.fixtures.kinds), bool)])  # (N + F,)
        self._pack(pieces, owners)

    def _pack(self, pieces: list[Piece], owners: list[int]) -> None:
        polygons = [p for piece in pieces for p in piece.polygons]
        lengths = np.array([len(p) for p in polygons], int)
        per_piece = [len(piece.polygons) for piece in pieces]

        # geometry
        self.piece_owner = np.array(owners, int)  # (R,)
        # (R, 4) x0, x1, y0, y1 in the owner's frame
        self.footprint = np.array([p.footprint for p in pieces], float).reshape(-1, 4)
        self.polygon_piece = np.repeat(np.arange(len(pieces)), per_piece)  # (P,)
        self.starts = np.concatenate([[0], np.cumsum(lengths)])  # (P + 1,)
        self.vertices = np.concatenate([np.zeros((0, 3)), *polygons])  # (V, 3) owner's frame
        self.vertex_owner = self.piece_owner[np.repeat(self.polygon_piece, lengths)]  # (V,)
        self.normals = np.array([n for p in pieces for n in p.normals], float).reshape(-1, 3)  # (P, 3)
        self.two_sided = (self.normals == 0).all(1)  # (P,)

        # appearance
        self.colours = np.array([c for p in pieces for c in p.colours], float).reshape(-1, 3)  # (P, 3)
        self.details = np.array([d for p in pieces for d in p.details], float)  # (P,)
        self.glowing = np.array([g for p in pieces for g in p.glowing], bool)  # (P,)

        # limbs: legs swing about the hip, arms about the shoulder
        swing = np.repeat(np.array([s for p in pieces for s in p.swings], float), lengths)  # (V,)
        height = self.sizes[self.vertex_owner, 2]
        reach = np.maximum(self.sizes[self.vertex_owner, 0] / 2 - 0.1, 0)
        hinge = np.where(np.abs(swing) == 1.0, HIP, SHOULDER) * height
        lever = np.clip((hinge - self.vertices[:, 2]) / (HIP * height), 0, 1)
        self.swing = swing * reach * lever  # (V,) m of x per unit of swing

        # solids for rays
        boxes = [
            (np.concatenate([box, [owner]]), material) for p, owner in zip(pieces, owners) for box, material in p.solids
        ]
        # (B, 7): x0 x1 y0 y1 z0 z1 in the owner's frame, owner
        self.solids = np.array([box for box, _ in boxes], float).reshape(-1, 7)
        self.materials = [material for _, material in boxes]

    def pose(self, state: State) -> PosedMesh:
        """Everything in the world frame, with the objects as in `state`."""
        fixtures = self.scene.fixture_poses
        xy = np.concatenate([state.xy, fixtures[:, :2]])
        yaw = np.concatenate([state.yaw, fixtures[:, 2]])
        swing = np.concatenate([state.swing, np.zeros(len(fixtures))])
        c, s = np.cos(yaw), np.sin(yaw)

        i = self.vertex_owner
        x, y = self.vertices[:, 0] + self.swing * swing[i], self.vertices[:, 1]
        z = self.vertices[:, 2]
        vertices = np.stack([c[i] * x - s[i] * y + xy[i, 0], s[i] * x + c[i] * y + xy[i, 1], z], 1)

        i = self.piece_owner[self.polygon_piece]
        x, y, z = self.normals.T
        normals = np.stack([c[i] * x - s[i] * y, s[i] * x + c[i] * y, z], 1)

        i = self.piece_owner[:, None]
        x, y = self.footprint[:, [0, 1, 1, 0]], self.footprint[:, [2, 2, 3, 3]]  # (R, 4)
        corners = np.stack([c[i] * x - s[i] * y + xy[i, 0], s[i] * x + c[i] * y + xy[i, 1]], -1)
        return PosedMesh(xy, yaw, vertices, normals, corners)


@dataclass
class PosedMesh:
    """A SceneMesh in the world frame at one time."""

    xy: np.ndarray  # (N + F, 2) m
    yaw: np.ndarray  # (N + F,) rad
    vertices: np.ndarray  # (V, 3) m
    normals: np.ndarray  # (P, 3)
    corners: np.ndarray  # (R, 4, 2) m, footprints, counter-clockwise
