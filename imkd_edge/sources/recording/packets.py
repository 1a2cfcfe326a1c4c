"""Pictures of a topic whose messages are the packets of a video: H.264 or H.265 in an Annex B byte stream, a picture a
message, in the order in which they are shown (docs.foxglove.dev/docs/sdk/schemas/compressed-video).

PyAV decodes them. A picture needs those from the key frame before it on, so pictures in their order are decoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.sources.recording.container import import_library
from imkd_edge.sources.recording.messages import ImageMessage

CODECS = {"h264": "h264", "h265": "hevc"}  # format of a message -> PyAV's name
# Types of NAL units that a key frame's packet has: itself, or the parameters before it (H.264 table 7-1, H.265 7-1).
_KEYS = {"h264": {5, 7}, "h265": {*range(16, 22), 32, 33}}


def video_format(name: str) -> str:
    """The format that a message's field names, such as "H264", "hevc" or "libx264; ..."; as it is where none fits."""
    name = name.lower()
    if "264" in name:
        return "h264"
    return "h265" if "265" in name or "hevc" in name else name


def is_key(data: bytes, form: str) -> bool:
    """Whether a packet can be decoded without those before it; form: one of CODECS."""
    return any((head & 31 if form == "h264" else head >> 1 & 63) in _KEYS[form] for head in _unit_heads(data))


def _unit_heads(data: bytes) -> Iterator[int]:
    """The first byte of every NAL unit."""
    at = data.find(b"\0\0\1")
    while 0 <= at < len(data) - 3:
        yield data[at + 3]
        at = data.find(b"\0\0\1", at + 3)


class PacketVideo:
    """The pictures of a topic, by the number of their message.

    Args:
        message: reads one.
        where: what an error calls the topic.
    """

    def __init__(self, message: Callable[[int], ImageMessage], where: str) -> None:
        self._message, self._where = message, where
        self._held: tuple[int, bytes, str] = (-1, b"", "")  # number, bytes and format of the packet read last
        self._codec: Any = None
        self._next = 0  # the packet that the codec takes

    def read(self, number: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB; raises Error source_bad_image, source_bad_value for another format, missing_extra."""
        self._seek(number)
        codec, self._codec = self._codec, None  # after a fault the next picture begins at a key frame again
        while True:
            picture = self._decode(codec)
            self._next += 1
            if self._next > number:
                self._codec = codec
                return picture.to_ndarray(format="rgb24")

    def _seek(self, number: int) -> None:
        """Begins at the key frame before a picture, unless the codec is behind it already."""
        begun = self._codec is not None and self._next <= number
        for first in range(number, self._next - 1 if begun else -1, -1):
            data, form = self._packet(first)
            if is_key(data, form):
                av = import_library("av", Path(self._where))
                self._codec, self._next = av.CodecContext.create(CODECS[form], "r"), first
                self._codec.thread_count = 1  # threads of the codec would be missing in a forked child
                self._codec.options = {"err_detect": "explode", "flags": "low_delay"}
                return
        if not begun:
            raise self._bad("no key frame comes before this picture")

    def _decode(self, codec: Any) -> Any:
        av = import_library("av", Path(self._where))
        try:
            pictures = codec.decode(av.Packet(self._packet(self._next)[0]))
        except av.error.FFmpegError as fault:
            raise self._bad(f"a packet since the last key frame cannot be decoded ({fault.strerror})") from None
        if len(pictures) != 1 or pictures[0].is_corrupt:
            raise self._bad("a packet since the last key frame is damaged, or holds no whole picture")
        return pictures[0]

    def _packet(self, number: int) -> tuple[bytes, str]:
        if self._held[0] != number:
            message = self._message(number)
            if message.encoding not in CODECS:
                what, fix = f"the video format {message.encoding!r} is not read", f"record {' or '.join(CODECS)}"
                raise Error(Code.source_bad_value, what, self._where, fix)
            self._held = (number, bytes(message.data), message.encoding)
        return self._held[1:]

    def _bad(self, what: str) -> Error:
        return Error(Code.source_bad_image, what, self._where, "record from a key frame on, without losing packets")
