"""Optional data that single frames of a source lack: counted by kind, and reported once a kind by a warning."""

from __future__ import annotations

import warnings
from pathlib import Path


class Absences:
    """Which frames of a source lack which optional data, such as the pose, a label file or the image of one camera."""

    def __init__(self) -> None:
        self._frames: dict[str, set[str]] = {}  # kind -> names

    def add(self, kind: str, frame: str, path: Path, what: str = "no such file") -> None:
        """Counts a frame without `kind`; the first one of a kind warns and names its file."""
        frames = self._frames.setdefault(kind, set())
        if not frames:
            report = f"{path}: {what}. Frame {frame!r} is read without {kind}"
            warnings.warn(f"{report}; further frames without it are counted in source.absent", stacklevel=2)
        frames.add(frame)

    def counts(self) -> dict[str, int]:
        """Number of frames by kind among those read so far."""
        return {kind: len(frames) for kind, frames in sorted(self._frames.items())}


def is_absent(path: Path) -> bool:
    """Whether there is no such file; one that may not be read is not absent: reading it raises the error."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a zero byte, which no name has
        return True
    except OSError:
        return False
    return False
