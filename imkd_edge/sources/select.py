"""Selects samples of a source: by split, by name, or as a range."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imkd_edge.errors import Code, Error
from imkd_edge.sources.base import Sample, Source
from imkd_edge.sources.open import is_synth, open_source, reader_of

ALL = "all"  # the split of every frame, in every source
OPTIONAL = ("labels", "lidar")  # options of the readers of folders; detection needs neither


@dataclass(frozen=True)
class Selection:
    """Some samples of a source, read one at a time."""

    source: Source
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Sample]:
        return (self.source[name] for name in self.names)

    def first(self, limit: int | None) -> Selection:
        """The first frames of it; all where `limit` is None."""
        return Selection(self.source, self.names[:limit])


def select(
    source: str | Path | Source,
    split: str | None = None,
    names: Sequence[str] = (),
    span: str | None = None,
    options: Mapping[str, Any] | None = None,
    read: Collection[str] = (),
) -> Selection:
    """Opens a source and selects frames of it. Of a folder, labels and LiDAR are read only where wanted.

    Args:
        source: a Source, or the name of one: path of a recording or its folder, "synth" or "synth:SEED".
        split: name of one of the source's splits, or "all".
        names: frames by name, or by number where the names are numbers with leading zeros.
        span: "FIRST-LAST", or a text file with one name per line.
        options: of the source's reader, such as {"scenes": 68} for synth, or {"labels": True} to read labels too.
        read: which of "labels" and "lidar" are read, unless the options say so.

    Raises:
        Error: source_unknown, source_unknown_frame (also where no frame is left), source_missing_file; spec_* for
            options (`open_with`), and for both names and a span.
    """
    if names and span:
        what = "each of them selects the frames alone"
        raise Error(Code.spec_bad_value, what, "--frame, --frames", "leave one of them out")
    source = str(source) if isinstance(source, Path) else source
    takes = isinstance(source, str) and not is_synth(source)
    reader = open_with(source, options or {}, {name: name in read for name in OPTIONAL} if takes else {})
    source = source_name(source)
    selected = split_names(reader, split, source) if split else list(reader.names)
    if not selected:
        raise Error(Code.source_unknown_frame, "no frames are there", source, "copy the recording again")
    if names:
        selected = [resolve_name(selected, name, source) for name in names]
    elif span:
        selected = _span(selected, span, source)
    return Selection(reader, selected)


def source_name(source: str | Path | Source) -> str:
    """What a message calls a source."""
    return str(source) if isinstance(source, (str, Path)) else str(getattr(source, "path", source.kind))


def open_with(source: str | Source, options: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Source:
    """open_source with the reader's options; `defaults` hold where they say nothing.

    Raises: Error spec_unknown_key for an option that the reader does not have, spec_bad_value for a value of it.
    """
    try:
        return open_source(source, **{**(defaults or {}), **options})
    except (TypeError, ValueError, AttributeError) as error:
        if not options:
            raise
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown is None:
            what, fix = f"the reader takes no such value of an option: {error}", f"check --option {', '.join(options)}"
            raise Error(Code.spec_bad_value, what, source_name(source), fix) from error
        known = _known_options(source)
        fix = f"it takes {', '.join(known)}" if known else "leave it out"
        raise Error(
            Code.spec_unknown_key, f"the reader takes no option {unknown[1]!r}", source_name(source), fix
        ) from error


def _known_options(source: str | Source) -> list[str]:
    """The options of the reader of a source; empty where another package's has it."""
    reader = reader_of(source) if isinstance(source, str) else None
    parameters = inspect.signature(reader).parameters if reader is not None else ()
    return [name for name in parameters if name != "path"]


def split_names(source: Source, split: str, where: str, code: Code = Code.source_unknown_frame) -> list[str]:
    """The frames of a split; raises Error with `code` where there is no such split or it names no frame."""
    splits: dict[str, list[str]] = getattr(source, "splits", {}) or {}
    if split in splits:
        if splits[split]:
            return list(splits[split])
        what = f"the split {split!r} is empty: it names no frame that is there"
        full = ", ".join(sorted(name for name, names in splits.items() if names)) or ALL
        raise Error(code, what, where, f"correct its list, or choose another split: {full}")
    if split == ALL:
        return list(source.names)
    raise Error(code, f"there is no split {split!r}", where, _split_hint(source, splits, split))


def _split_hint(source: Source, splits: Mapping[str, list[str]], split: str) -> str:
    """Which splits there are, or how to get some."""
    from imkd_edge.sources.nuscenes import GET_DEVKIT, OFFICIAL, official_splits

    if source.kind == "nuscenes" and split in OFFICIAL and official_splits() is None:
        return f"the official splits come with nuscenes-devkit: {GET_DEVKIT}"
    if full := sorted(name for name, frames in splits.items() if frames):
        return f"choose one of: {', '.join(full)}"
    return "it has none: for every frame say --split all"


def resolve_name(names: Sequence[str], query: str, where: str) -> str:
    """The frame of a query: its exact name, its number, or its position where no name is a number.

    Raises: Error source_unknown_frame.
    """
    if query in names:
        return query
    if query.isdecimal():
        matches = [name for name in names if name.isdecimal() and int(name) == int(query)]
        if len(matches) == 1:
            return matches[0]
        if not any(name.isdecimal() for name in names) and int(query) < len(names):
            return names[int(query)]
    known = f"{names[0]} ... {names[-1]}" if names else "none"
    fix = f"the {len(names)} frames are {known}"
    raise Error(Code.source_unknown_frame, f"there is no frame {query!r}", where, fix)


def _span(names: Sequence[str], span: str, where: str) -> list[str]:
    if os.path.isfile(span):  # False for a text that is too long for a name
        try:
            lines = Path(span).read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            what = f"the list of frames cannot be read: {error}"
            raise Error(Code.source_missing_file, what, span, "give a text file") from error
        if not lines:
            raise Error(Code.source_unknown_frame, "the list names no frame", span, "write one name per line")
        return [resolve_name(names, line, where) for line in lines]
    for dash in re.finditer("-", span):  # names may contain dashes
        try:
            first = names.index(resolve_name(names, span[: dash.start()], where))
            last = names.index(resolve_name(names, span[dash.end() :], where))
        except Error:
            continue
        if first <= last:
            return list(names[first : last + 1])
    known = f"{names[0]}-{names[-1]}" if names else "none"
    what = f"{span!r} is neither a file nor FIRST-LAST"
    raise Error(Code.source_unknown_frame, what, where, f"e.g. --frames {known}")
