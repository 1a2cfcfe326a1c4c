"""Pixels of every encoding, against formulas of their standards written here, not against the library that converts."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from imkd_edge.errors import Error
from imkd_edge.sources.recording.images import ENCODINGS, to_rgb
from imkd_edge.sources.recording.messages import ImageMessage

WIDTH, HEIGHT = 12, 8


def message(
    encoding: str, data: np.ndarray, step: int = 0, width: int = WIDTH, big_endian: bool = False
) -> ImageMessage:
    return ImageMessage(0, "", encoding, np.frombuffer(data.tobytes(), np.uint8), width, HEIGHT, step, big_endian)


def noise() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def padded(pixels: np.ndarray, extra: int = 5) -> tuple[np.ndarray, int]:
    """Rows followed by bytes that are not pixels."""
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1).view(np.uint8)
    return np.hstack([rows, np.full((len(rows), extra), 77, np.uint8)]), rows.shape[1] + extra


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize(
    ("encoding", "order"),
    [("rgb8", [0, 1, 2]), ("bgr8", [2, 1, 0]), ("rgba8", [0, 1, 2, 0]), ("bgra8", [2, 1, 0, 0]), ("8UC3", [2, 1, 0])],
)
def test_packed_colours(encoding: str, order: list[int], pad: bool) -> None:
    pixels = noise()
    stored, step = padded(pixels[..., order]) if pad else (np.ascontiguousarray(pixels[..., order]), 0)
    np.testing.assert_array_equal(to_rgb(message(encoding, stored, step), "x"), pixels)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey(encoding: str) -> None:
    grey = np.ascontiguousarray(noise()[..., 0])
    np.testing.assert_array_equal(to_rgb(message(encoding, grey), "x"), np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("bits", [10, 12, 16])
def test_grey_of_sixteen_bits(bits: int, big_endian: bool) -> None:
    values = np.random.default_rng(4).integers(0, 1 << bits, (HEIGHT, WIDTH))
    stored = values.astype(">u2" if big_endian else "<u2")
    expected = np.floor(values / 2 ** (bits - 8)).astype(np.uint8)
    for encoding in ("mono16", "16UC1"):
        read = to_rgb(message(encoding, stored, big_endian=big_endian), "x", bits)
        np.testing.assert_array_equal(read, np.repeat(expected[..., None], 3, 2))


def yuv_of(pixels: np.ndarray) -> np.ndarray:
    """BT.601, studio swing (ITU-R BT.601-7): Y 16 to 235, U and V 16 to 240."""
    r, g, b = (pixels[..., i].astype(float) for i in range(3))
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u = 128 - 0.148 * r - 0.291 * g + 0.439 * b
    v = 128 + 0.439 * r - 0.368 * g - 0.071 * b
    return np.clip(np.round(np.stack([y, u, v], -1)), 0, 255).astype(np.uint8)


def blocks() -> np.ndarray:
    """Colours that are constant over 2 x 2 pixels, so that chroma is not averaged."""
    small = np.random.default_rng(5).integers(20, 236, (HEIGHT // 2, WIDTH // 2, 3), np.uint8)
    return small.repeat(2, 0).repeat(2, 1)


@pytest.mark.parametrize(
    ("encoding", "positions"),  # of Y0, U, Y1, V in four bytes
    [("yuv422", (1, 0, 3, 2)), ("uyvy", (1, 0, 3, 2)), ("yuv422_yuy2", (0, 1, 2, 3)), ("yuyv", (0, 1, 2, 3))],
)
def test_yuv422_in_both_orders(encoding: str, positions: tuple[int, ...]) -> None:
    pixels = blocks()
    yuv = yuv_of(pixels)
    stored = np.zeros((HEIGHT, WIDTH // 2, 4), np.uint8)
    parts = (yuv[:, ::2, 0], yuv[:, ::2, 1], yuv[:, 1::2, 0], yuv[:, ::2, 2])
    for position, part in zip(positions, parts):
        stored[..., position] = part
    read = to_rgb(message(encoding, stored, 2 * WIDTH), "x")
    assert np.abs(read.astype(int) - pixels).max() <= 3  # rounding of the three values


@pytest.mark.parametrize(("encoding", "order"), [("nv12", (1, 2)), ("nv21", (2, 1))])
def test_semiplanar(encoding: str, order: tuple[int, int]) -> None:
    pixels = blocks()
    yuv = yuv_of(pixels)
    chroma = np.stack([yuv[::2, ::2, order[0]], yuv[::2, ::2, order[1]]], -1).reshape(HEIGHT // 2, WIDTH)
    stored = np.vstack([yuv[..., 0], chroma])
    read = to_rgb(message(encoding, stored, WIDTH), "x")
    assert np.abs(read.astype(int) - pixels).max() <= 3


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns(pattern: str, size: int) -> None:
    """A mosaic of one colour is that colour, wherever the demosaicking interpolates."""
    colour = {"r": 200, "g": 110, "b": 30}
    tile = np.array([colour[letter] for letter in pattern]).reshape(2, 2)
    mosaic = np.tile(tile, (HEIGHT // 2, WIDTH // 2))
    stored = mosaic.astype(np.uint8) if size == 1 else (mosaic * 16 + 7).astype("<u2")  # 12 bits
    read = to_rgb(message(f"bayer_{pattern}{8 * size}", stored), "x", 12)
    assert read.shape == (HEIGHT, WIDTH, 3)
    assert (read == [200, 110, 30]).all()


def test_png_and_jpeg() -> None:
    pixels = np.full((HEIGHT, WIDTH, 3), (200, 100, 40), np.uint8)
    png = cv2.imencode(".png", pixels[..., ::-1])[1]
    np.testing.assert_array_equal(to_rgb(ImageMessage(0, "", "", png), "x"), pixels)
    jpeg = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])[1]
    assert np.abs(to_rgb(ImageMessage(0, "", "", jpeg), "x").astype(int) - pixels).max() <= 3


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 8 bits whose other chunks are given, with their checksums."""
    head = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    parts = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
             for kind, data in (head, *chunks)]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


END = (b"IEND", b"")
FALSE_END = png(6, 4, (b"IEND", bytes(34))) + b"\xd9\0\0\x22IDAT" + bytes(34)  # an end with content is none
NO_PIXELS = png(6, 4, END) + b"\xd9\0\0\x22IDAT" + bytes(34)
JPEG_60000 = bytes.fromhex("ffd8 ffc0000b08ea60ea6001011100 ffda0008010100003f00 00 ffd9")
FALSE_LENGTH = png(6, 4) + b"\xd9\0\0\x22IDAT" + bytes(34) + png(6, 4, END)[-12:]  # a chunk of 3.6 GB


@pytest.mark.parametrize(
    "data", [png(60000, 60000, (b"IDAT", bytes(40)), END), FALSE_LENGTH, FALSE_END, NO_PIXELS, JPEG_60000]
)
def test_a_small_file_never_makes_the_decoder_allocate_a_large_image(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("the decoder is called"))
    with pytest.raises(Error, match=r"E0303.*(breaks off|60000 x 60000 px cannot be decoded)"):
        to_rgb(ImageMessage(1, "camera", "", data), "camera")


@pytest.mark.parametrize("side", [1, 8, 100, 4000])
@pytest.mark.parametrize(("ending", "densest"), [
    (".png", [cv2.IMWRITE_PNG_BILEVEL, 1, cv2.IMWRITE_PNG_COMPRESSION, 9]),
    (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_OPTIMIZE, 1]),
])  # fmt: skip
def test_the_densest_picture_of_its_kind_is_read(side: int, ending: str, densest: list[int]) -> None:
    data = cv2.imencode(ending, np.zeros((side, side), np.uint8), densest)[1].tobytes()
    assert to_rgb(ImageMessage(1, "camera", "", data), "camera").shape == (side, side, 3)


def test_every_encoding_of_the_list_is_tested_here() -> None:
    tested = {"rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16", "yuv422", "yuv422_yuy2", "nv12", "nv21"}
    bayer = {f"bayer_{pattern}{bits}" for pattern in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)}
    assert set(ENCODINGS) == tested | bayer


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (message("rgb8", noise()[:-1]), "E0303"),  # a row is missing
        (message("rgb8", noise(), step=3), "E0303"),  # rows shorter than their pixels
        (message("nv12", noise(), width=5), "E0303"),
        (ImageMessage(0, "", "mono8", b"", 0, 0), "E0303"),
        (message("32FC1", noise()), "E0311"),
        (ImageMessage(0, "", "", b"\xff\xd8\xff"), "E0303"),
    ],
)
def test_what_is_no_such_image_is_refused(image: ImageMessage, code: str) -> None:
    with pytest.raises(Error, match=code):
        to_rgb(image, "x")
