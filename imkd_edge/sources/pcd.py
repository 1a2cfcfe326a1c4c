"""PCD point files, ascii and binary, compressed or not, version 0.7 (Point Cloud Library, "The PCD file format")."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.sources.files import COPY_AGAIN, read_bytes

_KINDS = {"F": "f", "I": "i", "U": "u"}  # TYPE -> numpy's kind
_TYPES = {kind: name for name, kind in _KINDS.items()}
_SIZES = {"F": (4, 8), "I": (1, 2, 4, 8), "U": (1, 2, 4, 8)}  # bytes
_HEADER_LIMIT = 4096  # bytes
_PADDING = "_"  # name of a field that holds no data: bytes between the fields, as PCL writes them
_MAX_PADDING = 4096  # bytes of one field


def _bad(what: str, path: Path) -> Error:
    fix = f"{COPY_AGAIN}; PCD 0.7 is read: ascii, binary, binary_compressed"
    return Error(Code.source_bad_points, what, str(path), fix)


def _header(data: bytes, path: Path) -> tuple[dict[str, list[str]], int]:
    """Entries of the header and the offset of the first point."""
    end = data.find(b"\nDATA ", 0, _HEADER_LIMIT)
    stop = data.find(b"\n", end + 1, _HEADER_LIMIT)
    if end < 0 or stop < 0:
        raise _bad("no complete PCD header" if data else "the point file is empty", path)
    lines = [line.split() for line in data[:stop].decode("ascii", "replace").split("\n")]
    return {words[0]: words[1:] for words in lines if words and not words[0].startswith("#")}, stop + 1


def read_pcd(path: Path, fields: tuple[str, ...]) -> np.ndarray:
    """Points of a PCD file as a structured array (N,) with all its fields but the padding.

    N is the header's POINTS: bytes after the last binary point (zero padding, say) are ignored. Fields called _ are
    padding of any COUNT; every other field has one value a point.

    Args:
        fields: names that the file must have.
    Raises:
        Error source_missing_file; source_bad_points: not PCD, a field missing, fewer points than POINTS says, in ascii
            also more, or a line (which is named) that is not numbers of the fields' types.
    """
    data = read_bytes(path)
    header, start = _header(data, path)
    try:
        points = int(header["POINTS"][0])
        columns = list(
            zip(header["FIELDS"], header["TYPE"], map(int, header["SIZE"]), map(int, header["COUNT"]), strict=True)
        )
    except (KeyError, IndexError, ValueError) as fault:
        raise _bad(f"broken PCD header ({type(fault).__name__} {fault})", path) from None
    if header["DATA"] not in (["ascii"], ["binary"], ["binary_compressed"]) or points < 0:
        raise _bad(f"DATA {' '.join(header['DATA'])}, POINTS {points} is not supported", path)
    dtype = _dtype(columns, path)
    missing = [name for name in fields if name not in (dtype.names or ())]
    if missing:
        raise _bad(f"no field {missing[0]}", path)
    if header["DATA"] == ["ascii"]:
        return _ascii(data, start, dtype, columns, points, path)
    if header["DATA"] == ["binary_compressed"]:
        return _compressed(data[start:], dtype, columns, points, path)
    if len(data) - start < points * dtype.itemsize:
        raise _bad(f"POINTS {points} needs {points * dtype.itemsize} bytes, the file holds {len(data) - start}", path)
    return np.frombuffer(data, dtype, points, start)


def _ascii(data: bytes, start: int, dtype: np.dtype, columns: list, points: int, path: Path) -> np.ndarray:
    """Points of DATA ascii: one a line, a word a value; empty lines are skipped."""
    first = data.count(b"\n", 0, start) + 1  # number of the first line after the header
    lines = data[start:].decode("ascii", "replace").split("\n")
    if points and all(kind == "F" and name != _PADDING for name, kind, *_ in columns):
        with contextlib.suppress(ValueError):  # the usual file; what is wrong with another one is told below
            table = np.loadtxt(lines, np.float64, comments=None, ndmin=2)
            if table.shape == (points, len(columns)):
                return np.ascontiguousarray(table).view([(name, "f8") for name, *_ in columns])[:, 0].astype(dtype)
    rows = [(number, words) for number, line in enumerate(lines, first) if (words := line.split())]
    width = sum(count for *_, count in columns)
    for number, words in rows[: points + 1]:
        if len(words) != width:
            raise _bad_line(f"{len(words)} values of {width}", path, number)
    if len(rows) != points:
        number = rows[min(points, len(rows) - 1)][0] if rows else first - 1
        raise _bad_line(f"POINTS is {points}, and {len(rows)} lines of values follow", path, number)
    result, at = np.empty(points, dtype), 0
    for name, kind, _, count in columns:
        if name != _PADDING:
            result[name] = _column([(number, words[at]) for number, words in rows], kind, dtype[name], path)
        at += count
    return result


def _column(words: list[tuple[int, str]], kind: str, dtype: np.dtype, path: Path) -> list[float]:
    """The values of a field, from line numbers and words; raises Error source_bad_points with the line."""
    parse = float if kind == "F" else int
    low, high = (-np.inf, np.inf) if kind == "F" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    result = []
    for number, word in words:
        try:
            value = parse(word)
        except ValueError:
            value = None
        if value is None or "_" in word:  # 1_000 is Python's, not PCD's
            what = f"{word[:40]!r} is no {'number' if kind == 'F' else 'whole number'}"
            raise _bad_line(what, path, number)
        if value < low or value > high:
            raise _bad_line(f"{word[:40]} is not between {low} and {high}", path, number)
        result.append(value)
    return result


def _bad_line(what: str, path: Path, number: int) -> Error:
    fix = "write one point a line, a value for every field; POINTS says how many"
    return Error(Code.source_bad_points, what, f"{path}:{number}", fix)


def _compressed(data: bytes, dtype: np.dtype, columns: list, points: int, path: Path) -> np.ndarray:
    """Points of DATA binary_compressed: two sizes, then LZF data that hold one field after the other."""
    size = points * dtype.itemsize
    packed, unpacked = np.frombuffer(data[:8], "<u4").tolist() if len(data) >= 8 else (0, 0)
    content = _lzf(data[8 : 8 + packed], size) if unpacked == size and len(data) >= 8 + packed else None
    if content is None:
        raise _bad(f"the compressed data are no {points} points of {dtype.itemsize} bytes", path)
    result, offset = np.empty(points, dtype), 0
    for name, _, width, count in columns:
        if name != _PADDING:
            result[name] = np.frombuffer(content, dtype[name], points, offset)
        offset += width * count * points
    return result


def _lzf(data: bytes, size: int) -> bytes | None:
    """LZF data unpacked (Marc Lehmann's LibLZF, format of lzf_d.c); None where they are not `size` bytes."""
    out, i = bytearray(), 0
    try:
        while i < len(data) and len(out) <= size:
            control, i = data[i], i + 1
            if control < 32:  # a run of new bytes
                out += data[i : i + control + 1]
                i += control + 1
                continue
            length = (control >> 5) + 2
            if length == 9:
                length, i = length + data[i], i + 1
            start, i = len(out) - ((control & 31) << 8) - data[i] - 1, i + 1
            if start < 0:
                return None
            for at in range(start, start + length):  # the copy may overlap itself
                out.append(out[at])
    except IndexError:
        return None
    return bytes(out) if len(out) == size else None


def _dtype(columns: list[tuple[str, str, int, int]], path: Path) -> np.dtype:
    """The layout of a point, from name, TYPE, SIZE and COUNT of its fields, without the padding."""
    names, formats, offsets, offset = [], [], [], 0
    for name, kind, size, count in columns:
        if kind not in _KINDS or size not in _SIZES[kind]:
            raise _bad(f"field {name!r} has TYPE {kind}, SIZE {size}; F of 4, 8 or I, U of 1, 2, 4, 8 are known", path)
        if name == _PADDING:
            if not 1 <= count <= _MAX_PADDING // size:
                raise _bad(f"padding of COUNT {count}, SIZE {size}; 1 to {_MAX_PADDING} bytes are allowed", path)
        elif count != 1:
            raise _bad(f"field {name!r} has COUNT {count}; only padding (_) may have another than 1", path)
        elif name in names:
            raise _bad(f"field {name!r} is there twice", path)
        else:
            names.append(name)
            formats.append(f"<{_KINDS[kind]}{size}")
            offsets.append(offset)
        offset += size * count
    if not names:
        raise _bad("no field but padding", path)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": offset})


def pcd_bytes(points: np.ndarray) -> bytes:
    """A structured array (N,) of scalar fields as the content of a binary PCD file."""
    dtypes = [points.dtype[name] for name in points.dtype.names or ()]
    header = [
        "# .PCD v0.7 - Point Cloud Data file format",
        "VERSION 0.7",
        " ".join(["FIELDS", *(points.dtype.names or ())]),
        " ".join(["SIZE", *(str(dtype.itemsize) for dtype in dtypes)]),
        " ".join(["TYPE", *(_TYPES[dtype.kind] for dtype in dtypes)]),
        " ".join(["COUNT", *("1" for _ in dtypes)]),
        f"WIDTH {len(points)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(points)}",
        "DATA binary",
    ]
    return ("\n".join(header) + "\n").encode() + points.tobytes() + b"\0"  # readers expect a byte after the last point
