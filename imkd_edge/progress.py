"""How a long function tells how far it is: its caller decides whether and where that is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

Track = Callable[[Any], Iterable[Any]]  # items of known number -> the same items, counted in a progress bar
Bar = Callable[[str], Track]  # title -> a progress bar


@dataclass(frozen=True)
class TrainingStep:
    """Where a training stands after a step."""

    stage: str  # teacher, labels or student
    epoch: int  # the running one, from 1
    epochs: int
    batch: int  # of the epoch, from 1
    batches: int
    loss: float  # mean of the epoch up to now
    frames_per_second: float  # of this epoch up to now
    seconds_left: float  # at the pace of this run, validations included

    def __str__(self) -> str:
        parts = [f"{self.stage} epoch {self.epoch}/{self.epochs}", f"batch {self.batch}/{self.batches}"]
        parts += [f"loss {self.loss:.4g}", f"{self.frames_per_second:.1f} frames/s", f"{clock(self.seconds_left)} left"]
        return "  ".join(parts)


class Monitor(Protocol):
    """What shows a training to its user."""

    def step(self, step: TrainingStep) -> None:
        """Called after every batch."""

    def log(self, text: str) -> None:
        """Called with a line to keep: the end of an epoch, a validation, what was done to the weights."""


class Silent:
    """A monitor that shows nothing."""

    def step(self, step: TrainingStep) -> None:
        """Shows nothing."""

    def log(self, text: str) -> None:
        """Shows nothing."""


def clock(seconds: float) -> str:
    """Seconds as M:SS or H:MM:SS."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
