"""One frame from sensors to a picture on disk."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imkd_edge.detector import Detector
from imkd_edge.errors import Code, Error
from imkd_edge.result import Result
from imkd_edge.samples import bundle_label, infer_sample, select
from imkd_edge.sources.sample import Sample
from imkd_edge.spec import ModelSpec

WARM_UP = 3  # runs before the one that is shown: the first ones allocate
FILES = {"overview.png", "result.json"}  # all that a frame's folder may hold


def run_demo(
    bundle: str,
    source: str,
    frame: str | None,
    out: Path,
    threads: int = 0,
    theme: str = "dark",
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Detects objects in one frame and writes `out`/overview.png and result.json, both or neither.

    Args:
        bundle: folder or shipped name.
        source: anything that open_source understands.
        frame: name or number; None takes one that training has not seen, where the source tells.
        out: folder to write; an older result in it is replaced.
        threads: of the ops and the engine, 0 is one per core.
        theme: colours of the picture, "dark" or "light".
        options: of the source's reader.

    Returns:
        The frame's result as written to result.json.

    Raises:
        Error: of the source, the bundle, or write_failed.
    """
    chosen = select(source, names=[] if frame is None else [frame], options=options)
    unseen = getattr(chosen.source, "splits", {}).get("val") if frame is None else None
    sample = chosen.source[(unseen or chosen.names)[0]]
    with Detector(bundle, sample.rig, threads=threads) as detector:
        for _ in range(WARM_UP):
            infer_sample(detector, sample)
        result = infer_sample(detector, sample)
        record = {"frame": sample.name, **result.to_dict()}
        write_frame(out, sample, result, detector.spec, bundle, record, theme)
    return record


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
    from imkd_edge import draw

    if theme not in draw.THEMES:
        raise Error(Code.spec_bad_value, f"there is no theme {theme!r}", "--theme", "choose dark or light")
    picture = draw.overview(sample, result, spec, bundle_label(bundle), theme)
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
