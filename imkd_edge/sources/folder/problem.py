"""What is wrong with a drive folder: a reader raises the first problem, a check collects them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from imkd_edge.errors import Code, Error


@dataclass(frozen=True)
class Problem:
    """One defect of one file."""

    code: Code
    what: str  # with the value
    file: Path
    line: int  # counted from 1; 0: the file as a whole
    fix: str

    @property
    def where(self) -> str:
        """FILE or FILE:LINE."""
        return f"{self.file}:{self.line}" if self.line else str(self.file)

    def error(self) -> Error:
        """The problem as an exception."""
        return Error(self.code, self.what, self.where, self.fix)


Report = Callable[[Problem], None]


def raise_first(problem: Problem) -> None:
    """The report of a reader: raises the problem."""
    raise problem.error()


def problem_of(fault: Error, file: Path, line: int = 0) -> Problem:
    """An Error of another part, such as the rig's or an image's, as a problem of a file."""
    return Problem(Code(int(fault.code[1:])), fault.what, file, line, fault.fix)
