"""Point files of a drive folder: .npy, .csv and .pcd."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from imkd_edge.errors import Code
from imkd_edge.sources.files import read_bytes
from imkd_edge.sources.folder.problem import Problem, raise_first
from imkd_edge.sources.pcd import read_pcd

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_points(path: Path, columns: Sequence[str], fields: Mapping[str, str]) -> np.ndarray:
    """(N, len(columns)) float32 points of a file.

    Args:
        path: .npy with an array of that shape, .csv whose header has the columns, or .pcd.
        columns: such as x, y, z, intensity.
        fields: column -> the field of a .pcd that holds it; by default the field of the same name.
    Raises:
        Error: source_missing_file; source_bad_points with the line of a .csv.
    """
    if path.suffix.lower() == ".pcd":
        names = [fields.get(column, column) for column in columns]
        table = read_pcd(path, tuple(names))
        return np.stack([table[name] for name in names], 1).astype(np.float32)
    data = read_bytes(path)
    return _npy(data, columns, path) if path.suffix.lower() == ".npy" else _csv(data, columns, path)


def _fault(what: str, path: Path, fix: str, line: int = 0) -> None:
    raise_first(Problem(Code.source_bad_points, what, path, line, fix))


def _npy(data: bytes, columns: Sequence[str], path: Path) -> np.ndarray:
    file, fix = io.BytesIO(data), f"write an (N, {len(columns)}) float32 array of {', '.join(columns)} with numpy.save"
    try:
        shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
    except Exception as fault:  # of NumPy, and of the tokenizer by which it reads headers
        _fault(f"not a .npy file ({fault})" if data else "the point file is empty", path, fix)
    if len(shape) != 2 or shape[1] != len(columns) or dtype.kind not in "fiu":
        _fault(f"an array of shape {shape} and type {dtype}", path, fix)
    rest, size = data[file.tell() :], shape[0] * shape[1] * dtype.itemsize
    if len(rest) != size:
        _fault(f"the array needs {size} bytes, the file holds {len(rest)}", path, "write the file again")
    array = np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C")
    return np.ascontiguousarray(array, np.float32)


def _csv(data: bytes, columns: Sequence[str], path: Path) -> np.ndarray:
    lines = data.decode("utf-8-sig", "replace").splitlines()
    header = [name.strip() for name in lines[0].split(",")] if lines else []
    missing = [name for name in columns if name not in header]
    if missing:
        what = f"the header {lines[0][:60]!r} has no column {missing[0]}" if lines else "the point file is empty"
        _fault(what, path, f"write the header {','.join(columns)}", 1)
    rows = np.empty((len(lines) - 1, len(columns)))
    used, count = [header.index(name) for name in columns], 0
    for number, line in enumerate(lines[1:], 2):
        words = line.split(",")
        if not line.strip():
            continue
        try:
            if len(words) != len(header):
                raise ValueError(f"{len(words)} values under a header of {len(header)}")
            rows[count] = [float(words[i]) for i in used]
        except ValueError as fault:
            _fault(f"a row is not numbers ({fault})", path, "write numbers with points, separated by commas", number)
        count += 1
    return rows[:count].astype(np.float32)
