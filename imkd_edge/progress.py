"""Types of progress bars: the caller of a long function decides whether and where one is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Track = Callable[[Any], Iterable[Any]]  # items of known number -> the same items, counted in a progress bar
Bar = Callable[[str], Track]  # title -> a progress bar
