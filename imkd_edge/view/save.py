"""Writes the picture and the result of one frame, both or neither."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from imkd_edge.bundle.files import strict_json, write_atomically
from imkd_edge.bundle.format import bundle_name
from imkd_edge.errors import Code, Error
from imkd_edge.result import Result
from imkd_edge.sources.base import Sample
from imkd_edge.sources.files import file_name
from imkd_edge.spec import ModelSpec

FILES = {"overview.png", "result.json"}  # of a frame's folder
FIX = "choose another folder with --out"


def save_result(path: Path, result: Result, sample: Sample | None, theme: str) -> None:
    """Writes what `Result.save` says; raises as it."""
    from imkd_edge.view import draw

    if path.suffix == ".png":
        draw.write_png(path, result.plot(sample, theme))
    elif path.suffix == ".json":
        write_atomically(path, (strict_json(result.to_dict(), indent=2) + "\n").encode())
    else:
        what = f"the ending {path.suffix!r} is neither .png nor .json"
        raise Error(Code.spec_bad_value, what, str(path), "end the name with .png or .json")


def save_frame(
    out: Path, sample: Sample, result: Result, spec: ModelSpec, bundle: str, record: dict[str, Any], theme: str
) -> Path:
    """Writes one frame to the folder `out`/`file_name` and returns the folder; arguments as in `write_frame`."""
    folder = out / file_name(sample.name)
    write_frame(folder, sample, result, spec, bundle, record, theme)
    return folder


def write_frame(
    folder: Path,
    sample: Sample,
    result: Result,
    spec: ModelSpec,
    bundle: str,
    record: dict[str, Any],
    theme: str = "dark",
) -> None:
    """Writes overview.png and result.json to a temporary folder, then renames it to `folder`.

    Args:
        folder: the target; an old result in it is replaced.
        sample, result, spec: as in `draw.overview`.
        bundle: path or name, for the title.
        record: content of result.json.
        theme: "dark" or "light".

    Raises:
        Error: spec_bad_value for another theme, write_failed for a target that is not a result or an error of the disk.
    """
    from imkd_edge.view import draw

    picture = draw.overview(sample, result, spec, bundle_name(bundle), theme)
    try:
        _check_replaceable(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        try:
            draw.write_png(new / "overview.png", picture)
            (new / "result.json").write_text(strict_json(record, indent=2) + "\n", encoding="utf-8")
            new.chmod(0o755)
            _replace(folder, new)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    except OSError as error:
        raise Error(Code.write_failed, f"cannot write: {error.strerror}", str(folder), FIX) from error


def _check_replaceable(folder: Path) -> None:
    """The target is replaced as a whole, so it must be absent or a folder that holds a result and nothing else."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise Error(Code.write_failed, "the target exists and is not a folder", str(folder), FIX)
    if foreign := sorted({entry.name for entry in folder.iterdir()} - FILES):
        problem = f"the folder holds something else than a result: {foreign[0]}"
        raise Error(Code.write_failed, problem, str(folder), FIX)


def _replace(folder: Path, new: Path) -> None:
    """Renames `new` to `folder` and deletes an old folder of that name."""
    if folder.exists():
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        os.replace(folder, temporary / "old")
        os.replace(new, folder)
        shutil.rmtree(temporary)
    else:
        os.replace(new, folder)
