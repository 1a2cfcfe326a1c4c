"""Where results go: the ending of a file's name tells its format."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import IO

from imkd_edge.bundle.files import check_writable, strict_json
from imkd_edge.errors import Code, Error
from imkd_edge.result import Result
from imkd_edge.run.sink import Sink, WholeFile, Worker
from imkd_edge.run.video import Video
from imkd_edge.sources.base import Sample


def open_sink(path: Path, lossy: bool = False, sensors: bool = False) -> Sink:
    """A sink for .jsonl (a line a frame, as `infer --json`), .mcap, .mp4 (the overview) or .rrd (Rerun).

    Args:
        path: of the file; an old one is replaced when the new one is complete and has a frame.
        lossy: pictures leave frames out where the loop is faster than they are.
        sensors: an .mcap file has images and points too, and then leaves frames out as pictures do.

    Raises:
        Error: spec_bad_value for another ending, write_failed where the file cannot be written, missing_extra.
    """
    kinds = {
        ".jsonl": lambda: WholeFile(path, JsonLines),
        ".mcap": lambda: Worker(WholeFile(path, partial(_recorder, sensors=sensors)), lossy and sensors),
        ".mp4": lambda: Worker(WholeFile(path, Video), lossy),
        ".rrd": lambda: Worker(WholeFile(path, _viewer), lossy),
    }
    if path.suffix not in kinds:
        what = f"no format has the ending {path.suffix!r}"
        raise Error(Code.spec_bad_value, what, str(path), f"end the name with one of: {', '.join(kinds)}")
    check_writable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return kinds[path.suffix]()


def open_sinks(paths: list[Path], lossy: bool = False, view: bool = False, sensors: bool = False) -> list[Sink]:
    """`open_sink` of each path, and with `view` Rerun's window; where one raises, those opened before are closed.

    Raises: Error spec_bad_value also where two paths are one file.
    """
    files = [path.resolve() for path in paths]
    for path, file in zip(paths, files, strict=True):
        if files.count(file) > 1:
            raise Error(Code.spec_bad_value, "two outputs are this file", str(path), "give each a name of its own")
    sinks: list[Sink] = []
    try:
        if view:
            sinks.append(Worker(_viewer(None), lossy))
        for path in paths:
            sinks.append(open_sink(path, lossy, sensors))
    except Error:
        for sink in sinks:
            sink.close()
        raise
    return sinks


def _viewer(path: Path | None) -> Sink:
    from imkd_edge.run.viewer import Viewer  # needs the extra [view]

    return Viewer(path)


def _recorder(path: Path, sensors: bool) -> Sink:
    from imkd_edge.run.recorder import Recorder  # needs the extra [recordings]

    return Recorder(path, sensors)


class JsonLines(Sink):
    """One line of JSON for each frame, written at once: an unfinished file can be read too."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("w", encoding="utf-8")

    def write(self, sample: Sample, result: Result) -> None:
        self._file.write(strict_json(result.to_dict()) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
