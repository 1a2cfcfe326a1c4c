"""What this product knows of a message, whatever schema it came in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ImageMessage:
    """An image, compressed or not, or a packet of a video."""

    stamp_ns: int
    frame: str  # of TF
    encoding: str  # bgr8, yuyv, ...; empty: JPEG or PNG; of a packet its video's: h264, ...
    data: np.ndarray | memoryview | bytes
    width: int = 0
    height: int = 0
    step: int = 0  # bytes a row
    big_endian: bool = False
    packet: bool = False  # of a video


@dataclass(frozen=True)
class CalibrationMessage:
    """A camera's calibration."""

    stamp_ns: int
    frame: str
    width: int
    height: int
    model: str  # plumb_bob, kannala_brandt, ...
    D: tuple[float, ...]
    K: np.ndarray  # (3, 3) px
    R: np.ndarray  # (3, 3) of the rectification
    P: np.ndarray  # (3, 4) px, of the rectified image
    binning: tuple[int, int] = (1, 1)  # px of the sensor in one px of the image
    offset: tuple[int, int] = (0, 0)  # left, top px of the region of interest
    roi: tuple[int, int] = (0, 0)  # its width, height px; 0: the whole image


@dataclass(frozen=True)
class CloudMessage:
    """Points, of a radar or LiDAR."""

    stamp_ns: int
    frame: str
    points: np.ndarray  # (N,) structured, with the message's fields


@dataclass(frozen=True)
class Transform:
    """T_parent_child at a time."""

    stamp_ns: int
    parent: str
    child: str
    translation: tuple[float, float, float]  # m
    quaternion: tuple[float, float, float, float]  # w, x, y, z


@dataclass(frozen=True)
class TransformsMessage:
    """Edges of the tree of frames."""

    transforms: list[Transform]

    @property
    def stamp_ns(self) -> int:
        return self.transforms[0].stamp_ns if self.transforms else 0


@dataclass(frozen=True)
class OdometryMessage:
    """Where the vehicle is and how it moves."""

    stamp_ns: int
    pose: Transform  # of the child, whose name may be empty: the vehicle, in the parent
    twist: np.ndarray | None  # (6,) linear m/s, angular rad/s in the child's frame


Message = ImageMessage | CalibrationMessage | CloudMessage | TransformsMessage | OdometryMessage
