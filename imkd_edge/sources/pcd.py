"""Binary PCD point files, version 0.7 (Point Cloud Library, "The PCD file format")."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.sources.files import read_bytes

_KINDS = {"F": "f", "I": "i", "U": "u"}
_SIZES = {"F": (4, 8), "I": (1, 2, 4, 8), "U": (1, 2, 4, 8)}
_HEADER_LIMIT = 4096  # bytes


def _bad(what: str, path: Path) -> Error:
    return Error(
        Code.source_bad_points, what, str(path), "copy the file again from the data set; only binary PCD 0.7 is read"
    )


def _header(data: bytes, path: Path) -> tuple[dict[str, list[str]], int]:
    """Entries of the header and the offset of the first point."""
    end = data.find(b"\nDATA ", 0, _HEADER_LIMIT)
    stop = data.find(b"\n", end + 1, _HEADER_LIMIT)
    if end < 0 or stop < 0:
        raise _bad("no complete PCD header" if data else "the point file is empty", path)
    lines = [line.split() for line in data[:stop].decode("ascii", "replace").split("\n")]
    return {words[0]: words[1:] for words in lines if words and not words[0].startswith("#")}, stop + 1


def read_pcd(path: Path, fields: tuple[str, ...]) -> np.ndarray:
    """Points of a binary PCD file as a structured array (N,) with all its fields.

    The header's POINTS decides how many there are: what follows them (zero padding, say) is not looked at.

    Args:
        fields: names that must be there.
    Raises:
        Error source_missing_file; source_bad_points: not binary PCD, a field absent, or fewer bytes than POINTS needs.
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
    if header["DATA"] != ["binary"] or points < 0:
        raise _bad(f"DATA {' '.join(header['DATA'])}, POINTS {points} is not supported", path)
    if any(kind not in _KINDS or size not in _SIZES[kind] or count != 1 for _, kind, size, count in columns):
        raise _bad("a field of unknown TYPE, SIZE or COUNT", path)
    absent = [name for name in fields if name not in header["FIELDS"]]
    if absent or len(set(header["FIELDS"])) < len(columns):
        raise _bad(f"no field {absent[0]}" if absent else "a field named twice", path)
    dtype = np.dtype([(name, f"<{_KINDS[kind]}{size}") for name, kind, size, _ in columns])
    if len(data) - start < points * dtype.itemsize:
        raise _bad(f"POINTS {points} needs {points * dtype.itemsize} bytes, the file holds {len(data) - start}", path)
    return np.frombuffer(data, dtype, points, start)
