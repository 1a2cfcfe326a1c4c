"""What takes the results of a loop, and a thread for one that is slow."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from pathlib import Path

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


def part_of(path: Path) -> Path:
    """The file's name until it is complete: hidden, with the same ending."""
    return path.with_name(f".{path.stem}.part{path.suffix}")


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
