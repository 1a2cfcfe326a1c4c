"""Reading single files of a data set; every fault becomes an Error that names the file and how to mend it."""

from __future__ import annotations

import gzip
import json
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error

_AGAIN = "copy the file again from the data set"


def read_bytes(path: Path, fix: str = _AGAIN) -> bytes:
    """Content of a file; raises Error source_missing_file."""
    try:
        return path.read_bytes()
    except OSError as fault:
        raise Error(Code.source_missing_file, f"cannot read the file ({fault.strerror})", str(path), fix) from None


def read_json(path: Path, code: Code) -> Any:
    """A JSON file; raises Error with `code` when it is not JSON, source_missing_file when it is absent."""
    data = read_bytes(path)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as fault:
        raise Error(code, f"not valid JSON ({fault})", str(path), _AGAIN) from None


def _jpeg_segments(data: bytes) -> tuple[tuple[int, int] | None, int]:
    """(width, height) and the offset of the first scan of a JPEG; (None, -1) where its markers break off."""
    at, size = 2, None
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 9 <= len(data):  # start of frame
            size = int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        if marker == 0xDA:
            return size, at
        at += 2 + length
    return size, -1


def _png_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a PNG that has its last chunk."""
    whole = data[12:16] == b"IHDR" and data.rfind(b"IEND\xaeB`\x82") > 0
    return (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) if whole else None


def image_size(data: bytes, path: Path) -> tuple[int, int]:
    """(width, height) of a complete JPEG or PNG file's content, without decoding it; raises Error source_bad_image.

    A decoder fills a truncated JPEG with grey and says nothing, so the end-of-image marker is looked for after the
    first scan (within a scan 0xFF is always stuffed, so it cannot occur by chance; a thumbnail's lies before it)."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        size = _png_size(data)
    elif data.startswith(b"\xff\xd8"):
        size, scan = _jpeg_segments(data)
        size = size if scan > 0 and data.find(b"\xff\xd9", scan) > 0 else None
    else:
        what = "not a JPEG or PNG image" if data else "the image file is empty"
        raise Error(Code.source_bad_image, what, str(path), _AGAIN)
    if size is None:
        raise Error(Code.source_bad_image, f"the image breaks off after {len(data)} bytes", str(path), _AGAIN)
    return size


def decode_image(data: bytes, path: Path) -> np.ndarray:
    """A JPEG or PNG file's content as (H, W, 3) uint8 RGB, never rotated by EXIF; raises Error source_bad_image."""
    try:
        import cv2
    except ImportError:
        fix = "pip install 'opencv-python-headless<5'"
        raise Error(Code.missing_extra, "OpenCV is needed to read camera images", str(path), fix) from None
    width, height = image_size(data, path)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # a size beyond its limit
        pixels = None
    if pixels is None:
        raise Error(Code.source_bad_image, f"an image of {width} x {height} px cannot be decoded", str(path), _AGAIN)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def read_table(path: Path, columns: tuple[str, ...]) -> np.ndarray:
    """Named columns of a text table, plain or gzipped, one header line: (N, len(columns)) float64.

    Raises Error source_bad_points: no header, a column absent, a row that is not numbers, a last row cut off."""
    data = read_bytes(path)
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as fault:
            raise Error(Code.source_bad_points, f"broken gzip data ({fault})", str(path), _AGAIN) from None
    lines = data.decode("ascii", "replace").split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise Error(Code.source_bad_points, "the point file is empty", str(path), _AGAIN)
    header = lines[first].split()
    absent = [name for name in columns if name not in header]
    if absent:
        raise Error(
            Code.source_bad_points, f"the header has no column {absent[0]}: {lines[first][:60]!r}", str(path), _AGAIN
        )
    if lines[-1].strip():  # every complete file ends with a line end
        raise Error(Code.source_bad_points, f"the file breaks off in line {len(lines)}", str(path), _AGAIN)
    return _numbers(lines[first + 1 :], len(header), path)[:, [header.index(name) for name in columns]]


def _numbers(lines: list[str], columns: int, path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a header without rows is a sensor that saw nothing
        try:
            table = np.loadtxt(lines, dtype=np.float64, comments=None, ndmin=2)
        except ValueError as fault:
            raise Error(Code.source_bad_points, f"a row is not numbers ({fault})", str(path), _AGAIN) from None
    if table.size and table.shape[1] != columns:
        what = f"rows of {table.shape[1]} numbers under a header of {columns}"
        raise Error(Code.source_bad_points, what, str(path), _AGAIN)
    return table.reshape(-1, columns)
