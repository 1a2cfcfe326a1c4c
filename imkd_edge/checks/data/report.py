"""What a check of recordings reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error


@dataclass(frozen=True)
class Finding:
    """Something about recordings that is wrong (E and the number of a Code), or unusual (W and that number)."""

    code: str
    topic: str  # such as "velocity kind"
    what: str  # with the value
    where: str
    fix: str

    @property
    def is_error(self) -> bool:
        return self.code.startswith("E")


Findings = Iterator[Finding]


def error(code: Code, topic: str, what: str, where: str, fix: str) -> Finding:
    """What cannot be right."""
    return Finding(f"E{int(code):04d}", topic, what, where, fix)


def warning(code: Code, topic: str, what: str, where: str, fix: str) -> Finding:
    """What is unusual, and may be right."""
    return Finding(f"W{int(code):04d}", topic, what, where, fix)


def of_error(fault: Error, topic: str = "format") -> Finding:
    """An Error of a reader as a finding."""
    return Finding(fault.code, topic, fault.what, fault.where, fault.fix)


@dataclass(frozen=True)
class Report:
    """Counts, statistics and findings of a source."""

    source: str
    kind: str
    frames: int  # of the source
    read: int  # frames whose sensor files were read, evenly spaced
    scenes: int
    labelled: int  # frames with labels, among `counted`
    counted: int  # frames whose lines were read: all of a drive folder, else `read`
    splits: dict[str, dict[str, Any]]  # split -> frames, and labelled frames and objects by class among `counted`
    times: dict[str, Any]
    sensors: dict[str, dict[str, Any]]
    radars: dict[str, dict[str, Any]]
    classes: dict[str, dict[str, Any]]
    rig: dict[str, dict[str, Any]]
    ground: dict[str, Any]
    findings: tuple[Finding, ...]

    @property
    def status(self) -> str:
        """error, warning, or ok."""
        if any(finding.is_error for finding in self.findings):
            return "error"
        return "warning" if self.findings else "ok"

    def verdict(self) -> str:
        """How many errors and warnings there are, for people."""
        errors = sum(finding.is_error for finding in self.findings)
        return f"{number_of(errors, 'error')}, {number_of(len(self.findings) - errors, 'warning')}"

    def read_text(self) -> str:
        """Which sensor files were read, for people."""
        if not self.read and self.status == "error":
            return "its sensor data were not examined: mend the errors, then check again"
        return f"the sensor files of {self.read} were read"

    def to_dict(self) -> dict[str, Any]:
        """The report as --json prints it."""
        return {"status": self.status, **asdict(self)}


def number_of(count: int, noun: str) -> str:
    """Such as "1 frame" and "2 frames"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def quantiles(values: Any, digits: int = 3) -> dict[str, float] | None:
    """Smallest, median and largest of some numbers; None without one."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, middle, high = values.min(), np.median(values), values.max()
    return {"min": round(float(low), digits), "median": round(float(middle), digits), "max": round(float(high), digits)}


def rounded(value: float, digits: int) -> float | None:
    """A number for a report; None where it is not finite."""
    return round(float(value), digits) if np.isfinite(value) else None


def listed(names: Any, most: int = 3) -> str:
    """The first names of a list, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def shortened(findings: Sequence[Finding], most: int = 10) -> Iterator[Finding | str]:
    """Errors first; of findings with one code and cure the first few, then a text with the number of the others."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in sorted(findings, key=lambda finding: not finding.is_error):
        groups.setdefault((finding.code, finding.topic, finding.fix), []).append(finding)
    for (code, topic, _), group in groups.items():
        yield from group[:most]
        if len(group) > most:
            yield f"{code} {topic}: {len(group) - most} more; --json lists all"
