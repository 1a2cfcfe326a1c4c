"""How fast a training is, how long it waits for data, and when it ends."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from imkd_edge.progress import TrainingStep


class Pace:
    """Counts the batches of a run from its first one on; validations are part of its time."""

    def __init__(self, stage: str, epochs: int, epoch: int, batches: int, frames: float):
        """epoch: number of finished ones; batches: of an epoch; frames: of a batch, in all processes together."""
        self.stage, self.epochs, self.first, self.batches, self.frames = stage, epochs, epoch, batches, frames
        self.start = self.epoch_start = time.monotonic()
        self.wait = 0.0  # s of this epoch in which the next batch was not ready

    def begin_epoch(self) -> None:
        """Starts the clock of an epoch."""
        self.epoch_start, self.wait = time.monotonic(), 0.0

    def timed(self, batches: Iterable[dict]) -> Iterator[dict]:
        """The batches; measures how long each lets the training wait."""
        iterator = iter(batches)
        while True:
            start = time.monotonic()
            batch = next(iterator, None)
            self.wait += time.monotonic() - start
            if batch is None:
                return
            yield batch

    def step(self, epoch: int, batch: int, loss: float) -> TrainingStep:
        """Where the training stands after a batch (from 1) of an epoch (from 0)."""
        rate, left = self.rate(batch), self.left(epoch, batch)
        return TrainingStep(self.stage, epoch + 1, self.epochs, batch, self.batches, loss, rate, left)

    def left(self, epoch: int, batch: int) -> float:
        """Seconds until the last epoch ends, after a batch (from 1) of an epoch (from 0), at the pace up to now."""
        finished = (epoch - self.first) * self.batches + batch
        each = (time.monotonic() - self.start) / max(1, finished)
        return each * ((self.epochs - epoch) * self.batches - batch)

    def rate(self, batches: int) -> float:
        """Frames per second of this epoch, after so many batches."""
        return batches * self.frames / max(1e-9, time.monotonic() - self.epoch_start)

    def line(self, batches: int) -> dict[str, float]:
        """ "seconds" of a finished epoch, its "frames_per_second", and "wait", the share of its time spent on data."""
        seconds = time.monotonic() - self.epoch_start
        share = self.wait / max(1e-9, seconds)
        return {
            "seconds": round(seconds, 1),
            "frames_per_second": round(self.rate(batches), 2),
            "wait": round(share, 4),
        }
