"""One frame's picture and result on disk, both or neither."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from imkd_edge.bundle.format import bundle_name
from imkd_edge.errors import Code, Error
from imkd_edge.result import Result
from imkd_edge.sources.base import Sample
from imkd_edge.spec import ModelSpec

FILES = {"overview.png", "result.json"}  # all that a frame's folder may hold


def save_frame(
    out: Path, sample: Sample, result: Result, spec: ModelSpec, bundle: str, record: dict[str, Any], theme: str
) -> Path:
    """Writes one frame to `out`/NAME and returns that folder."""
    folder = out / re.sub(r"[^A-Za-z0-9._-]", "_", sample.name).lstrip(".")
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
    """Writes overview.png and result.json to a folder beside the target, then swaps the two."""
    from imkd_edge.view import draw

    if theme not in draw.THEMES:
        raise Error(Code.spec_bad_value, f"there is no theme {theme!r}", "--theme", "choose dark or light")
    picture = draw.overview(sample, result, spec, bundle_name(bundle), theme)
    try:
        _refuse_foreign(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        try:
            draw.write_png(fresh / "overview.png", picture)
            (fresh / "result.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            fresh.chmod(0o755)
            _swap(fresh, folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise Error(
            Code.write_failed, f"cannot write: {error.strerror}", str(folder), "choose another folder with --out"
        ) from error


def _refuse_foreign(folder: Path) -> None:
    """What is there is replaced as a whole, so it must be a folder with nothing but a result in it."""
    if not os.path.lexists(folder):
        return
    foreign = sorted({entry.name for entry in folder.iterdir()} - FILES) if folder.is_dir() else []
    if foreign or not folder.is_dir():
        what = (
            f"the folder holds something else than a result: {foreign[0]}"
            if foreign
            else "what is there is not a folder"
        )
        raise Error(Code.write_failed, what, str(folder), "choose another folder with --out")


def _swap(fresh: Path, folder: Path) -> None:
    if folder.exists():
        stale = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        os.replace(folder, stale / "old")
        os.replace(fresh, folder)
        shutil.rmtree(stale)
    else:
        os.replace(fresh, folder)
