"""ROS 2 messages, decoded by the library rosbags: sensor_msgs, radar_msgs, tf2_msgs, nav_msgs, geometry_msgs."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

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
from imkd_edge.sources.recording.packets import CODECS, video_format

# of radar_msgs 0.2 (github.com/ros-perception/radar_msgs)
RETURN = np.dtype([(name, "f4") for name in ("range", "azimuth", "elevation", "doppler_velocity", "amplitude")])
POINT_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}  # PointField.datatype


def _time(stamp: Any) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _head(header: Any) -> tuple[int, str]:
    return _time(header.stamp), header.frame_id.lstrip("/")


def _image(m: Any) -> ImageMessage:
    return ImageMessage(*_head(m.header), m.encoding, m.data, m.width, m.height, m.step, bool(m.is_bigendian))


def _compressed(m: Any) -> ImageMessage:
    form = video_format(m.format)  # some drivers publish packets of a video so
    packet = form in CODECS
    return ImageMessage(*_head(m.header), form if packet else "", m.data, packet=packet)


def _ffmpeg_packet(m: Any) -> ImageMessage:
    return ImageMessage(*_head(m.header), video_format(m.encoding), m.data, packet=True)


def _foxglove_video(m: Any) -> ImageMessage:
    return ImageMessage(_time(m.timestamp), m.frame_id.lstrip("/"), video_format(m.format), m.data, packet=True)


def _camera_info(m: Any) -> CalibrationMessage:
    roi, matrices = m.roi, [np.array(values, np.float64) for values in (m.k, m.r, m.p)]
    return CalibrationMessage(
        *_head(m.header),
        m.width,
        m.height,
        m.distortion_model,
        tuple(map(float, m.d)),
        matrices[0].reshape(3, 3),
        matrices[1].reshape(3, 3),
        matrices[2].reshape(3, 4),
        (max(m.binning_x, 1), max(m.binning_y, 1)),
        (roi.x_offset, roi.y_offset),
        (roi.width, roi.height),
    )


def _cloud(m: Any) -> CloudMessage:
    order = ">" if m.is_bigendian else "<"
    fields = [field for field in m.fields if field.datatype in POINT_TYPES]
    dtype = np.dtype(
        {
            "names": [field.name for field in fields],
            "formats": [
                (order + POINT_TYPES[field.datatype], (field.count,)) if field.count > 1
                else order + POINT_TYPES[field.datatype]
                for field in fields
            ],
            "offsets": [field.offset for field in fields],
            "itemsize": m.point_step,
        }
    )  # fmt: skip
    data = np.frombuffer(m.data, np.uint8)
    return CloudMessage(*_head(m.header), structured(data, dtype, m.width, m.height, m.row_step))


def structured(data: np.ndarray, dtype: np.dtype, width: int, height: int, row_step: int) -> np.ndarray:
    """(height * width,) points of bytes with row padding; ValueError where the bytes do not suffice."""
    used = width * dtype.itemsize
    if not used or not height:
        return np.empty(0, dtype)
    row_step = row_step if height > 1 else used
    rows = data[: height * row_step].reshape(height, row_step)[:, :used]
    return np.ascontiguousarray(rows).reshape(-1).view(dtype)


def _transform(m: Any) -> Transform:
    t, q = m.transform.translation, m.transform.rotation
    stamp, parent = _head(m.header)
    return Transform(stamp, parent, m.child_frame_id.lstrip("/"), (t.x, t.y, t.z), (q.w, q.x, q.y, q.z))


def _tf(m: Any) -> TransformsMessage:
    return TransformsMessage([_transform(each) for each in m.transforms])


def _odometry(m: Any) -> OdometryMessage:
    p, q, v, w = m.pose.pose.position, m.pose.pose.orientation, m.twist.twist.linear, m.twist.twist.angular
    stamp, parent = _head(m.header)
    pose = Transform(stamp, parent, m.child_frame_id.lstrip("/"), (p.x, p.y, p.z), (q.w, q.x, q.y, q.z))
    return OdometryMessage(stamp, pose, np.array([v.x, v.y, v.z, w.x, w.y, w.z]))


def scan_of(data: bytes | memoryview) -> CloudMessage:
    """A RadarScan: 20 bytes a return behind header and count; an object a return would take milliseconds.

    Raises: ValueError or struct.error where it is no such message.
    """
    order: Literal["<", ">"] = "<" if data[1] else ">"
    sec, nanosec, length = struct.unpack_from(f"{order}iII", data, 4)
    frame = bytes(data[16 : 16 + max(length - 1, 0)]).decode("utf-8", "replace")
    offset = 16 + length + -length % 4  # CDR aligns behind the four bytes of its own head
    (count,) = struct.unpack_from(f"{order}I", data, offset)
    returns = np.frombuffer(data, RETURN.newbyteorder(order), count, offset + 4)
    return CloudMessage(sec * 1_000_000_000 + nanosec, frame.lstrip("/"), returns)


SCAN = "radar_msgs/msg/RadarScan"
_DECODERS: dict[str, tuple[str, Callable[[Any], Message]]] = {
    "sensor_msgs/msg/Image": ("image", _image),
    "sensor_msgs/msg/CompressedImage": ("image", _compressed),
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": ("image", _ffmpeg_packet),
    "foxglove_msgs/msg/CompressedVideo": ("image", _foxglove_video),
    "sensor_msgs/msg/CameraInfo": ("calibration", _camera_info),
    "sensor_msgs/msg/PointCloud2": ("cloud", _cloud),
    "tf2_msgs/msg/TFMessage": ("transforms", _tf),
    "nav_msgs/msg/Odometry": ("odometry", _odometry),
}
KINDS = {**{schema: kind for schema, (kind, _) in _DECODERS.items()}, SCAN: "cloud"}


def stamp_of(data: bytes | memoryview) -> int:
    """The time in the header of a message that begins with one, ns."""
    sec, nanosec = struct.unpack_from("<iI" if data[1] else ">iI", data, 4)
    return sec * 1_000_000_000 + nanosec


class RosDecoder:
    """Decodes the messages of a recording's channels, by the definitions in the file or those of ROS 2 Humble."""

    def __init__(self, path: Path):
        self._typesys = import_library("rosbags.typesys", path)
        self._stores: dict[str, Any] = {}  # type -> a store of it and of the types in it

    def add(self, channel: Channel) -> None:
        """Takes the definition of a channel's type, where the file has one."""
        if channel.schema_data and not self._stores.get(channel.schema):
            definition = channel.schema_encoding, bytes(channel.schema_data)
            self._stores[channel.schema] = _store_of(self._typesys, channel.schema, *definition)

    def decode(self, channel: Channel, data: bytes | memoryview) -> Message:
        """A message in our types; raises whatever the library raises for bytes that are no such message."""
        if channel.schema == SCAN:
            return scan_of(data)
        store = self._stores.get(channel.schema) or _humble(self._typesys)
        return _DECODERS[channel.schema][1](store.deserialize_cdr(data, channel.schema))


@functools.lru_cache(maxsize=128)  # the files of a fleet have the same definitions; reading one takes milliseconds
def _store_of(typesys: Any, schema: str, encoding: str, definition: bytes) -> Any:
    """A store of a type and of the types in it; None where the library does not read the definition."""
    try:
        text, store = definition.decode(), typesys.get_typestore(typesys.Stores.EMPTY)
        store.register(typesys.get_types_from_msg(text, schema) if encoding == "ros2msg" else _idl(typesys, text))
        store.generate_msgdef(schema, ros_version=2)  # raises where a type in it is missing
    except Exception:
        return None
    return store


@functools.lru_cache(maxsize=1)  # takes 0.2 s
def _humble(typesys: Any) -> Any:
    return typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)


def _idl(typesys: Any, text: str) -> dict[str, Any]:
    """Types of a definition in IDL, which a bag writes as one text of several files."""
    line = "=" * 80 + "\n"
    if not text.startswith(f"{line}IDL: "):
        return typesys.get_types_from_idl(text)
    types: dict[str, Any] = {}
    for part in text.split(line)[1:]:
        types.update(typesys.get_types_from_idl(part.partition("\n")[2]))
    return types
