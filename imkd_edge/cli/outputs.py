"""What the results of `run` may replace: older results, and never a recording."""

from __future__ import annotations

import json
import os
from pathlib import Path

from imkd_edge.errors import Code, Error
from imkd_edge.sources.open import is_synth

FIX = "choose another file, or delete it"


def check_results(path: Path, data: str) -> None:
    """Checks that results may be written to a file.

    Args:
        path: of the file. An old one ending in .jsonl or .mcap must hold results; others tell nothing of themselves.
        data: what is read; no file in its folder is replaced.

    Raises:
        Error: spec_bad_value for the recording itself, write_failed.
    """
    recording = Path(data).resolve()
    if path.resolve() == recording:
        raise Error(Code.spec_bad_value, "--save would replace the recording", str(path), "choose another file")
    if not os.path.lexists(path) or path.is_dir():
        return
    if not is_synth(data) and recording in path.parent.resolve().joinpath(path.name).parents:
        raise Error(Code.write_failed, "--save would replace a file in the recording's folder", str(path), FIX)
    holds_results = {".jsonl": _has_lines, ".mcap": _has_boxes}.get(path.suffix)
    if holds_results is not None and not holds_results(path):
        raise Error(Code.write_failed, "--save would replace a file that holds no results of run", str(path), FIX)


def _has_lines(path: Path) -> bool:
    """Whether a .jsonl file is one of results, or empty."""
    try:
        with path.open("rb") as file:
            line = file.readline()
        return not line or "detections" in json.loads(line)
    except (OSError, ValueError, RecursionError, TypeError):
        return False


def _has_boxes(path: Path) -> bool:
    """Whether a complete .mcap file has the topics of results."""
    from imkd_edge.run.recorder import BOXES, DETECTIONS  # needs the extra [recordings]
    from imkd_edge.sources.recording.container import import_library

    reader = import_library("mcap.reader", path)
    try:
        with path.open("rb") as file:
            channels = reader.SeekingReader(file).get_summary().channels.values()
            return {BOXES, DETECTIONS} <= {channel.topic for channel in channels}
    except Exception:  # whatever bytes that are no summary lead to
        return False
