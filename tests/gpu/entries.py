"""What a program of the proof measures, entry by entry: each is written at once, and one that fails ends no other."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from parts import Record

Entries = Iterable[tuple[str, Callable[[], Record]]]


def write_each(file: Path, entries: Entries) -> None:
    """Calls each entry; the file holds the records of all so far, complete at any time."""
    found: dict[str, Record] = {}
    for name, measure in entries:
        try:
            found[name] = measure()
        except Exception as error:
            traceback.print_exc()
            found[name] = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps(found, indent=1))
        temporary.replace(file)
        sys.stdout.flush()
