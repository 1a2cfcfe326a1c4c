"""A message of a recording: the first byte chooses its type, the rest are its bytes; decoded and used."""

import contextlib
from pathlib import Path
from typing import Any

import foxglove.messages
import numpy as np

from imkd_edge.errors import Error
from imkd_edge.sources.recording import protobuf, ros
from imkd_edge.sources.recording.calibration import camera_of
from imkd_edge.sources.recording.container import Channel
from imkd_edge.sources.recording.images import to_rgb
from imkd_edge.sources.recording.index import Decoder
from imkd_edge.sources.recording.messages import CalibrationMessage, CloudMessage, ImageMessage, TransformsMessage
from imkd_edge.sources.recording.packets import PacketVideo
from imkd_edge.sources.recording.poses import FrameTree
from imkd_edge.sources.recording.radar import Fields, lidar_points, radar_points


def foxglove_channel(name: str) -> Channel:
    schema = getattr(foxglove.messages, name.split(".")[1]).get_schema()
    return Channel(0, name, name, "protobuf", schema.encoding, schema.data)


DEFINED = [name for name in ros.KINDS if name.startswith(("sensor_msgs", "tf2_msgs", "nav_msgs", "radar_msgs"))]
CHANNELS = [*(Channel(0, name, name, "cdr") for name in DEFINED), *(foxglove_channel(name) for name in protobuf.KINDS)]
DECODER = Decoder(Path("drive"))


def use(message: Any, tree: FrameTree) -> None:
    if isinstance(message, ImageMessage):
        read = PacketVideo(lambda _: message, "video").read if message.packet else lambda _: to_rgb(message, "image")
        assert read(0).dtype == np.uint8
    if isinstance(message, CloudMessage):
        assert radar_points(message.points, Fields(), "points").shape == (len(message.points), 5)
        assert np.isfinite(lidar_points(message.points, np.eye(4), "points")).all()
    if isinstance(message, CalibrationMessage):
        camera_of("camera", message, np.eye(4), rectified=False)
    if isinstance(message, TransformsMessage):
        for transform in message.transforms:
            assert tree.fixed(transform.parent, transform.child, "tf")[0].shape == (4, 4)


def run(data: bytes) -> None:
    channel, tree = CHANNELS[data[0] % len(CHANNELS)] if data else CHANNELS[0], FrameTree()
    message = None
    with contextlib.suppress(Exception):  # the index counts bytes that are no such message
        message = DECODER.decode(channel, data[1:])
        tree.add(getattr(message, "transforms", []))
    try:
        with np.errstate(all="ignore"):
            use(message, tree)
    except Error as fault:
        assert str(fault).startswith("error[E")
