"""Rigs that are not the one of the shipped models."""

from __future__ import annotations

import numpy as np

from imkd_edge.rig import CameraCalibration, RadarCalibration, SensorRig

OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # camera axes (right, down, ahead) in a frame along x


def mounted(x: float, y: float, z: float, yaw: float, pitch: float = 0.0) -> np.ndarray:
    """(4, 4) pose of a sensor along x: m; yaw to the left and pitch downwards in degrees."""
    (c, s), (d, t) = ((np.cos(a), np.sin(a)) for a in np.radians([yaw, pitch]))
    T = np.eye(4)
    T[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[d, 0, t], [0, 1, 0], [-t, 0, d]])
    T[:3, 3] = x, y, z
    return T


def camera(
    name: str, T_ego_body: np.ndarray, size: tuple[int, int], focal: float, distortion: str = "none", coefficients=()
) -> CameraCalibration:
    """A camera that looks along x of `T_ego_body`, its principal point in the middle of the image; focal length px."""
    T = T_ego_body.copy()
    T[:3, :3] = T[:3, :3] @ OPTICAL
    K = np.array([[focal, 0, size[0] / 2 - 0.5], [0, focal, size[1] / 2 - 0.5], [0, 0, 1]])
    lens = {"distortion": distortion, "coefficients": list(coefficients)}
    return CameraCalibration(name=name, width=size[0], height=size[1], K=K, T_ego_camera=T, **lens)


def three_camera_rig() -> SensorRig:
    """A truck's rig: three cameras of unlike lenses and sizes, two radars of unlike kinds of velocity.

    `front` (rational_polynomial, 92 degrees wide, 8 degrees downwards), `surround` (fisheye of 190 degrees across, to
    the rear, 20 degrees downwards), `left` (plumb_bob, portrait); `radar_front` aliased with a period of 12 m/s,
    `radar_rear` raw. Its JSON is a rig.json.
    """
    rational = (0.25, 0.03, 4e-4, -3e-4, 0.002, 0.52, 0.11, 0.009)
    kannala_brandt = (0.02, -0.004, 0.0006, -0.0001)  # 95 degrees off the axis are at 1.71 focal lengths
    return SensorRig(
        cameras=[
            camera("front", mounted(4.1, 0.1, 2.3, 0, 8), (640, 360), 400, "rational_polynomial", rational),
            camera("surround", mounted(-2.4, 0, 2.6, 180, 20), (480, 480), 139, "fisheye", kannala_brandt),
            camera("left", mounted(2.0, 1.2, 1.9, 75, 5), (300, 400), 260, "plumb_bob", (-0.21, 0.06, 1e-3, -7e-4, 0)),
        ],
        radars=[
            RadarCalibration(name="radar_front", T_ego_radar=mounted(4.4, 0, 0.7, 2), velocity="aliased", period=12.0),
            RadarCalibration(name="radar_rear", T_ego_radar=mounted(-3.1, -0.6, 0.8, -170), velocity="raw"),
        ],
    )
