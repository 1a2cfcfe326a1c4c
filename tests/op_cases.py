"""Specs and rigs for the tests of the ops."""

from __future__ import annotations

import cv2
import numpy as np

from imkd_edge.rig import CameraCalibration, RadarCalibration, SensorRig
from imkd_edge.spec import ClassSpec, DepthSpec, GridSpec, HeadSpec, ImageSpec, ModelSpec, RadarFeature, RadarSpec

STATISTICS = [
    "log_count",
    "intensity_max",
    "intensity_mean",
    "velocity_x",
    "velocity_y",
    "phase_cos",
    "phase_sin",
    "z_mean",
    "z_min",
    "z_max",
    "offset_x",
    "offset_y",
    "age_min",
]
FORWARD = np.array(
    [[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]
)  # camera axes of a camera that looks along ego x


def small_spec(**changes) -> ModelSpec:
    """2 cameras of 96x64, stride 8; 32x24 cells of 1 m; radar cells of 0.5 m, all statistics; 3 classes in 2 groups."""
    classes = [
        ClassSpec(name="car", group=0, nms_radius=2.5),
        ClassSpec(name="truck", group=1, nms_radius=4),
        ClassSpec(name="person", group=1, nms_radius=0.5),
    ]
    values = {
        "name": "small",
        "cameras": 2,
        "image": ImageSpec(width=96, height=64, stride=8, anchor=0.5),
        "depth": DepthSpec(min=1.0, max=25.0, bins=24),
        "context_channels": 5,
        "grid": GridSpec(x_min=-16, x_max=16, y_min=-12, y_max=12, z_min=-3, z_max=4, cell=1.0),
        "radar": RadarSpec(
            cell=0.5, max_points=5000, max_age=1.0, features=[RadarFeature(statistic=name) for name in STATISTICS]
        ),
        "head": HeadSpec(classes=classes, score_threshold=0.3, max_candidates=200, max_detections=60),
    }
    spec = ModelSpec(**{**values, **changes})
    spec.check()
    return spec


def rotation(yaw: float = 0, pitch: float = 0, roll: float = 0) -> np.ndarray:
    """(4, 4) rotation Rz(yaw) Ry(pitch) Rx(roll)."""
    (cz, sz), (cy, sy), (cx, sx) = ((np.cos(a), np.sin(a)) for a in (yaw, pitch, roll))
    T = np.eye(4)
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    T[:3, :3] = about_z @ about_y @ about_x
    return T


def shift(x: float = 0, y: float = 0, z: float = 0) -> np.ndarray:
    """(4, 4) translation."""
    T = np.eye(4)
    T[:3, 3] = x, y, z
    return T


def random_pose(rng: np.random.Generator, tilt: float = 0.1, reach: float = 2.0) -> np.ndarray:
    """(4, 4) pose: any yaw, small pitch and roll, within reach m."""
    return shift(*rng.uniform(-reach, reach, 3)) @ rotation(rng.uniform(-np.pi, np.pi), *rng.uniform(-tilt, tilt, 2))


DISTORTIONS = {
    "none": (),
    "plumb_bob": (-0.21, 0.06, 0.0011, -0.0007, -0.004),
    "rational_polynomial": (0.41, -0.12, 0.0009, -0.0006, 0.011, 0.63, -0.05, 0.017),
    "fisheye": (0.03, -0.012, 0.004, -0.0006),
}


def random_camera(rng: np.random.Generator, name: str, distortion: str = "none") -> CameraCalibration:
    """A camera of about 60 degrees with a random pose."""
    width, height = int(rng.integers(150, 400)), int(rng.integers(100, 250))
    focal = width * rng.uniform(0.7, 1.0)
    K = [
        [focal, rng.uniform(-1, 1), width / 2 + rng.uniform(-9, 9)],
        [0, focal * 1.01, height / 2 + rng.uniform(-9, 9)],
        [0, 0, 1],
    ]
    pose = random_pose(rng, tilt=0.05) @ FORWARD
    return CameraCalibration(
        name=name,
        width=width,
        height=height,
        K=K,
        T_ego_camera=pose,
        distortion=distortion,
        coefficients=DISTORTIONS[distortion],
    )


def random_rig(
    seed: int, cameras: int = 2, radars: int = 2, distortion: str = "none", velocity: str = "compensated"
) -> SensorRig:
    """Cameras c0, c1, ... and radars r0, r1, ... at random places."""
    rng = np.random.default_rng(seed)
    period = 11.5 if velocity == "aliased" else 0.0
    return SensorRig(
        cameras=[random_camera(rng, f"c{i}", distortion) for i in range(cameras)],
        radars=[
            RadarCalibration(name=f"r{i}", T_ego_radar=random_pose(rng), velocity=velocity, period=period)
            for i in range(radars)
        ],
    )


def random_points(rng: np.random.Generator, count: int, spread: float = 9.0) -> np.ndarray:
    """(count, 5) float32 radar points, some of them beyond the small grid."""
    xyz = rng.normal(0, spread, (count, 3)) * [1, 1, 0.15]
    return np.concatenate([xyz, rng.uniform(-10, 60, (count, 1)), rng.normal(0, 6, (count, 1))], axis=1).astype(
        np.float32
    )


def normalised(camera: CameraCalibration, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(..., 2) ray through raw pixels, undistorted by OpenCV."""
    raw = np.stack([u, v], -1).reshape(-1, 1, 2).astype(np.float64)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-13)
    K = camera.K.copy()
    skew, K[0, 1] = K[0, 1], 0  # OpenCV undistorts without skew: move it into u
    raw[:, 0, 0] -= skew * (raw[:, 0, 1] - K[1, 2]) / K[1, 1]
    if camera.distortion == "none":
        rays = (raw[:, 0] - K[:2, 2]) / np.diag(K)[:2]
    elif camera.distortion != "fisheye":
        rays = cv2.undistortPointsIter(raw, K, np.array(camera.coefficients), None, None, stop)[:, 0]
    else:
        rays = cv2.fisheye.undistortPoints(raw, K, np.array(camera.coefficients), criteria=stop)[:, 0]
    return rays.reshape(*u.shape, 2)


def opencv_pixels(camera: CameraCalibration, points: np.ndarray) -> np.ndarray:
    """(N, 2) px of points (N, 3) m in the ego frame, projected by OpenCV, then by K with its skew."""
    T = np.linalg.inv(np.asarray(camera.T_ego_camera))
    optical, zero, unit = points @ T[:3, :3].T + T[:3, 3], np.zeros(3), np.eye(3)
    if camera.distortion == "fisheye":
        lens = cv2.fisheye.projectPoints(optical[:, None], zero, zero, unit, np.array(camera.coefficients))
    else:
        lens = cv2.projectPoints(optical, zero, zero, unit, np.array([*camera.coefficients] or [0.0] * 5))
    xy = lens[0].reshape(-1, 2)
    return xy @ np.asarray(camera.K)[:2, :2].T + np.asarray(camera.K)[:2, 2]
