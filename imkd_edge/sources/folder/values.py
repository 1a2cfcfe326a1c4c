"""Values of JSON documents: each is checked where it is read, and every fault is reported with its key."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.rig import orthonormalised
from imkd_edge.sources.folder.problem import Problem, Report
from imkd_edge.sources.times import MAX_TIME_NS

LARGEST = 1e300  # of a number, so that it fits a float
_SHOWN = 60  # characters of a value in a message


def shown(value: Any) -> str:
    """A value in a message, shortened."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


class Values:
    """Reads the values of one document and reports their faults; a faulty value is read as None.

    Args:
        report: gets each problem.
        file: of the document.
        line: of the document in its file; 0: it is the whole file.
    """

    def __init__(self, report: Report, file: Path, line: int = 0):
        self.report, self.file, self.line = report, file, line
        self.faults = 0

    def fault(self, code: Code, what: str, fix: str) -> None:
        """Reports a problem of this document."""
        self.faults += 1
        self.report(Problem(code, what, self.file, self.line, fix))

    def document(self, text: bytes) -> dict[str, Any] | None:
        """The JSON object of a text; None where it is none."""

        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            for key in sorted({key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i])}):
                self.fault(Code.source_duplicate, f"the key {key!r} is there twice", "leave one of them out")
            return dict(pairs)

        try:
            data = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
        except (ValueError, RecursionError) as fault:  # UnicodeDecodeError is a ValueError
            what = f"not valid JSON ({fault})" if text.strip() else "no JSON: there is nothing"
            self.fault(
                Code.source_syntax, what, "write one JSON object in UTF-8; a line that breaks off was not finished"
            )
            return None
        if not isinstance(data, dict):
            self.fault(Code.source_syntax, f"not a JSON object: {shown(data)}", 'write {"key": value, ...}')
            return None
        return data

    def object(self, value: Any, where: str, known: Collection[str], required: Sequence[str] = ()) -> dict[str, Any]:
        """An object with keys of `known` and all of `required`; {} where it is none."""
        if not isinstance(value, dict):
            self.fault(Code.source_bad_value, f"{where} is {shown(value)}", "write an object: {...}")
            return {}
        of = f" of {where}" if where else ""
        for key in value:
            if key not in known:
                near = get_close_matches(key, known, 1)
                fix = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                self.fault(Code.source_unknown_key, f"unknown key {key!r}{of}", fix)
        for key in required:
            if key not in value:
                self.fault(Code.source_missing_key, f"no key {key!r}{of}", f"add {key!r}")
        return value

    def text(self, value: Any, where: str) -> str | None:
        """A text of one line without blanks around it, not empty."""
        if isinstance(value, str) and value and value == value.strip() and value.isprintable():
            return value
        fix = "write a text of one line, not empty, without blanks at its ends"
        self.fault(Code.source_bad_value, f"{where} is {shown(value)}", fix)
        return None

    def time(self, value: Any, where: str) -> int | None:
        """A time in nanoseconds."""
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TIME_NS:
            return value
        self.fault(Code.source_bad_time, f"{where} is {shown(value)}", "write whole nanoseconds from 0 on, in 64 bits")
        return None

    def numbers(
        self, value: Any, shape: tuple[int, ...], where: str, code: Code = Code.source_bad_value
    ) -> np.ndarray | None:
        """Finite numbers of a shape as float64."""
        if not _has_shape(value, shape):
            size = " x ".join(map(str, shape)) if shape else "one"
            self.fault(code, f"{where} is {shown(value)}", f"write {size} number{'s' if shape else ''}")
            return None
        array = np.array(value, np.float64)
        if not np.isfinite(array).all():
            self.fault(code, f"{where} is {shown(value)}, which is not finite", "leave out what is unknown")
            return None
        return array

    def pose(self, value: Any, where: str) -> np.ndarray | None:
        """A rigid (4, 4) transform."""
        T = self.numbers(value, (4, 4), where)
        if T is None:
            return None
        try:
            return orthonormalised(T, where)
        except Error as fault:
            self.fault(Code.source_bad_value, fault.what, "write a rotation, a translation in metres and 0 0 0 1")
            return None

    def choice(self, value: Any, where: str, known: Sequence[Any]) -> Any:
        """One of some values."""
        if value in known and not isinstance(value, bool):
            return value
        fix = f"choose one of {', '.join(map(str, known))}"
        self.fault(Code.source_bad_value, f"{where} is {shown(value)}", fix)
        return None

    def path(self, value: Any, where: str, endings: Sequence[str]) -> str | None:
        """A path inside the folder, with slashes, and with one of some endings."""
        name = self.text(value, where)
        if name is None:
            return None
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name or name[1:2] == ":":
            fix = "write a path from the folder on, with slashes and without .."
            self.fault(Code.source_bad_path, f"{where} is {name!r}, which may lie outside the folder", fix)
            return None
        if not name.lower().endswith(tuple(endings)):
            self.fault(Code.source_bad_value, f"{where} is {name!r}", f"known are files of {', '.join(endings)}")
            return None
        return name


def _has_shape(value: Any, shape: tuple[int, ...]) -> bool:
    if not shape:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and not abs(value) > LARGEST
    return isinstance(value, list) and len(value) == shape[0] and all(_has_shape(item, shape[1:]) for item in value)
