"""Files that are written completely or not at all, and archives of arrays."""

from __future__ import annotations

import io
import json
import math
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error


def write_atomically(path: Path, data: bytes, private: bool = False) -> None:
    """Writes a temporary file in the same folder and renames it.

    Args:
        path: of the file; missing folders are created.
        data: the content.
        private: only this user may read and write it (mode 0600), from its first byte on.

    Raises:
        Error: write_failed; the old file is unchanged and the temporary file is removed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            temporary = Path(folder) / "new"
            if private:
                temporary.touch(0o600)
            write_synced(temporary, data)
            temporary.replace(path)
    except OSError as error:
        fix = "free space, or choose another folder with --out"
        raise Error(Code.write_failed, f"{path.name} cannot be written: {error}", str(path), fix) from error


def strict_json(value: Any, **style: Any) -> str:
    """JSON that every reader takes: numbers that are not finite become null.

    Args:
        value: of dicts, lists, NumPy arrays and scalars.
        style: arguments of json.dumps.
    """
    return json.dumps(plain(value), allow_nan=False, **style)


def plain(value: Any) -> Any:
    """The value in the types of strict JSON."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # NumPy arrays and scalars
        return plain(value.tolist())
    return value


def check_writable(path: Path) -> None:
    """Checks that `write_atomically` can write the file and changes nothing; call it before a long computation.

    Raises:
        Error: write_failed where the path is a folder or its folder is read-only.
    """
    folder = next((parent for parent in path.absolute().parents if os.path.lexists(parent)), path)
    if os.path.isdir(path) or not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        problem = "is a folder" if os.path.isdir(path) else f"cannot be written in {folder}"
        raise Error(Code.write_failed, f"{path.name} {problem}", str(path), "choose another file")


def write_synced(path: Path, data: bytes) -> None:
    """Writes a file and flushes it to the disk; raises OSError."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of an .npz file that depend on the arrays alone: it has sorted names and no times."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(arrays):
            data = io.BytesIO()
            np.lib.format.write_array(data, np.asarray(arrays[name]), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), data.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def read_npz(file: Path | io.BytesIO) -> dict[str, np.ndarray]:
    """The arrays of an .npz file; raises ValueError where it is none or is damaged."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
        for array in arrays.values():
            if array.dtype.kind == "U":
                array.tolist()  # raises where a code is of no character
        return arrays
    except Exception as error:  # of the file, zipfile, zlib, NumPy, and the tokenizer by which NumPy reads headers
        raise ValueError(f"cannot be read ({type(error).__name__}: {error})") from error
