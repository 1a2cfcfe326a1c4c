"""Radar sweeps as binary PCD files, version 0.7 (Point Cloud Library, "The PCD file format"), with the fields of nuScenes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from imkd_edge.frames import RadarSweep
from imkd_edge.rig import RadarCalibration

RADAR_POINT = np.dtype(
    [
        *((name, "<f4") for name in ("x", "y", "z")),
        *(("dyn_prop", "i1"), ("id", "<i2"), ("rcs", "<f4")),
        *((name, "<f4") for name in ("vx", "vy", "vx_comp", "vy_comp")),
        *(
            (name, "i1")
            for name in (
                "is_quality_valid",
                "ambig_state",
                "x_rms",
                "y_rms",
                "invalid_state",
                "pdh0",
                "vx_rms",
                "vy_rms",
            )
        ),
    ]
)


def radar_pcd(sweep: RadarSweep, radar: RadarCalibration, twist: Sequence[float] | np.ndarray | None) -> bytes:
    """A sweep as a binary PCD file with nuScenes' 18 fields.

    Args:
        sweep: points (n, 5) with velocities over ground.
        radar: where it sits, for the velocities relative to the vehicle.
        twist: vx, vy m/s and yaw rate rad/s of the ego; None leaves the relative velocities equal to those over ground.
    """
    given = np.asarray(sweep.points, float).reshape(-1, 5)
    points = np.zeros(max(len(given), 1), RADAR_POINT)
    if len(given) == 0:
        points["x"] = points["y"] = points["z"] = np.nan  # how the set says that nothing came back
    else:
        distance = np.maximum(np.hypot(given[:, 0], given[:, 1]), 1e-9)
        sight = given[:, :2] / distance[:, None]  # (n, 2) unit vectors
        own = np.zeros(2)
        if twist is not None:
            T = np.asarray(radar.T_ego_radar, float)
            vx, vy, turn = np.asarray(twist, float)
            own = (T[:3, :3].T @ np.array([vx - turn * T[1, 3], vy + turn * T[0, 3], 0.0]))[
                :2
            ]  # of the radar, in its frame
        points["x"], points["y"], points["z"], points["rcs"] = given[:, 0], given[:, 1], given[:, 2], given[:, 3]
        points["vx_comp"], points["vy_comp"] = (given[:, 4, None] * sight).T
        points["vx"], points["vy"] = ((given[:, 4] - sight @ own)[:, None] * sight).T
        points["dyn_prop"] = np.where(np.abs(given[:, 4]) < 0.5, 1, np.where(given[:, 4] < 0, 2, 0))
        points["id"] = np.arange(len(given))
        points["is_quality_valid"], points["ambig_state"], points["pdh0"] = 1, 3, 1
        points["x_rms"] = points["y_rms"] = 19
        points["vx_rms"] = points["vy_rms"] = 3
    kinds = {"f": "F", "i": "I"}
    fields = [(name, kinds[RADAR_POINT[name].kind], RADAR_POINT[name].itemsize) for name in RADAR_POINT.names or ()]
    header = [
        "# .PCD v0.7 - Point Cloud Data file format",
        "VERSION 0.7",
        "FIELDS " + " ".join(name for name, _, _ in fields),
        "SIZE " + " ".join(str(size) for _, _, size in fields),
        "TYPE " + " ".join(kind for _, kind, _ in fields),
        "COUNT " + " ".join("1" for _ in fields),
        f"WIDTH {len(points)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(points)}",
        "DATA binary",
    ]
    return ("\n".join(header) + "\n").encode() + points.tobytes() + b"\0"  # readers want a byte after the last point
