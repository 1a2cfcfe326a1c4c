"""A folder of this process for the files of one fuzz input."""

from __future__ import annotations

import atexit
import io
import shutil
import tempfile
import warnings
import zipfile
from pathlib import Path

SEPARATOR = b"\n----\n"
FOLDER = Path(tempfile.mkdtemp(prefix="imkd_fuzz_"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


def file(name: str, data: bytes) -> Path:
    """Writes a file of the folder."""
    path = FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def parts(data: bytes, count: int) -> list[bytes]:
    """The input cut at its first lines of "----"; missing parts are empty."""
    found = data.split(SEPARATOR, count - 1)
    return found + [b""] * (count - len(found))


def npz(data: bytes) -> bytes:
    """An archive of arrays: after a "z" the input itself, else its parts, each a name, a line's end and a .npy file.

    So the arrays can be changed without a checksum of the archive that would hide the change.
    """
    if data[:1] == b"z":
        return data[1:]
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # names that are there twice
        for part in data.split(SEPARATOR)[:64]:
            name, _, content = part.partition(b"\n")
            archive.writestr(name[:99].decode("latin-1").replace("\0", "_") + ".npy", content)
    return file.getvalue()
