"""Shows a training: one line that changes on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.text import Text

from imkd_edge.progress import TrainingStep

PERIOD = 0.2  # s between two changes of the line on a terminal
QUIET = 60.0  # s without a line, elsewhere, after which a step is written too


class TrainingLine:
    """Writes the present step to standard error, over the last one where that is a terminal; a Monitor."""

    def __init__(self, console: Console):
        self.console = console
        self.written = time.monotonic()
        self.open = False  # the line of a step stands on the terminal

    def __enter__(self) -> TrainingLine:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.clear()

    def step(self, step: TrainingStep) -> None:
        """Shows where the training stands; see Monitor."""
        now, terminal = time.monotonic(), self.console.is_terminal
        if now - self.written < (PERIOD if terminal else QUIET):
            return
        self.written = now
        if not terminal:
            self.console.print(str(step))
            return
        self.clear()
        text = Text(str(step), no_wrap=True, overflow="ellipsis")
        text.truncate(max(1, self.console.width - 1))
        self.console.print(text, end="")
        self.open = True

    def log(self, text: str) -> None:
        """Writes a line that stays; see Monitor."""
        self.clear()
        self.console.print(text, markup=False)
        self.written = time.monotonic()

    def clear(self) -> None:
        """Removes the line of the last step."""
        if self.open:
            self.console.file.write("\r\x1b[2K")
            self.console.file.flush()
            self.open = False
