"""Splits of a drive folder: splits/NAME.txt with frame or scene names, one a line."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from imkd_edge.errors import Code, Error
from imkd_edge.sources.files import read_bytes
from imkd_edge.sources.folder.problem import Problem, Report, problem_of

RESERVED = "all"  # the split of every frame, in every source


def read_splits(
    folder: Path, scenes: Mapping[str, list[str]], frames: Collection[str], report: Report
) -> dict[str, list[str]]:
    """Frame names by split.

    Args:
        folder: splits/; it may be absent.
        scenes: scene -> its frames; a line that names a scene stands for them.
        frames: frame names.
        report: gets the problems: a name that is not there or there twice, a reserved or unreadable file.
    """
    splits = {}
    for path in sorted(folder.glob("*.txt")):
        if path.stem == RESERVED:
            fix = "it stands for every frame: give the file another name"
            report(Problem(Code.source_bad_split, f"a split called {RESERVED}", path, 0, fix))
            continue
        splits[path.stem] = _read_split(path, scenes, frames, report)
    return splits


def _read_split(path: Path, scenes: Mapping[str, list[str]], frames: Collection[str], report: Report) -> list[str]:
    names: dict[str, int] = {}  # frame -> line
    try:
        lines = read_bytes(path).decode("utf-8-sig", "replace").splitlines()
    except Error as fault:
        report(problem_of(fault, path))
        return []
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name:
            continue
        selected = [name] if name in frames else scenes.get(name)
        if selected is None:
            what, fix = f"{name!r} is neither a frame nor a scene", "correct the name, or leave it out"
            report(Problem(Code.source_bad_split, what, path, number, fix))
            continue
        for frame in selected:
            if frame in names:
                what = f"the frame {frame!r} is there twice, first by line {names[frame]}"
                report(Problem(Code.source_bad_split, what, path, number, "leave one of them out"))
                break
        names.update({frame: number for frame in selected if frame not in names})
    return list(names)


def check_overlaps(folder: Path, splits: Mapping[str, list[str]], report: Report) -> None:
    """Reports splits without a frame, and a frame of two splits of one division.

    Splits whose names differ in train, val, test alone are one division: random_train and random_val are, train and
    random_val are not.
    """
    divisions: dict[str, list[str]] = {}
    for name, frames in splits.items():
        if not frames:
            problem = "the split is empty: it names no frame", folder / f"{name}.txt", 0, "name some, or leave it out"
            report(Problem(Code.source_bad_split, *problem))
        divisions.setdefault(re.sub("train|val|test", "*", name), []).append(name)
    for names in divisions.values():
        for i, name in enumerate(names):
            for other in names[:i]:
                common = set(splits[name]) & set(splits[other])
                if common:
                    what = f"frames shared with the split {other!r}: {len(common)}, such as {min(common)!r}"
                    fix = "leave them out of one of the two: training frames say nothing about others"
                    report(Problem(Code.source_bad_split, what, folder / f"{name}.txt", 0, fix))
