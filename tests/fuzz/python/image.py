"""An image of a recorded message whose fields contradict each other."""

import struct

from imkd_edge.sources.recording.images import ENCODINGS, to_rgb
from imkd_edge.sources.recording.messages import ImageMessage

HEAD = struct.Struct("<BHHHB")


def run(data: bytes) -> None:
    kind, width, height, step, bits = HEAD.unpack(data[: HEAD.size].ljust(HEAD.size, b"\0"))
    encoding = (*ENCODINGS, "8UC3", "none", "")[kind % (len(ENCODINGS) + 3)]
    message = ImageMessage(1, "camera", encoding, data[HEAD.size :], width, height, step, bool(bits & 1))
    pixels = to_rgb(message, "camera", 8 + bits % 9)
    assert pixels.dtype == "uint8" and pixels.ndim == 3 and pixels.shape[2] == 3
