"""Writes scenes as ROS 2 bags and MCAP files with the library rosbags."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from recording.scenes import EGO, WORLD, Event, quaternion
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

RETURN = "float32 range\nfloat32 azimuth\nfloat32 elevation\nfloat32 doppler_velocity\nfloat32 amplitude\n"
SCAN = "std_msgs/Header header\nradar_msgs/RadarReturn[] returns\n"


def typestore() -> Any:
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg(RETURN, "radar_msgs/msg/RadarReturn"))
    store.register(get_types_from_msg(SCAN, "radar_msgs/msg/RadarScan"))
    return store


STORE = typestore()
T = STORE.types
LATCHED = Qos(
    QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, QosTime(0, 0), QosTime(0, 0),
    QosLiveliness.AUTOMATIC, QosTime(0, 0), False,
)  # fmt: skip


def message(kind: str, /, **fields: Any) -> Any:
    return T[kind](**fields)


def header(time_ns: int, frame: str) -> Any:
    stamp = message("builtin_interfaces/msg/Time", sec=time_ns // 10**9, nanosec=time_ns % 10**9)
    return message("std_msgs/msg/Header", stamp=stamp, frame_id=frame)


def vector(x: float, y: float, z: float) -> Any:
    return message("geometry_msgs/msg/Vector3", x=float(x), y=float(y), z=float(z))


def rotation(R: np.ndarray) -> Any:
    x, y, z, w = quaternion(R)
    return message("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)


def transform(time_ns: int, parent: str, child: str, T_parent_child: np.ndarray) -> Any:
    pose = message(
        "geometry_msgs/msg/Transform",
        translation=vector(*T_parent_child[:3, 3]),
        rotation=rotation(T_parent_child[:3, :3]),
    )
    return message(
        "geometry_msgs/msg/TransformStamped", header=header(time_ns, parent), child_frame_id=child, transform=pose
    )


def tf(*transforms: Any) -> Any:
    return message("tf2_msgs/msg/TFMessage", transforms=list(transforms))


def image(time_ns: int, frame: str, encoding: str, data: np.ndarray, width: int, height: int, step: int) -> Any:
    raw = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
    return message(
        "sensor_msgs/msg/Image",
        header=header(time_ns, frame), height=height, width=width, encoding=encoding, is_bigendian=0, step=step,
        data=raw,
    )  # fmt: skip


def rgb_image(time_ns: int, frame: str, pixels: np.ndarray) -> Any:
    height, width = pixels.shape[:2]
    return image(time_ns, frame, "bgr8", pixels[..., ::-1], width, height, 3 * width)


def png_image(time_ns: int, frame: str, pixels: np.ndarray) -> Any:
    data = cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))[1].reshape(-1)
    return message("sensor_msgs/msg/CompressedImage", header=header(time_ns, frame), format="png", data=data)


def camera_info(time_ns: int, frame: str, camera: Any, model: str = "", d: Iterable[float] = (), **more: Any) -> Any:
    P = np.zeros((3, 4))
    P[:, :3] = camera.K
    roi = message("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    fields = {
        "header": header(time_ns, frame), "height": camera.height, "width": camera.width,
        "distortion_model": model, "d": np.array(list(d), float), "k": np.asarray(camera.K, float).reshape(9),
        "r": np.eye(3).reshape(9), "p": P.reshape(12), "binning_x": 0, "binning_y": 0, "roi": roi, **more,
    }  # fmt: skip
    return message("sensor_msgs/msg/CameraInfo", **fields)


NUMBERS = {"i1": 1, "u1": 2, "<i2": 3, "<u2": 4, "<i4": 5, "<u4": 6, "<f4": 7, "<f8": 8}


def cloud(time_ns: int, frame: str, points: np.ndarray) -> Any:
    """A PointCloud2 of a structured array, its padding included."""
    dtype = points.dtype
    fields = [
        message(
            "sensor_msgs/msg/PointField",
            name=name, offset=dtype.fields[name][1], datatype=NUMBERS[dtype[name].str.replace("|", "")], count=1,
        )
        for name in dtype.names
    ]  # fmt: skip
    data = np.frombuffer(points.tobytes(), np.uint8)
    return message(
        "sensor_msgs/msg/PointCloud2",
        header=header(time_ns, frame), height=1, width=len(points), fields=fields, is_bigendian=False,
        point_step=dtype.itemsize, row_step=len(data), data=data, is_dense=True,
    )  # fmt: skip


# as the driver of the ARS548 lays them out: a byte in between, so that floats are not aligned
DRIVER = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("flags", "u1"), ("range_rate", "<f4"), ("rcs", "<f4")])


def driver_points(points: np.ndarray) -> np.ndarray:
    result = np.zeros(len(points), DRIVER)
    for i, name in enumerate(("x", "y", "z", "rcs", "range_rate")):
        result[name] = points[:, i]
    return result


def scan(time_ns: int, frame: str, returns: np.ndarray) -> Any:
    """A RadarScan of (N, 5): range, azimuth, elevation, velocity, amplitude."""
    names = ("range", "azimuth", "elevation", "doppler_velocity", "amplitude")
    items = [message("radar_msgs/msg/RadarReturn", **dict(zip(names, map(float, row)))) for row in returns]
    return message("radar_msgs/msg/RadarScan", header=header(time_ns, frame), returns=items)


def odometry(time_ns: int, parent: str, child: str, pose: np.ndarray, twist: Any) -> Any:
    point = message("geometry_msgs/msg/Point", x=float(pose[0, 3]), y=float(pose[1, 3]), z=float(pose[2, 3]))
    vx, vy, rate = (0, 0, 0) if twist is None else twist
    covariance = np.zeros(36)
    inner = message("geometry_msgs/msg/Pose", position=point, orientation=rotation(pose[:3, :3]))
    motion = message("geometry_msgs/msg/Twist", linear=vector(vx, vy, 0), angular=vector(0, 0, rate))
    return message(
        "nav_msgs/msg/Odometry",
        header=header(time_ns, parent), child_frame_id=child,
        pose=message("geometry_msgs/msg/PoseWithCovariance", pose=inner, covariance=covariance),
        twist=message("geometry_msgs/msg/TwistWithCovariance", twist=motion, covariance=covariance),
    )  # fmt: skip


Stored = tuple[str, Any, int]  # topic, message, log time


def messages(events: Iterable[Event], make_image: Callable[..., Any] = rgb_image, latency_ns: int = 0) -> list[Stored]:
    """A scene as a vehicle records it."""
    result: list[Stored] = []
    for event in events:
        name, time = event.sensor.lower(), event.time_ns
        if event.kind == "static":
            mounting = getattr(event.value, "T_ego_camera", getattr(event.value, "T_ego_radar", None))
            frame = f"{name}_optical" if hasattr(event.value, "T_ego_camera") else name
            result.append(("/tf_static", tf(transform(time, EGO, frame, mounting)), time))
        elif event.kind == "info":
            result.append((f"/{name}/camera_info", camera_info(time, f"{name}_optical", event.value), time))
        elif event.kind == "image":
            made = make_image(time, f"{name}_optical", event.value)
            compressed = "/compressed" if made.__msgtype__.endswith("CompressedImage") else ""
            result.append((f"/{name}/image_raw{compressed}", made, time + latency_ns))
        elif event.kind == "radar":
            result.append((f"/{name}/detections", cloud(time, name, driver_points(event.value)), time))
        else:
            pose, twist = event.value
            result.append(("/odometry", odometry(time, WORLD, EGO, pose, twist), time))
    return result


def write_bag(path: Path, stored: Iterable[Stored], plugin: StoragePlugin = StoragePlugin.MCAP, **options: Any) -> Path:
    """A bag's folder."""
    writer = Writer(path, version=9, storage_plugin=plugin)
    if "compression" in options:
        writer.set_compression(*options["compression"])
    connections: dict[str, Any] = {}
    with writer:
        for topic, content, log_ns in stored:
            kind = content.__msgtype__
            if topic not in connections:
                qos = [LATCHED] if topic == "/tf_static" else []
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE, offered_qos_profiles=qos)
            writer.write(connections[topic], log_ns, STORE.serialize_cdr(content, kind))
    return path


def write_mcap(path: Path, stored: Iterable[Stored], chunk_size: int = 64_000, **options: Any) -> Path:
    """One MCAP file with chunks of a size, by the library mcap."""
    from mcap.writer import Writer as McapWriter

    with open(path, "wb") as file:
        writer = McapWriter(file, chunk_size=chunk_size, **options)
        writer.start(profile="ros2", library="test")
        channels: dict[str, int] = {}
        for topic, content, log_ns in stored:
            kind = content.__msgtype__
            if topic not in channels:
                text = STORE.generate_msgdef(kind, ros_version=2)[0]
                schema = writer.register_schema(kind, "ros2msg", text.encode())
                channels[topic] = writer.register_channel(topic, "cdr", schema)
            writer.add_message(channels[topic], log_ns, bytes(STORE.serialize_cdr(content, kind)), log_ns)
        writer.finish()
    return path
