"""Any source as a drive folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.options import ConvertOptions
from imkd_edge.progress import Track
from imkd_edge.sources.absences import is_absent
from imkd_edge.sources.base import FACTS, Source
from imkd_edge.sources.files import read_json
from imkd_edge.sources.folder import FolderSource, FolderWriter
from imkd_edge.sources.folder.format import FRAMES, PART
from imkd_edge.sources.joined import JoinedSource, without_images
from imkd_edge.sources.select import OPTIONAL, select, source_name

DEFAULTS = ConvertOptions()
ORIGIN = "convert.json"  # file of the folder: from which source, with which options of its reader


def convert(
    source: str | Path | Source | Sequence[str | Path],
    folder: str | Path,
    options: ConvertOptions = DEFAULTS,
    *,
    source_options: Mapping[str, Any] | None = None,
    track: Track | None = None,
) -> dict[str, Any]:
    """Writes the frames of a source as a drive folder; the same call continues where an earlier one stopped.

    A sample that is read from the folder gives the networks the same inputs to the bit: JPEG and PNG files and messages
    are copied as they are, other images are stored as PNG, points as float32.

    Args:
        source: a Source, or the name of one, or the names of several, which become one folder (JoinedSource).
        folder: new, or of an interrupted call; it opens as a source when it is complete.
        options: which frames.
        source_options: of the source's reader.
        track: wraps the frame names, for a progress bar.
    Returns:
        {"folder", "source", "frames", "new", "splits"}: "new" frames were written by this call.
    Raises:
        Error: write_failed, also where the folder holds something else or was written with other options of the
            reader; those of the source.
    """
    source = _as_one(source, source_options)
    given = source_options if isinstance(source, (str, Path)) else None
    selection = select(source, options.split, span=options.frames, options=given, read=OPTIONAL)
    reader, names = selection.source, selection.names[: options.limit]
    folder, origin = Path(folder), _origin(reader, source, source_options or {})
    _check_origin(folder, origin)
    new = [] if _is_complete(folder, names) else _write(reader, names, folder, describe(reader, source), origin, track)
    written = FolderSource(folder)
    splits = {split: len(frames) for split, frames in written.splits.items()}
    counts = {"frames": len(names), "new": len(new), "splits": splits}
    return {"folder": str(folder), "source": reader.kind, **counts}


def _as_one(
    source: str | Path | Source | Sequence[str | Path], options: Mapping[str, Any] | None
) -> str | Path | Source:
    """Several sources as one; a single one is not opened here. Raises Error source_unknown for none."""
    if isinstance(source, (str, Path)) or not isinstance(source, Sequence):
        return source
    if not source:
        raise Error(Code.source_unknown, "no source", "[]", "name a recording, or several")
    if len(source) == 1:
        return source[0]
    return JoinedSource([(str(name), select(name, options=options, read=OPTIONAL).source) for name in source])


def describe(reader: Source, source: str | Path | Source = "") -> dict[str, Any]:
    """What is known about a source, as keys of dataset.json."""
    keys = {key: getattr(reader, key, None) for key in FACTS}
    name = Path(source_name(source)).name if source else reader.kind
    entries: dict[str, Any] = {"name": name, **{key: value for key, value in keys.items() if value}}
    classes = getattr(reader, "classes", None)
    if classes:
        entries["classes"] = list(classes)
    interval = _interval(reader)
    return {**entries, "interval": interval} if interval else entries


def _interval(reader: Source) -> float | None:
    """Usual time between two frames of a scene, s, of a source that knows times without reading frames."""
    moment = getattr(reader, "moment", None)
    if moment is None:
        return None
    moments = [moment(name) for name in reader.names]
    gaps = [(b - a) * 1e-9 for (scene, a), (other, b) in pairwise(moments) if scene == other and b > a]
    return round(float(np.median(gaps)), 6) if gaps else None


def _origin(reader: Source, source: str | Path | Source, options: Mapping[str, Any]) -> dict[str, Any]:
    """What ORIGIN holds; an option that JSON does not know is its text, or the name of its type."""
    moment = getattr(reader, "moment", None)
    begins = moment(reader.names[0])[1] if moment is not None and reader.names else None

    def known(value: Any) -> str:
        return str(value) if isinstance(value, PurePath) else type(value).__name__

    named = {"source": reader.kind, "name": Path(source_name(source)).name, "begins_ns": begins}
    text = json.dumps({**named, "options": dict(options)}, default=known)
    result: dict[str, Any] = json.loads(text)
    return result


def _check_origin(folder: Path, origin: Mapping[str, Any]) -> None:
    """Raises Error write_failed where the folder was written of another source, or with other options."""
    path = folder / ORIGIN
    if is_absent(path):
        return
    written = read_json(path, Code.source_syntax)
    kind, options = (written.get(key) for key in ("source", "options")) if isinstance(written, dict) else (None, None)
    if kind != origin["source"] or not isinstance(options, dict):
        what = f"it is a drive folder of another recording ({kind or path.name + ' names none'})"
        what += f", and this is {origin['source']}"
        raise Error(Code.write_failed, what, str(folder), "name a new folder")
    for key in ("name", "begins_ns"):
        if written.get(key, origin[key]) != origin[key]:
            what = f"it is a drive folder of another recording ({key} {written[key]}, and this is {origin[key]})"
            raise Error(Code.write_failed, what, str(folder), "name a new folder")
    if options != origin["options"]:
        what = f"it was written with {_shown(options)}, and this is {_shown(origin['options'])}"
        raise Error(Code.write_failed, what, str(folder), "give the same --option, or name a new folder")


def _write_origin(folder: Path, origin: Mapping[str, Any]) -> None:
    """Writes ORIGIN; it is there completely or not at all."""
    part = folder / f".{ORIGIN}{PART}"
    part.write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    os.replace(part, folder / ORIGIN)


def _shown(options: Mapping[str, Any]) -> str:
    """Options as they are given."""
    return " ".join(f"{key}={json.dumps(value)}" for key, value in options.items()) or "no options"


def _is_complete(folder: Path, names: Sequence[str]) -> bool:
    """Whether the folder is a complete drive folder of these frames; raises Error write_failed for other frames."""
    if not (folder / FRAMES).exists():
        return False
    written = FolderSource(folder).names
    if written != list(names):
        what = f"it is a drive folder of {len(written)} other frames"
        raise Error(Code.write_failed, what, str(folder), "name a new folder")
    return True


def _write(
    reader: Source,
    names: Sequence[str],
    folder: Path,
    dataset: dict[str, Any],
    origin: dict[str, Any],
    track: Track | None,
) -> list[str]:
    """Writes the frames that are not there yet; returns them."""
    image_files = getattr(reader, "image_files", None)
    instances = getattr(reader, "instances", None)
    if image_files is not None:
        reader = without_images(reader)  # they are copied, not decoded
    with FolderWriter(folder, dataset) as writer:
        _write_origin(folder, origin)
        before = list(writer.names)
        if before != list(names[: len(before)]):
            what = "it is an unfinished drive folder of other frames"
            raise Error(Code.write_failed, what, str(folder), "name a new folder")
        new = list(names[len(before) :])
        for name in new if track is None else track(new):
            sample = reader[name]
            tracks = instances(name) if instances is not None and sample.truth is not None else None
            writer.add(sample, image_files(name) if image_files is not None else None, tracks)
        writer.finish(_splits(reader, names))
    return new


def _splits(reader: Source, names: Sequence[str]) -> dict[str, list[str]]:
    """The source's splits without the frames that are not written."""
    known = set(names)
    splits = {split: [name for name in frames if name in known] for split, frames in _of(reader).items()}
    return {split: frames for split, frames in splits.items() if frames and split != "all"}


def _of(reader: Source) -> Mapping[str, Sequence[str]]:
    return getattr(reader, "splits", None) or {}
