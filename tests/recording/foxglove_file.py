"""Writes scenes as MCAP files of Foxglove's messages with foxglove-sdk, in the topics and frames of nuscenes2mcap."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import foxglove
import numpy as np
from foxglove import messages as fg
from recording.scenes import EGO, WORLD, Event, quaternion

NUMBERS = {"f4": "Float32", "f8": "Float64", "i1": "Int8", "u1": "Uint8", "i2": "Int16", "u2": "Uint16"}


def stamp(time_ns: int) -> Any:
    return fg.Timestamp(sec=time_ns // 10**9, nsec=time_ns % 10**9)


def transform(time_ns: int, parent: str, child: str, T: np.ndarray) -> Any:
    x, y, z, w = quaternion(T[:3, :3])
    return fg.FrameTransform(
        timestamp=stamp(time_ns),
        parent_frame_id=parent,
        child_frame_id=child,
        translation=fg.Vector3(x=float(T[0, 3]), y=float(T[1, 3]), z=float(T[2, 3])),
        rotation=fg.Quaternion(x=x, y=y, z=z, w=w),
    )


def cloud(time_ns: int, frame: str, points: np.ndarray) -> Any:
    dtype = points.dtype
    kinds = fg.PackedElementFieldNumericType
    fields = [
        fg.PackedElementField(
            name=name, offset=dtype.fields[name][1], type=getattr(kinds, NUMBERS[dtype[name].str.lstrip("<|")])
        )
        for name in dtype.names or ()
    ]
    return fg.PointCloud(
        timestamp=stamp(time_ns), frame_id=frame, point_stride=dtype.itemsize, fields=fields, data=points.tobytes()
    )


# nuScenes' fields that matter here; its radial velocity is the part of the compensated vector along the ray
NUSCENES = np.dtype([
    ("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("dyn_prop", "i1"), ("id", "<i2"), ("rcs", "<f4"), ("vx", "<f4"),
    ("vy", "<f4"), ("vx_comp", "<f4"), ("vy_comp", "<f4"),
])  # fmt: skip


def nuscenes_points(points: np.ndarray) -> np.ndarray:
    result = np.zeros(len(points), NUSCENES)
    for i, name in enumerate(("x", "y", "z", "rcs")):
        result[name] = points[:, i]
    along = points[:, :2] / np.maximum(np.linalg.norm(points[:, :2], axis=1, keepdims=True), 1e-6)
    result["vx_comp"], result["vy_comp"] = (along * points[:, 4:5]).T
    return result


def calibration(time_ns: int, frame: str, camera: Any, model: str = "", d: Iterable[float] = ()) -> Any:
    P = np.zeros((3, 4))
    P[:, :3] = camera.K
    return fg.CameraCalibration(
        timestamp=stamp(time_ns), frame_id=frame, width=camera.width, height=camera.height, distortion_model=model,
        D=list(d), K=np.asarray(camera.K).reshape(-1).tolist(), R=np.eye(3).reshape(-1).tolist(),
        P=P.reshape(-1).tolist(),
    )  # fmt: skip


def raw_image(time_ns: int, frame: str, pixels: np.ndarray) -> Any:
    height, width = pixels.shape[:2]
    return fg.RawImage(
        timestamp=stamp(time_ns), frame_id=frame, width=width, height=height, encoding="rgb8", step=3 * width,
        data=np.ascontiguousarray(pixels).tobytes(),
    )  # fmt: skip


def png_image(time_ns: int, frame: str, pixels: np.ndarray) -> Any:
    data = cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))[1].tobytes()
    return fg.CompressedImage(timestamp=stamp(time_ns), frame_id=frame, data=data, format="png")


def write(path: Path, events: Iterable[Event], make_image: Any = png_image, odometry: bool = False) -> Path:
    """A scene; poses as FrameTransform of base_link, or as Odometry."""
    context = foxglove.Context()
    writer = foxglove.open_mcap(path, allow_overwrite=True, context=context)
    channels: dict[str, Any] = {}

    def log(topic: str, message: Any, time_ns: int) -> None:
        if topic not in channels:
            kind = getattr(foxglove.channels, type(message).__name__ + "Channel")
            channels[topic] = kind(topic, context=context)
        channels[topic].log(message, log_time=time_ns)

    for event in events:
        name, time = event.sensor.lower(), event.time_ns
        if event.kind == "static":
            mounting = getattr(event.value, "T_ego_camera", getattr(event.value, "T_ego_radar", None))
            log("/tf", fg.FrameTransforms(transforms=[transform(time, EGO, name, mounting)]), time)
        elif event.kind == "info":
            log(f"/{name}/camera_info", calibration(time, name, event.value), time)
        elif event.kind == "image":
            topic = "image_raw" if make_image is raw_image else "image_rect_compressed"
            log(f"/{name}/{topic}", make_image(time, name, event.value), time)
        elif event.kind == "radar":
            log(f"/{name}", cloud(time, name, nuscenes_points(event.value)), time)
        elif odometry:
            pose, twist = event.value
            x, y, z, w = quaternion(pose[:3, :3])
            message = fg.Odometry(
                timestamp=stamp(time), frame_id=WORLD, body_frame_id=EGO,
                pose=fg.Pose(
                    position=fg.Vector3(x=pose[0, 3], y=pose[1, 3], z=pose[2, 3]),
                    orientation=fg.Quaternion(x=x, y=y, z=z, w=w),
                ),
                linear_velocity=fg.Vector3(x=float(twist[0]), y=float(twist[1]), z=0.0),
                angular_velocity=fg.Vector3(x=0.0, y=0.0, z=float(twist[2])),
            )  # fmt: skip
            log("/odom", message, time)
        else:
            log("/tf", fg.FrameTransforms(transforms=[transform(time, "map", EGO, event.value[0])]), time)
    writer.close()
    return path
