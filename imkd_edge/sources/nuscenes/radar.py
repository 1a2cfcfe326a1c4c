"""Radar of nuScenes: the 18 fields of its PCD files, the filter on its states, points and sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from imkd_edge.frames import RadarSweep
from imkd_edge.rig import RadarCalibration
from imkd_edge.sources.pcd import pcd_bytes

RADAR_POINT = np.dtype([
    ("x", "<f4"), ("y", "<f4"), ("z", "<f4"),  # m in the radar frame
    ("dyn_prop", "i1"), ("id", "<i2"), ("rcs", "<f4"),  # dBsm
    ("vx", "<f4"), ("vy", "<f4"), ("vx_comp", "<f4"), ("vy_comp", "<f4"),  # m/s, relative and over ground
    ("is_quality_valid", "i1"), ("ambig_state", "i1"), ("x_rms", "i1"), ("y_rms", "i1"),
    ("invalid_state", "i1"), ("pdh0", "i1"), ("vx_rms", "i1"), ("vy_rms", "i1"),
])  # fmt: skip
RADAR_FIELDS = RADAR_POINT.names or ()

_TRUCKSCENES = ("x", "y", "z"), ("vrel_x", "vrel_y", "vrel_z")
TRUCKSCENES_FIELDS = (*_TRUCKSCENES[0], *_TRUCKSCENES[1], "rcs")

# Returns that pass by default (CRN's filter; names and values are the radar's own).
INVALID_STATES = (0, 4, 8, 9, 10, 11, 12, 15, 16, 17)
DYNAMIC_PROPERTIES = tuple(range(8))
AMBIGUITY_STATES = (3,)


def filter_points(points: np.ndarray, filters: Mapping[str, Sequence[int] | None]) -> np.ndarray:
    """Rows (N,) of a PCD file whose fields have one of the values in `filters`; None passes every value."""
    passes = np.ones(len(points), bool)
    for field, values in filters.items():
        if values is not None:
            passes &= np.isin(points[field], list(values))
    if len(points) and np.isnan(points["x"][0]):  # one row of nan stands for no return
        passes[:] = False
    return points[passes]


def radar_points(points: np.ndarray) -> np.ndarray:
    """(N, 5) float32 of PCD rows: x, y, z m in the radar frame, RCS dBsm, radial velocity m/s (receding positive)."""
    x, y = points["x"].astype(np.float64), points["y"].astype(np.float64)
    distance = np.maximum(np.hypot(x, y), 1e-6)
    radial = (points["vx_comp"] * x + points["vy_comp"] * y) / distance  # the velocity's part along the line of sight
    return np.stack([points["x"], points["y"], points["z"], points["rcs"], radial], 1).astype(np.float32)


def truckscenes_points(points: np.ndarray) -> np.ndarray:
    """(N, 5) float32 as `radar_points`, of TruckScenes' PCD rows, whose velocity is a vector relative to the radar."""
    xyz, velocity = (np.stack([points[name] for name in names], 1).astype(np.float64) for names in _TRUCKSCENES)
    distance = np.maximum(np.linalg.norm(xyz, axis=1), 1e-6)
    radial = (velocity * xyz).sum(1) / distance
    return np.column_stack([xyz, points["rcs"], radial]).astype(np.float32)


def radar_pcd(sweep: RadarSweep, radar: RadarCalibration, twist: Sequence[float] | np.ndarray | None) -> bytes:
    """A sweep as a binary PCD file with nuScenes' 18 fields.

    Args:
        sweep: points (n, 5) with radial velocities over ground.
        radar: its mounting, for the velocities relative to the vehicle.
        twist: vx, vy m/s and yaw rate rad/s of the ego; None sets the relative velocities to those over ground.
    """
    points = np.asarray(sweep.points, float).reshape(-1, 5)
    rows = np.zeros(max(len(points), 1), RADAR_POINT)
    if len(points) == 0:
        rows["x"] = rows["y"] = rows["z"] = np.nan  # one row of nan stands for no return
        return pcd_bytes(rows)
    rows["x"], rows["y"], rows["z"], rows["rcs"] = points[:, 0], points[:, 1], points[:, 2], points[:, 3]

    # velocities along the line of sight, over ground and relative to the radar
    distance = np.maximum(np.hypot(points[:, 0], points[:, 1]), 1e-9)
    sight = points[:, :2] / distance[:, None]  # (n, 2) unit vectors
    radial = points[:, 4]
    rows["vx_comp"], rows["vy_comp"] = (radial[:, None] * sight).T
    rows["vx"], rows["vy"] = ((radial - sight @ _radar_velocity(radar, twist))[:, None] * sight).T

    # states and accuracies, as the radar gives them for a valid return
    rows["dyn_prop"] = np.where(np.abs(radial) < 0.5, 1, np.where(radial < 0, 2, 0))  # stationary, oncoming, moving
    rows["id"] = np.arange(len(points))
    rows["is_quality_valid"], rows["ambig_state"], rows["pdh0"] = 1, 3, 1
    rows["x_rms"] = rows["y_rms"] = 19
    rows["vx_rms"] = rows["vy_rms"] = 3
    return pcd_bytes(rows)


def _radar_velocity(radar: RadarCalibration, twist: Sequence[float] | np.ndarray | None) -> np.ndarray:
    """(2,) m/s of a radar on a vehicle with this twist, in the radar frame."""
    if twist is None:
        return np.zeros(2)
    T = np.asarray(radar.T_ego_radar, float)
    vx, vy, turn = np.asarray(twist, float)
    return (T[:3, :3].T @ np.array([vx - turn * T[1, 3], vy + turn * T[0, 3], 0.0]))[:2]
