"""Images of messages as (H, W, 3) uint8 RGB: the encodings of sensor_msgs and Foxglove (REP 118), JPEG and PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.sources.files import decode_image
from imkd_edge.sources.recording.container import import_library
from imkd_edge.sources.recording.messages import ImageMessage

_ALIASES = {
    "8uc1": "mono8",
    "8uc3": "bgr8",  # as cv_bridge takes it
    "8uc4": "bgra8",
    "16uc1": "mono16",
    "uyvy": "yuv422",
    "yuyv": "yuv422_yuy2",
    "yuy2": "yuv422_yuy2",
}
# encoding -> channels, bytes of one, conversion of OpenCV; None: none is needed
_PACKED: dict[str, tuple[int, int, str | None]] = {
    "rgb8": (3, 1, None),
    "bgr8": (3, 1, "COLOR_BGR2RGB"),
    "rgba8": (4, 1, "COLOR_RGBA2RGB"),
    "bgra8": (4, 1, "COLOR_BGRA2RGB"),
    "mono8": (1, 1, "COLOR_GRAY2RGB"),
    "mono16": (1, 2, "COLOR_GRAY2RGB"),
    "yuv422": (2, 1, "COLOR_YUV2RGB_UYVY"),
    "yuv422_yuy2": (2, 1, "COLOR_YUV2RGB_YUY2"),
    **{
        f"bayer_{pattern}{8 * size}": (1, size, f"COLOR_Bayer{pattern.upper()}2RGB")
        for pattern in ("rggb", "bggr", "gbrg", "grbg")
        for size in (1, 2)
    },
}
_SEMIPLANAR = {"nv12": "COLOR_YUV2RGB_NV12", "nv21": "COLOR_YUV2RGB_NV21"}
ENCODINGS = (*_PACKED, *_SEMIPLANAR)
_LARGEST_SIDE = 65536  # px; the rig's limit


def to_rgb(image: ImageMessage, where: str, bits: int = 16) -> np.ndarray:
    """The pixels of an image message.

    Args:
        image: of any encoding in ENCODINGS, or a compressed one.
        where: what an error calls the image.
        bits: of a 16-bit image that carry data, 8 to 16; the upper eight of them are used.
    Returns:
        (H, W, 3) uint8 RGB.
    Raises:
        Error source_bad_image: fewer bytes than its size needs, or a broken JPEG or PNG; source_bad_value: an encoding
            that is not known; missing_extra without OpenCV.
    """
    if not image.encoding:
        return decode_image(bytes(image.data), Path(where))
    name = image.encoding.lower()
    name = _ALIASES.get(name, name)
    if not (0 < image.width <= _LARGEST_SIDE and 0 < image.height <= _LARGEST_SIDE):
        raise _bad(f"an image of {image.width} x {image.height} px", where)
    if name in _SEMIPLANAR:
        return _semiplanar(image, _SEMIPLANAR[name], where)
    if name not in _PACKED:
        fix = f"record one of {', '.join(ENCODINGS)}, JPEG or PNG"
        raise Error(Code.source_bad_value, f"the image encoding {image.encoding!r} is not known", where, fix)
    channels, size, conversion = _PACKED[name]
    pixels = _rows(image, image.height, image.width * channels * size, where)
    if size == 2:
        words = np.ascontiguousarray(pixels).view(">u2" if image.big_endian else "<u2")
        pixels = np.minimum(words >> (bits - 8), 255).astype(np.uint8)
    pixels = np.ascontiguousarray(pixels.reshape(image.height, image.width, channels))
    if conversion is None:
        return pixels.copy()  # the message's bytes may be those of a whole chunk
    return _convert(pixels, conversion, where)


def _semiplanar(image: ImageMessage, conversion: str, where: str) -> np.ndarray:
    if image.width % 2 or image.height % 2:
        raise _bad(f"{image.encoding} of {image.width} x {image.height} px needs even sides", where)
    rows = image.height * 3 // 2
    return _convert(np.ascontiguousarray(_rows(image, rows, image.width, where)), conversion, where)


def _rows(image: ImageMessage, rows: int, used: int, where: str) -> np.ndarray:
    """(rows, used) bytes without the padding of the rows."""
    data = np.frombuffer(image.data, np.uint8)
    step = image.step or used
    needed = step * (rows - 1) + used
    if step < used or len(data) < needed:
        what = f"{image.encoding} of {image.width} x {image.height} px needs {max(needed, used * rows)} bytes in rows"
        raise _bad(f"{what} of {used}, the message holds {len(data)} in rows of {step}", where)
    return np.lib.stride_tricks.as_strided(data, (rows, used), (step, 1), writeable=False)


def _convert(pixels: np.ndarray, conversion: str, where: str) -> np.ndarray:
    cv2 = import_library("cv2", Path(where))
    try:
        return cv2.cvtColor(pixels, getattr(cv2, conversion))
    except cv2.error as fault:  # an odd width of a yuv422 image
        raise _bad(f"OpenCV does not convert it ({str(fault).splitlines()[0]})", where) from None


def _bad(what: str, where: str) -> Error:
    return Error(Code.source_bad_image, what, where, "correct what the camera driver publishes")
