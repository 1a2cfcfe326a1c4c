"""What takes the results of a loop, and a thread for one that is slow."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

from imkd_edge.errors import Code, Error
from imkd_edge.result import Result
from imkd_edge.sources.base import Sample

QUEUE = 4  # frames that wait to be drawn


class Sink(ABC):
    """Takes the results of a loop in turn."""

    dropped = 0  # frames left out to keep pace

    @abstractmethod
    def write(self, sample: Sample, result: Result) -> None:
        """Takes one frame; raises Error write_failed."""

    @abstractmethod
    def close(self) -> None:
        """Completes the file; also after an interrupt."""


class WholeFile(Sink):
    """A sink's file, hidden until `close` completes it.

    Without a frame, or after a failed write, an older file of that name stays as it was. Each process has a hidden file
    of its own.

    Args:
        path: of the file.
        sink: makes the sink that writes the hidden file.
    """

    def __init__(self, path: Path, sink: Callable[[Path], Sink]) -> None:
        self._path, self._frames, self._failed = path, 0, False
        self._part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
        with self._watched():
            self._sink = sink(self._part)

    def write(self, sample: Sample, result: Result) -> None:
        with self._watched():
            self._sink.write(sample, result)
        self._frames += 1

    def close(self) -> None:
        failed = self._failed  # its error has been raised
        try:
            with contextlib.suppress(Error) if failed else contextlib.nullcontext(), self._watched():
                self._sink.close()
                if self._frames and not failed:
                    os.replace(self._part, self._path)
        finally:
            self._part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """An error of the disk, or of a package that writes to it, becomes write_failed."""
        try:
            yield
        except (OSError, RuntimeError, OverflowError) as fault:
            self._failed = True
            what, fix = f"{self._path.name} cannot be written: {fault}", "free space, or choose another file"
            raise Error(Code.write_failed, what, str(self._path), fix) from fault


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
