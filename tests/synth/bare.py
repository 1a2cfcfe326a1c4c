"""Scenes with a few things at known positions, for tests that know what is visible."""

from __future__ import annotations

import numpy as np

from imkd_edge.sources.synth.mesh import SceneMesh
from imkd_edge.sources.synth.world import Scene, Things

SIZES = {
    "car": (4.5, 1.9, 1.6),
    "truck": (8.0, 2.5, 3.4),
    "bus": (11.0, 2.5, 3.0),
    "motorcycle": (2.1, 0.8, 1.6),
    "bicycle": (1.8, 0.6, 1.75),
    "pedestrian": (0.7, 0.65, 1.75),
}
EYE = np.array([500.0, 500.0])  # far from the scene's own street; the vehicle stands here and looks along x


def pose(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    T = np.eye(4)
    T[:3, 3] = EYE[0] + x, EYE[1] + y, z
    return T


def bare_mesh(objects=(), fixtures=()) -> SceneMesh:
    """A scene of `objects` (kind, x, y, yaw, vx, vy) and `fixtures` (kind, size, x, y) alone, relative to EYE."""
    scene = Scene(0, 0, 1.0, ("car",))
    scene.motion._rows = [scene.motion.line(EYE + [x, y], yaw, (vx, vy)) for _, x, y, yaw, vx, vy in objects]
    scene.motion._table = np.zeros((0, 8))
    grey = (120.0, 120.0, 120.0)
    scene.objects = Things(
        [o[0] for o in objects], np.array([SIZES[o[0]] for o in objects]).reshape(-1, 3), [grey] * len(objects)
    )
    scene.fixtures = Things(
        [f[0] for f in fixtures], np.array([f[1] for f in fixtures], float).reshape(-1, 3), [grey] * len(fixtures)
    )
    scene.fixture_poses = np.array([(*(EYE + [f[2], f[3]]), 0.0) for f in fixtures]).reshape(-1, 3)
    return SceneMesh(scene)
