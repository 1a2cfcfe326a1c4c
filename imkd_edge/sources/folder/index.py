"""The frames of a drive folder by name, without reading more of a line than its beginning."""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field
from pathlib import Path

from imkd_edge.errors import Code, Error
from imkd_edge.sources.files import open_file
from imkd_edge.sources.folder.format import FRAMES, PART
from imkd_edge.sources.folder.problem import Problem, Report
from imkd_edge.sources.folder.values import Values
from imkd_edge.sources.times import MAX_TIME_NS

# A line as the writer writes it; a line with another order of keys is parsed as a whole.
_TEXT = rb'"([^"\\\x00-\x1f]+)"'
_HEAD = re.compile(rb'\{"frame": ?%s, ?(?:"scene": ?%s, ?)?"timestamp_ns": ?(\d{1,19})[,}]' % (_TEXT, _TEXT))


@dataclass
class Index:
    """Frames in the order of the file."""

    path: Path  # frames.jsonl
    rows: dict[str, int] = field(default_factory=dict)  # frame name -> row, in the order of the file
    scenes: list[str] = field(default_factory=list)
    times: array = field(default_factory=lambda: array("q"))  # ns
    offsets: array = field(default_factory=lambda: array("q"))  # of the lines, bytes
    lines: array = field(default_factory=lambda: array("q"))  # numbers of the lines, from 1
    posed: bool = False  # whether a line has a pose

    def line(self, name: str) -> tuple[bytes, int]:
        """A frame's line and its number."""
        row = self.rows[name]
        with open_file(self.path) as file:
            file.seek(self.offsets[row])
            return file.readline(), self.lines[row]


def read_index(path: Path, report: Report) -> Index:
    """Finds every frame of frames.jsonl; a line without a name or time is reported and left out.

    Also reports names that are there twice, and times that do not increase within a scene.
    """
    index, offset = Index(path), 0
    newest: dict[str, int] = {}  # scene -> time
    names: dict[str, str] = {}  # scene -> itself: one object each
    try:
        with open_file(path) as file:
            for number, line in enumerate(file, 1):
                start, offset = offset, offset + len(line)
                head = _head(line, path, number, report)
                if head is None:
                    continue
                name, scene, time = head
                if name in index.rows:
                    first = index.lines[index.rows[name]]
                    what, fix = f"the frame {name!r} is there twice, first in line {first}", "give it another name"
                    report(Problem(Code.source_duplicate, what, path, number, fix))
                    continue
                if time <= newest.get(scene, -1):
                    what = f"timestamp_ns {time} is not after the {newest[scene]} of the scene's frame before it"
                    fix = "sort the lines by time, or give another recording another scene"
                    report(Problem(Code.source_bad_time, what, path, number, fix))
                newest[scene] = time
                index.posed = index.posed or b'"ego"' in line
                index.rows[name] = len(index.rows)
                index.scenes.append(names.setdefault(scene, scene))
                index.times.append(time)
                index.offsets.append(start)
                index.lines.append(number)
    except OSError as fault:
        raise Error(
            Code.source_missing_file, f"cannot read the file ({fault.strerror})", str(path), _cure(path)
        ) from None
    if not index.rows and offset == 0:
        report(
            Problem(Code.source_bad_value, "the file is empty: there are no frames", path, 0, "write one frame a line")
        )
    return index


def _cure(path: Path) -> str:
    if path.with_name(FRAMES + PART).exists():
        return "the folder is not complete: repeat the command that writes it, which continues where it stopped"
    return "write one frame a line, or convert a recording with imkd-edge convert"


def _head(line: bytes, path: Path, number: int, report: Report) -> tuple[str, str, int] | None:
    """Name, scene and time of a line; None for an empty line and for a faulty one, which is reported."""
    match = _HEAD.match(line)
    if match and int(match[3]) <= MAX_TIME_NS:
        try:
            return match[1].decode(), (match[2] or b"").decode(), int(match[3])
        except UnicodeDecodeError:
            pass  # reported below
    if not line.strip():
        return None
    values = Values(report, path, number)
    data = values.document(line)
    if data is None:
        return None
    for key in ("frame", "timestamp_ns"):
        if key not in data:
            values.fault(Code.source_missing_key, f"no key {key!r}", f"add {key!r}")
    name = values.text(data["frame"], "frame") if "frame" in data else None
    time = values.time(data["timestamp_ns"], "timestamp_ns") if "timestamp_ns" in data else None
    scene = data.get("scene", "")
    return None if name is None or time is None else (name, scene if isinstance(scene, str) else "", time)
