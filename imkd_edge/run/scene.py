"""Results and sensor data as Foxglove's messages (docs.foxglove.dev/docs/sdk/schemas)."""

from __future__ import annotations

import cv2
import numpy as np
from foxglove import messages as fg

from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.result import Detection, Result
from imkd_edge.rig import CameraCalibration, RadarCalibration
from imkd_edge.sources.geometry import quaternion_of
from imkd_edge.view.draw.canvas import class_color

EGO, WORLD = "base_link", "map"  # REP 105
JPEG_QUALITY = 90
OPACITY = 0.45  # of a box
SLOWEST = 0.3  # m/s, from which a box has an arrow
_LENSES = {"none": "", "fisheye": "kannala_brandt"}  # the rig's name -> Foxglove's, where they differ


def stamp(time_ns: int) -> fg.Timestamp:
    """A time of Foxglove."""
    return fg.Timestamp(sec=time_ns // 10**9, nsec=time_ns % 10**9)


def boxes(result: Result) -> fg.SceneUpdate:
    """The boxes of one frame, which replace those before them: a cube, a text and, where it moves, an arrow each."""
    time = stamp(result.timestamp_ns)
    everything = fg.SceneEntityDeletion(timestamp=time, type=fg.SceneEntityDeletionType.All)
    entities = [
        _entity(f"{number}", time, detection, class_color(detection.label, int(result.labels[number])))
        for number, detection in enumerate(result.detections)
    ]
    return fg.SceneUpdate(deletions=[everything], entities=entities)


def _entity(name: str, time: fg.Timestamp, detection: Detection, rgb: tuple[int, int, int]) -> fg.SceneEntity:
    length, width, height = map(float, detection.size)
    x, y, z = map(float, detection.center)
    vx, vy = map(float, detection.velocity)
    color, solid = _color(rgb, OPACITY), _color(rgb, 1.0)
    cube = fg.CubePrimitive(
        pose=_pose(x, y, z, detection.yaw), size=fg.Vector3(x=length, y=width, z=height), color=color
    )
    label = f"{detection.label} {detection.score:.2f}"
    text = fg.TextPrimitive(
        pose=_pose(x, y, z + height / 2 + 0.5, 0.0), billboard=True, font_size=0.6, color=solid, text=label
    )
    speed, arrows = np.hypot(vx, vy), []
    if speed > SLOWEST:  # not so where it is NaN
        size = {"shaft_length": float(speed), "shaft_diameter": 0.15, "head_length": 0.4, "head_diameter": 0.4}
        arrows = [fg.ArrowPrimitive(pose=_pose(x, y, z, float(np.arctan2(vy, vx))), color=solid, **size)]
    facts = {"label": detection.label, "score": repr(float(detection.score))}
    if not np.isnan(speed):
        facts |= {"vx": repr(vx), "vy": repr(vy)}
    metadata = [fg.KeyValuePair(key=key, value=value) for key, value in facts.items()]
    return fg.SceneEntity(
        timestamp=time, frame_id=EGO, id=name, frame_locked=True, metadata=metadata,
        cubes=[cube], texts=[text], arrows=arrows,
    )  # fmt: skip


def _color(rgb: tuple[int, int, int], opacity: float) -> fg.Color:
    r, g, b = (value / 255 for value in rgb)
    return fg.Color(r=r, g=g, b=b, a=opacity)


def _pose(x: float, y: float, z: float, yaw: float) -> fg.Pose:
    turn = fg.Quaternion(x=0.0, y=0.0, z=float(np.sin(yaw / 2)), w=float(np.cos(yaw / 2)))
    return fg.Pose(position=fg.Vector3(x=x, y=y, z=z), orientation=turn)


def transform(time_ns: int, parent: str, child: str, T_parent_child: np.ndarray) -> fg.FrameTransforms:
    """A transform of TF from a (4, 4) matrix."""
    T = np.asarray(T_parent_child)
    one = fg.FrameTransform(
        timestamp=stamp(time_ns), parent_frame_id=parent, child_frame_id=child,
        translation=_vector(T[:3, 3]), rotation=_rotation(T),
    )  # fmt: skip
    return fg.FrameTransforms(transforms=[one])


def odometry(time_ns: int, ego: Ego) -> fg.Odometry:
    """The vehicle's pose, and its twist where that is known."""
    T = np.asarray(ego.T_world_ego)
    pose = fg.Pose(position=_vector(T[:3, 3]), orientation=_rotation(T))
    linear = angular = None
    if ego.twist is not None:
        vx, vy, yaw_rate = map(float, ego.twist)
        linear, angular = fg.Vector3(x=vx, y=vy, z=0.0), fg.Vector3(x=0.0, y=0.0, z=yaw_rate)
    return fg.Odometry(
        timestamp=stamp(time_ns), frame_id=WORLD, body_frame_id=EGO, pose=pose,
        linear_velocity=linear, angular_velocity=angular,
    )  # fmt: skip


def _vector(values: np.ndarray) -> fg.Vector3:
    x, y, z = map(float, values)
    return fg.Vector3(x=x, y=y, z=z)


def _rotation(T: np.ndarray) -> fg.Quaternion:
    w, x, y, z = quaternion_of(T[:3, :3])
    return fg.Quaternion(x=x, y=y, z=z, w=w)


def image(time_ns: int, frame: str, pixels: np.ndarray) -> fg.CompressedImage:
    """A JPEG of an RGB image (H, W, 3) uint8."""
    _, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return fg.CompressedImage(timestamp=stamp(time_ns), frame_id=frame, data=data.tobytes(), format="jpeg")


def calibration(time_ns: int, frame: str, camera: CameraCalibration) -> fg.CameraCalibration:
    """Size, lens and camera matrix."""
    K = np.asarray(camera.K, np.float64)
    P = np.hstack([K, np.zeros((3, 1))])
    return fg.CameraCalibration(
        timestamp=stamp(time_ns), frame_id=frame, width=camera.width, height=camera.height,
        distortion_model=_LENSES.get(camera.distortion, camera.distortion), D=list(map(float, camera.coefficients)),
        K=K.ravel().tolist(), R=np.eye(3).ravel().tolist(), P=P.ravel().tolist(),
    )  # fmt: skip


def points(sweep: RadarSweep, time_ns: int, radar: RadarCalibration) -> fg.PointCloud:
    """The returns of a radar in its frame; a velocity over ground is called so."""
    velocity = "velocity_compensated" if radar.velocity == "compensated" else "velocity"
    kind = fg.PackedElementFieldNumericType.Float32
    fields = [
        fg.PackedElementField(name=name, offset=4 * i, type=kind)
        for i, name in enumerate(("x", "y", "z", "intensity", velocity))
    ]
    data = np.ascontiguousarray(sweep.points, "<f4").tobytes()
    return fg.PointCloud(timestamp=stamp(time_ns), frame_id=sweep.radar, point_stride=20, fields=fields, data=data)
