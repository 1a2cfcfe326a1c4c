"""TensorBoard events of a run, beside its log.jsonl; the package is imported when a run begins."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

FOLDER = "events"  # in the folder of a stage
HINT = 'no TensorBoard events: pip install "imkd-edge[train]", or [train] tensorboard = false'


class Events:
    """Writes the numbers of each epoch as scalars, where the package is installed; a warning says where it is not."""

    def __init__(self, folder: Path, first_epoch: int, active: bool = True):
        self.writer: Any = None
        if not active:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            warnings.warn(HINT, stacklevel=2)
            return
        # A resumed run discards the events of epochs that its checkpoint lacks.
        self.writer = SummaryWriter(str(folder / FOLDER), purge_step=first_epoch)

    def write(self, line: dict[str, Any]) -> None:
        """Adds a line of log.jsonl."""
        if self.writer is None:
            return
        values = {f"loss/{name}": value for name, value in line["losses"].items()}
        values |= {f"speed/{name}": line[name] for name in ("frames_per_second", "wait")}
        values |= {f"validation/{name}": value for name, value in line.get("validation", {}).get("metrics", {}).items()}
        for name, value in values.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                self.writer.add_scalar(name, value, line["epoch"])
        self.writer.flush()

    def close(self) -> None:
        """Closes the file."""
        if self.writer is not None:
            self.writer.close()
