"""LiDAR grid of the teacher, made by the radar's voxeliser: one definition of a cell holds for both sensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

import imkd_edge.ops as ops
from imkd_edge.frames import RadarSweep
from imkd_edge.rig import RadarCalibration, SensorRig
from imkd_edge.sources.plane import Plane, heights_above
from imkd_edge.spec import ModelSpec

SLICES = (-0.3, 0.3, 0.8, 1.3, 1.8, 2.5, 4.0)  # m above the ground; the counts per slice give a column's shape
STATISTICS = {  # channel -> (offset, scale)
    "log_count": (0.0, 0.5),
    "intensity_max": (0.0, 4.0),
    "intensity_mean": (0.0, 4.0),
    "z_mean": (0.0, 1.0),
    "z_min": (0.0, 1.0),
    "z_max": (0.0, 1.0),
    "offset_x": (0.0, 4.0),
    "offset_y": (0.0, 4.0),
}
CHANNELS = len(STATISTICS) + len(SLICES) - 1
MAX_REFLECTANCE = 255  # of a LiDAR point; 0 is the least
MAX_POINTS = 500_000  # of a cloud
NAME = "lidar"  # of the radar that stands for the LiDAR
RADAR = RadarCalibration(name=NAME, T_ego_radar=np.eye(4), velocity="compensated")


@dataclass(frozen=True)
class LidarGrid:
    """Voxelises LiDAR clouds on the radar grid of a model."""

    pillars: ModelSpec  # the model's, with LiDAR statistics instead of the radar's
    counts: ModelSpec  # with only the count

    @classmethod
    def of(cls, spec: ModelSpec) -> LidarGrid:
        """The LiDAR grid on the radar grid of a model's spec."""
        return cls(_spec(spec, STATISTICS), _spec(spec, {"log_count": STATISTICS["log_count"]}))

    def __call__(self, lidar: np.ndarray | None, ground: Plane = (0.0, 0.0, 0.0)) -> np.ndarray:
        """Pillar statistics of a cloud.

        Args:
            lidar: (N,4) float32 x, y, z m in the ego frame, reflectance 0..255; None is an empty cloud.
            ground: plane of the ego frame above which heights are measured; see ops.ground_of.

        Returns: (CHANNELS,Hr,Wr) float32, STATISTICS of the reflectance/255 and positions, then ln(1+n) per slice.
        """
        lidar = np.zeros((0, 4), np.float32) if lidar is None else lidar
        points = np.zeros((len(lidar), 5), np.float32)
        points[:, :3], points[:, 3] = lidar[:, :3], lidar[:, 3] / MAX_REFLECTANCE
        above = heights_above(ground, points)
        points, above = points[above < SLICES[-1]], above[above < SLICES[-1]]
        rig = SensorRig(radars=[RADAR], ground_plane=ground)
        slices = [_voxelize(self.counts, rig, points[(above >= a) & (above < b)]) for a, b in pairwise(SLICES)]
        return np.concatenate([_voxelize(self.pillars, rig, points), *slices])


def channel(grid: Any, name: str) -> Any:
    """One of STATISTICS in its unit: (...,CHANNELS,Hr,Wr) -> (...,Hr,Wr), an array or a tensor."""
    offset, scale = STATISTICS[name]
    return grid[..., list(STATISTICS).index(name), :, :] / scale + offset


def _spec(spec: ModelSpec, statistics: dict[str, tuple[float, float]]) -> ModelSpec:
    tree = json.loads(spec.to_json())
    tree["radar"]["max_points"] = MAX_POINTS
    tree["radar"]["features"] = [{"statistic": name, "offset": o, "scale": s} for name, (o, s) in statistics.items()]
    return ModelSpec.from_json(json.dumps(tree))


def _voxelize(spec: ModelSpec, rig: SensorRig, points: np.ndarray) -> np.ndarray:
    grid, _ = ops.voxelize_radar(spec, rig, [RadarSweep(NAME, points)], 0, None)
    return grid
