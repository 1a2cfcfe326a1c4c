"""Where results go: the ending of a file's name tells its format."""

from __future__ import annotations

import json
import os
import queue
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO

from imkd_edge.bundle.files import check_writable
from imkd_edge.errors import Code, Error
from imkd_edge.result import Result
from imkd_edge.sources.base import Sample

QUEUE = 4  # frames that wait to be drawn


class Sink(ABC):
    """Takes the results of a loop in turn. Its file has its name once it is complete, after `close`."""

    dropped = 0  # frames left out to keep pace

    @abstractmethod
    def write(self, sample: Sample, result: Result) -> None:
        """Takes one frame; raises Error write_failed."""

    @abstractmethod
    def close(self) -> None:
        """Completes the file; also after an interrupt."""


def open_sink(path: Path, lossy: bool = False) -> Sink:
    """A sink for .jsonl (a line for each frame, as `infer --json`) or .mp4 (the overview).

    Args:
        path: of the file; an old one is replaced when the new one is complete.
        lossy: pictures leave frames out where the loop is faster than they are.

    Raises:
        Error: spec_bad_value for another ending, write_failed where the file cannot be written.
    """
    from imkd_edge.run.video import Video

    kinds = {".jsonl": lambda: JsonLines(path), ".mp4": lambda: Worker(Video(path), lossy)}
    if path.suffix not in kinds:
        what = f"no format has the ending {path.suffix!r}"
        raise Error(Code.spec_bad_value, what, str(path), f"end the name with one of: {', '.join(kinds)}")
    check_writable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return kinds[path.suffix]()


def open_sinks(paths: list[Path], lossy: bool = False) -> list[Sink]:
    """`open_sink` of each path; where one raises, those opened before are closed."""
    sinks: list[Sink] = []
    try:
        for path in paths:
            sinks.append(open_sink(path, lossy))
    except Error:
        for sink in sinks:
            sink.close()
        raise
    return sinks


def part_of(path: Path) -> Path:
    """The file's name until it is complete: hidden, with the same ending."""
    return path.with_name(f".{path.stem}.part{path.suffix}")


class JsonLines(Sink):
    """One line of JSON for each frame, written at once: an unfinished file can be read too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] = part_of(path).open("w", encoding="utf-8")

    def write(self, sample: Sample, result: Result) -> None:
        self._file.write(json.dumps(result.to_dict(), allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
        os.replace(part_of(self._path), self._path)


class Worker(Sink):
    """A slow sink in a thread of its own, behind a short queue.

    Args:
        sink: the slow one.
        lossy: leave out frames that find the queue full; else wait.
    """

    def __init__(self, sink: Sink, lossy: bool) -> None:
        self._sink, self._lossy = sink, lossy
        self._queue: queue.Queue[tuple[Sample, Result] | None] = queue.Queue(QUEUE)
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="imkd-sink", daemon=True)
        self._thread.start()

    def write(self, sample: Sample, result: Result) -> None:
        self._raise_fault()
        if self._lossy and self._queue.full():
            self.dropped += 1
        else:
            self._queue.put((sample, result))

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()
        self._sink.close()
        self._raise_fault()

    def _work(self) -> None:
        while (frame := self._queue.get()) is not None:
            if self._fault is None:
                try:
                    self._sink.write(*frame)
                except BaseException as fault:  # raised again in the loop's thread
                    self._fault = fault

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault
