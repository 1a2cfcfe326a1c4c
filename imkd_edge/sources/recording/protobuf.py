"""Foxglove's protobuf messages (docs.foxglove.dev/docs/sdk/schemas), decoded by mcap-protobuf-support."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.sources.recording.container import Channel, import_library
from imkd_edge.sources.recording.messages import (
    CalibrationMessage,
    CloudMessage,
    ImageMessage,
    Message,
    OdometryMessage,
    Transform,
    TransformsMessage,
)
from imkd_edge.sources.recording.packets import video_format
from imkd_edge.sources.recording.ros import structured

POINT_TYPES = {1: "u1", 2: "i1", 3: "u2", 4: "i2", 5: "u4", 6: "i4", 7: "f4", 8: "f8"}  # PackedElementField


def _time(stamp: Any) -> int:
    return stamp.seconds * 1_000_000_000 + stamp.nanos


def _head(m: Any) -> tuple[int, str]:
    return _time(m.timestamp), m.frame_id.lstrip("/")


def _raw_image(m: Any) -> ImageMessage:
    return ImageMessage(*_head(m), m.encoding, m.data, m.width, m.height, m.step)


def _compressed(m: Any) -> ImageMessage:
    return ImageMessage(*_head(m), "", m.data)


def _video(m: Any) -> ImageMessage:
    return ImageMessage(*_head(m), video_format(m.format), m.data, packet=True)


def _calibration(m: Any) -> CalibrationMessage:
    K, R, P = (np.array(values or np.zeros(size), np.float64) for values, size in ((m.K, 9), (m.R, 9), (m.P, 12)))
    R = R if R.any() else np.eye(3)
    size, model = (m.width, m.height), m.distortion_model
    return CalibrationMessage(*_head(m), *size, model, tuple(m.D), K.reshape(3, 3), R.reshape(3, 3), P.reshape(3, 4))


def _cloud(m: Any) -> CloudMessage:
    fields = [field for field in m.fields if field.type in POINT_TYPES]
    dtype = np.dtype(
        {
            "names": [field.name for field in fields],
            "formats": ["<" + POINT_TYPES[field.type] for field in fields],
            "offsets": [field.offset for field in fields],
            "itemsize": m.point_stride,
        }
    )
    data = np.frombuffer(m.data, np.uint8)
    points = structured(data, dtype, len(data) // max(m.point_stride, 1), 1, 0)
    stamp, frame = _head(m)
    if m.HasField("pose"):
        points = _move(points, m.pose)
    return CloudMessage(stamp, frame, points)


def _move(points: np.ndarray, pose: Any) -> np.ndarray:
    """Points whose origin has a pose in the frame of the message."""
    from imkd_edge.sources.geometry import transform, transform_of

    p, q = pose.position, pose.orientation
    quaternion = (q.w, q.x, q.y, q.z) if any((q.w, q.x, q.y, q.z)) else (1, 0, 0, 0)
    T = transform_of(np.array([p.x, p.y, p.z]), np.array(quaternion, float))
    if np.array_equal(T, np.eye(4)) or not {"x", "y", "z"} <= set(points.dtype.names or ()):
        return points
    points = points.copy()
    xyz = transform(T, np.stack([points[axis].astype(np.float64) for axis in "xyz"], 1))
    for axis, values in zip("xyz", xyz.T):
        points[axis] = values
    return points


def _transform(m: Any) -> Transform:
    t, q = m.translation, m.rotation
    return Transform(
        _time(m.timestamp),
        m.parent_frame_id.lstrip("/"),
        m.child_frame_id.lstrip("/"),
        (t.x, t.y, t.z),
        (q.w, q.x, q.y, q.z),
    )


def _one_transform(m: Any) -> TransformsMessage:
    return TransformsMessage([_transform(m)])


def _transforms(m: Any) -> TransformsMessage:
    return TransformsMessage([_transform(each) for each in m.transforms])


def _pose(m: Any) -> OdometryMessage:
    stamp, parent = _head(m)
    p, q = m.pose.position, m.pose.orientation
    return OdometryMessage(stamp, Transform(stamp, parent, "", (p.x, p.y, p.z), (q.w, q.x, q.y, q.z)), None)


def _odometry(m: Any) -> OdometryMessage:
    pose, v, w = _pose(m).pose, m.linear_velocity, m.angular_velocity
    body = m.body_frame_id.lstrip("/")
    moved = Transform(pose.stamp_ns, pose.parent, body, pose.translation, pose.quaternion)
    known = m.HasField("linear_velocity")
    twist = np.array([v.x, v.y, v.z, w.x, w.y, w.z]) if known else None
    return OdometryMessage(pose.stamp_ns, moved, twist)


_DECODERS: dict[str, tuple[str, Callable[[Any], Message]]] = {
    "foxglove.RawImage": ("image", _raw_image),
    "foxglove.CompressedImage": ("image", _compressed),
    "foxglove.CompressedVideo": ("image", _video),
    "foxglove.CameraCalibration": ("calibration", _calibration),
    "foxglove.PointCloud": ("cloud", _cloud),
    "foxglove.FrameTransform": ("transforms", _one_transform),
    "foxglove.FrameTransforms": ("transforms", _transforms),
    "foxglove.PoseInFrame": ("odometry", _pose),
    "foxglove.Odometry": ("odometry", _odometry),
}
KINDS = {schema: kind for schema, (kind, _) in _DECODERS.items()}


class ProtobufDecoder:
    """Decodes Foxglove's messages by the definitions in the file."""

    def __init__(self, path: Path):
        self._path = path
        self._decoders: dict[tuple[str, bytes], Callable[[bytes], Any]] = {}

    def decode(self, channel: Channel, data: bytes | memoryview) -> Message:
        """A message in our types; raises whatever the library raises for bytes that are no such message."""
        key = (channel.schema, channel.schema_data)
        if key not in self._decoders:
            records = import_library("mcap.records", self._path)
            factory = import_library("mcap_protobuf.decoder", self._path).DecoderFactory()
            schema = records.Schema(
                id=1, data=channel.schema_data, encoding=channel.schema_encoding, name=channel.schema
            )
            self._decoders[key] = factory.decoder_for(channel.encoding, schema)
        return _DECODERS[channel.schema][1](self._decoders[key](bytes(data)))
