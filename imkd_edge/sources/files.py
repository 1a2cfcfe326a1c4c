"""Single files of a data set: their names, and readers that raise every fault as an Error with the file and a cure."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import re
import stat
import warnings
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from imkd_edge.errors import Code, Error

COPY_AGAIN = "copy the file again from the data set"
_DENSEST = 8256  # px per byte of a file: those of a PNG of one bit under deflate's 1032 : 1; a JPEG's have 512 at most
_PLAIN = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,119}")  # names that name files as they are


def file_name(name: str) -> str:
    """The name of a frame, scene or sensor as that of a file or folder; two names never have the same.

    A plain name stays; of another one the letters that files should not have are replaced, and after a ~, which no
    plain name has, its hash tells it from those that look like it.
    """
    if _PLAIN.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return re.sub(r"[^A-Za-z0-9._+-]", "_", name).lstrip(".")[:100] + f"~{digest}"


def reason(fault: Exception) -> str:
    """What was wrong: of an Error its `what`, of a KeyError the missing key, of others their text."""
    if isinstance(fault, KeyError):
        return f"missing {fault}"
    return str(getattr(fault, "what", fault))


def unknown_frame(name: str, names: Collection[str], path: Path) -> Error:
    """Error source_unknown_frame for a name that is not among `names`."""
    known = f"it has {len(names)}: {min(names)} to {max(names)}" if names else "it has none"
    return Error(Code.source_unknown_frame, f"no frame {name!r}", str(path), known)


def read_splits(folder: Path) -> dict[str, list[str]]:
    """Frame names by split, from the files NAME.txt of a folder; empty where it has none."""
    return {file.stem: read_bytes(file).decode("utf-8", "replace").split() for file in sorted(folder.glob("*.txt"))}


def open_file(path: Path) -> BinaryIO:
    """A file for reading; raises OSError, also for a pipe, a socket or a device, whose reader might wait for ever."""
    try:
        mode = path.stat().st_mode
    except ValueError:  # of Python, for a zero byte
        raise OSError(errno.EINVAL, "no file has such a name", str(path)) from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a folder has an OSError of its own
        raise OSError(errno.EINVAL, "a pipe, socket or device, no regular file", str(path))
    return path.open("rb")


def read_bytes(path: Path, fix: str = COPY_AGAIN) -> bytes:
    """Content of a file; raises Error source_missing_file."""
    try:
        with open_file(path) as file:
            return file.read()
    except OSError as fault:
        raise Error(Code.source_missing_file, f"cannot read the file ({fault.strerror})", str(path), fix) from None


def read_json(path: Path, code: Code, fix: str = COPY_AGAIN) -> Any:
    """Content of a JSON file; raises Error with `code` where it is not JSON, source_missing_file without the file."""
    data = read_bytes(path, fix)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as fault:
        raise Error(code, f"not valid JSON ({fault})", str(path), fix) from None


def _jpeg_segments(data: bytes) -> tuple[tuple[int, int] | None, int]:
    """(width, height) and the offset of the first scan of a JPEG; offset -1 where the markers end before a scan."""
    offset, size = 2, None
    while offset + 4 <= len(data) and data[offset] == 0xFF:
        marker, length = data[offset + 1], int.from_bytes(data[offset + 2 : offset + 4], "big")
        if marker == 0xFF:  # fill byte
            offset += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and offset + 9 <= len(data):  # start of frame
            height, width = data[offset + 5 : offset + 7], data[offset + 7 : offset + 9]
            size = int.from_bytes(width, "big"), int.from_bytes(height, "big")
        if marker == 0xDA:  # start of scan
            return size, offset
        offset += 2 + length
    return size, -1


def _png_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a PNG; None where its chunks do not lead over pixels to the last one.

    A decoder allocates what a chunk says of its length before it reads the chunk, and goes on until it has pixels.
    """
    if data[8:16] != b"\0\0\0\rIHDR":
        return None
    offset, has_pixels = 8, False
    while data[offset : offset + 12] != b"\0\0\0\0IEND\xaeB`\x82":
        has_pixels = has_pixels or data[offset + 4 : offset + 8] == b"IDAT"
        offset += 12 + int.from_bytes(data[offset : offset + 4], "big")
        if offset + 12 > len(data):
            return None
    return (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) if has_pixels else None


def image_size(data: bytes, path: Path) -> tuple[int, int]:
    """(width, height) of a complete JPEG or PNG file's content, without decoding it; raises Error source_bad_image.

    A decoder fills a truncated JPEG with grey and reports nothing. So the end-of-image marker is searched for after the
    start of the first scan: scan data stuff every 0xFF, so it cannot occur by chance, and a thumbnail's lies before."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        size = _png_size(data)
    elif data.startswith(b"\xff\xd8"):
        size, scan = _jpeg_segments(data)
        size = size if scan > 0 and data.find(b"\xff\xd9", scan) > 0 else None
    else:
        what = "not a JPEG or PNG image" if data else "the image file is empty"
        raise Error(Code.source_bad_image, what, str(path), COPY_AGAIN)
    if size is None:
        raise Error(Code.source_bad_image, f"the image breaks off after {len(data)} bytes", str(path), COPY_AGAIN)
    return size


def common_image_size(paths: Iterable[Path]) -> tuple[int, int] | None:
    """(width, height) of the first complete image among files of one camera; None where there is none."""
    for path in paths:
        try:
            return image_size(read_bytes(path), path)
        except Error:  # it is reported when its own frame is read
            continue
    return None


def decode_image(data: bytes, path: Path) -> np.ndarray:
    """A JPEG or PNG file's content as (H, W, 3) uint8 RGB, not rotated by EXIF.

    Raises: Error source_bad_image; missing_extra without OpenCV.
    """
    try:
        import cv2
    except ImportError:
        fix = "pip install 'opencv-python-headless<5'"
        raise Error(Code.missing_extra, "OpenCV is needed to read camera images", str(path), fix) from None
    width, height = image_size(data, path)
    pixels = None
    try:
        if width * height <= _DENSEST * len(data):
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # a size above OpenCV's limit
        pass
    if pixels is None:
        raise Error(
            Code.source_bad_image, f"an image of {width} x {height} px cannot be decoded", str(path), COPY_AGAIN
        )
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def read_table(path: Path, columns: tuple[str, ...]) -> np.ndarray:
    """Named columns of a text table, plain or gzipped, one header line: (N, len(columns)) float64.

    Raises: Error source_bad_points: no header, a column missing, a row that is not numbers, a last row cut off.
    """
    data = read_bytes(path)
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as fault:
            raise Error(Code.source_bad_points, f"broken gzip data ({fault})", str(path), COPY_AGAIN) from None
    lines = data.decode("ascii", "replace").split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise Error(Code.source_bad_points, "the point file is empty", str(path), COPY_AGAIN)
    header = lines[first].split()
    missing = [name for name in columns if name not in header]
    if missing:
        what = f"the header has no column {missing[0]}: {lines[first][:60]!r}"
        raise Error(Code.source_bad_points, what, str(path), COPY_AGAIN)
    if lines[-1].strip():  # a complete file ends with a line end
        raise Error(Code.source_bad_points, f"the file breaks off in line {len(lines)}", str(path), COPY_AGAIN)
    return _numbers(lines[first + 1 :], len(header), path)[:, [header.index(name) for name in columns]]


def _numbers(lines: list[str], columns: int, path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a header without rows: no returns
        try:
            table = np.loadtxt(lines, dtype=np.float64, comments=None, ndmin=2)
        except ValueError as fault:
            raise Error(Code.source_bad_points, f"a row is not numbers ({fault})", str(path), COPY_AGAIN) from None
    if table.size and table.shape[1] != columns:
        what = f"rows of {table.shape[1]} numbers under a header of {columns}"
        raise Error(Code.source_bad_points, what, str(path), COPY_AGAIN)
    return table.reshape(-1, columns)
