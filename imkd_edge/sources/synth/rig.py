"""Rigs in the synthetic world: that of a nuScenes vehicle, and any rig on the ground that it names."""

from __future__ import annotations

from os import PathLike

import numpy as np

from imkd_edge.rig import CameraCalibration, RadarCalibration, SensorRig
from imkd_edge.sources.plane import Plane, normal_of

# x, y, z m, yaw degrees, focal length per image width: those of a nuScenes vehicle, clockwise from the front
_CAMERAS = (
    ("CAM_FRONT", 1.70, 0.02, 1.51, 0.0, 0.7914),
    ("CAM_FRONT_RIGHT", 1.55, -0.49, 1.50, -56.0, 0.7914),
    ("CAM_BACK_RIGHT", 1.01, -0.48, 1.56, -110.0, 0.7914),
    ("CAM_BACK", 0.03, 0.0, 1.58, 180.0, 0.5057),
    ("CAM_BACK_LEFT", 1.03, 0.48, 1.59, 109.0, 0.7914),
    ("CAM_FRONT_LEFT", 1.52, 0.49, 1.51, 55.0, 0.7914),
)
_RADARS = (  # x, y, z m, yaw degrees
    ("RADAR_FRONT", 3.41, 0.0, 0.50, 0.0),
    ("RADAR_FRONT_RIGHT", 2.42, -0.80, 0.77, -90.0),
    ("RADAR_BACK_RIGHT", -0.56, -0.62, 0.53, -175.0),
    ("RADAR_BACK_LEFT", -0.56, 0.63, 0.53, 175.0),
    ("RADAR_FRONT_LEFT", 2.42, 0.80, 0.78, 90.0),
)
_OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # camera axes (right, down, forward) in a frame along x


def _yaw_pose(x: float, y: float, z: float, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, z], [0, 0, 0, 1]])


def default_rig(image: tuple[int, int] = (480, 270)) -> SensorRig:
    """A nuScenes-like rig: five cameras of 65 degrees, one of 89 to the rear (sold as 70 and 110), and five radars.

    Args:
        image: width and height of the cameras, px.
    """
    width, height = image
    cameras = []
    for name, x, y, z, yaw, focal in _CAMERAS:
        T = _yaw_pose(x, y, z, yaw)
        T[:3, :3] = T[:3, :3] @ _OPTICAL
        f = focal * width
        K = np.array([[f, 0, 0.51 * width - 0.5], [0, f, 0.546 * height - 0.5], [0, 0, 1]])
        cameras.append(CameraCalibration(name=name, width=width, height=height, K=K, T_ego_camera=T))
    radars = [RadarCalibration(name=name, T_ego_radar=_yaw_pose(*pose)) for name, *pose in _RADARS]
    return SensorRig(cameras=cameras, radars=radars, ground_plane=(0.0, 0.0, 0.0))


def load_rig(rig: SensorRig | str | PathLike[str] | None, image: tuple[int, int]) -> SensorRig:
    """A rig, that of a JSON file, or `default_rig(image)`; raises what SensorRig.load raises."""
    if rig is None:
        return default_rig(image)
    return rig if isinstance(rig, SensorRig) else SensorRig.load(rig)


def on_the_ground(plane: Plane | None) -> np.ndarray | None:
    """(4, 4) T_ego_ground of a rig's ground plane; None where the two frames are one.

    The ground frame has its origin below or above the ego's on the ground, z along the normal, x below the ego's.
    """
    if plane is None or not any(plane):
        return None
    z = normal_of(plane)
    x = np.array([1.0, 0, 0]) - z[0] * z
    x /= np.linalg.norm(x)
    T = np.eye(4)
    T[:3, :3] = np.stack([x, np.cross(z, x), z], 1)
    T[2, 3] = plane[2]
    return T


def as_measured(points: np.ndarray, radar: RadarCalibration, twist: np.ndarray) -> np.ndarray:
    """Returns of a sweep with the radial velocity that this radar reports.

    Args:
        points: (n, 5) float32, their radial velocity over ground.
        twist: (3,) of the ego at the sweep's time: vx, vy m/s, yaw rate rad/s.
    """
    if radar.velocity == "compensated" or not len(points):
        return points
    T = np.array(radar.T_ego_radar)
    sensor = np.array([*twist[:2], 0]) + np.cross([0, 0, twist[2]], T[:3, 3])
    unit = points[:, :3].astype(float) / np.linalg.norm(points[:, :3].astype(float), axis=1, keepdims=True)
    velocity = points[:, 4] - unit @ (T[:3, :3].T @ sensor)
    if radar.velocity == "aliased":
        velocity -= radar.period * np.round(velocity / radar.period)
    return np.column_stack([points[:, :4], velocity]).astype(np.float32)
