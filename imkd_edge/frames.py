"""The sensor data of one moment besides images: radar sweeps and ego motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imkd_edge._core import MAX_INTENSITY, MAX_VELOCITY, MIN_RANGE


@dataclass(frozen=True)
class RadarSweep:
    """One measurement cycle of one radar."""

    radar: str  # name in the rig
    # (N, 5) float32: x, y, z m in the radar frame, intensity dB, radial velocity m/s (receding positive).
    points: np.ndarray
    timestamp_ns: int | None = None  # None: the frame's reference time
    T_world_ego: np.ndarray | None = None  # (4, 4) float64 ego pose at timestamp_ns


def valid_points(points: np.ndarray) -> np.ndarray:
    """(N,) bool: False for those of (N, 5) points that the runtime discards as invalid."""
    x, y, z = points[:, :3].T.astype(np.float64)
    far = x * x + y * y + z * z >= MIN_RANGE * MIN_RANGE
    bounded = (np.abs(points[:, 3]) <= MAX_INTENSITY) & (np.abs(points[:, 4]) <= MAX_VELOCITY)
    return np.isfinite(points).all(1) & far & bounded


@dataclass(frozen=True)
class Ego:
    """Motion of the vehicle; both fields are optional, and for sweeps with a pose poses precede the twist.

    A twist faster than 100 m/s or 2 pi rad/s is invalid, and so are the poses of a frame's sweeps and exposures beyond
    a jump of the localisation: they are left out, with the warning W0132.
    """

    T_world_ego: np.ndarray | None = None  # (4, 4) float64 pose at the reference time
    twist: np.ndarray | tuple[float, float, float] | None = None  # vx, vy m/s and yaw rate rad/s in the ego frame
