"""Chooses samples of a source: by split, by name, or as a range."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imkd_edge.errors import Code, Error
from imkd_edge.sources.base import Sample, Source
from imkd_edge.sources.open import open_source


@dataclass(frozen=True)
class Selection:
    """Some samples of a source, read one at a time."""

    source: Source
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Sample]:
        return (self.source[name] for name in self.names)


def select(
    source: str,
    split: str | None = None,
    names: Sequence[str] = (),
    span: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Selection:
    """Opens a source and chooses frames of it.

    Args:
        source: folder of a recording, "synth" or "synth:SEED".
        split: name of one of the source's splits.
        names: frames by name, or by number where the names are numbers with leading zeros.
        span: "FIRST-LAST", or a text file with one name per line.
        options: of the source's reader, such as {"scenes": 68} for synth.

    Raises:
        Error: source_unknown, source_unknown_frame (also where no frame is left), source_missing_file; spec_* for options (`open_with`),
            and for both names and a span.
    """
    if names and span:
        raise Error(
            Code.spec_bad_value, "each of them chooses the frames alone", "--frame, --frames", "leave one of them out"
        )
    opened = open_with(source, options or {})
    chosen = _split_names(opened, split, source) if split else list(opened.names)
    if not chosen:
        what, fix = (
            (f"the split {split!r} is empty", "choose another split")
            if split
            else ("no frames are there", "copy the recording again")
        )
        raise Error(Code.source_unknown_frame, what, source, fix)
    if names:
        chosen = [resolve_name(chosen, name, source) for name in names]
    elif span:
        chosen = _span(chosen, span, source)
    return Selection(opened, chosen)


def open_with(source: str, options: Mapping[str, Any]) -> Source:
    """open_source; raises Error spec_unknown_key for an option that the reader lacks, spec_bad_value for a value that it cannot take."""
    try:
        return open_source(source, **options)
    except (TypeError, ValueError, AttributeError) as error:
        if not options:
            raise
        unknown = "unexpected keyword" in str(error)
        code, what = (Code.spec_unknown_key, "option") if unknown else (Code.spec_bad_value, "value of an option")
        raise Error(
            code, f"the reader takes no such {what}: {error}", source, f"check --option {', '.join(options)}"
        ) from error


def _split_names(source: Source, split: str, where: str) -> list[str]:
    splits: dict[str, list[str]] = getattr(source, "splits", {}) or {}
    if split not in splits:
        raise Error(Code.source_unknown_frame, f"there is no split {split!r}", where, _splits_there(source, splits))
    return list(splits[split])


def _splits_there(source: Source, splits: Mapping[str, list[str]]) -> str:
    """What to choose instead of a split that is not there, or how to get some."""
    if splits:
        return f"choose one of: {', '.join(sorted(splits))}"
    from imkd_edge.sources.nuscenes import GET_DEVKIT, official_splits

    if source.kind == "nuscenes" and official_splits() is None:
        return f"the official splits come with nuscenes-devkit: {GET_DEVKIT}"
    return "it has none: for every frame say --split all (eval, quantize) or leave --split out"


def resolve_name(names: Sequence[str], wanted: str, where: str) -> str:
    """The frame called `wanted`: its exact name, its number, or its position for names that are not numbers."""
    if wanted in names:
        return wanted
    if wanted.isdecimal():
        same = [name for name in names if name.isdecimal() and int(name) == int(wanted)]
        if len(same) == 1:
            return same[0]
        if not any(name.isdecimal() for name in names) and int(wanted) < len(names):
            return names[int(wanted)]
    known = f"{names[0]} ... {names[-1]}" if names else "none"
    raise Error(
        Code.source_unknown_frame, f"there is no frame {wanted!r}", where, f"the {len(names)} frames are {known}"
    )


def _span(names: Sequence[str], span: str, where: str) -> list[str]:
    if os.path.isfile(span):  # False for what is too long for a name
        try:
            lines = Path(span).read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise Error(
                Code.source_missing_file, f"the list of frames cannot be read: {error}", span, "give a text file"
            ) from error
        if not lines:
            raise Error(Code.source_unknown_frame, "the list names no frame", span, "write one name per line")
        return [resolve_name(names, line, where) for line in lines]
    for dash in re.finditer("-", span):  # names may hold dashes themselves
        try:
            first = names.index(resolve_name(names, span[: dash.start()], where))
            last = names.index(resolve_name(names, span[dash.end() :], where))
        except Error:
            continue
        if first <= last:
            return list(names[first : last + 1])
    known = f"{names[0]}-{names[-1]}" if names else "none"
    raise Error(
        Code.source_unknown_frame, f"{span!r} is neither a file nor FIRST-LAST", where, f"e.g. --frames {known}"
    )
