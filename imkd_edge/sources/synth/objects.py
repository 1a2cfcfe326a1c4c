"""The classes of a synthetic world: its kinds of objects under names and with sizes of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.sources.synth.layout import CLASSES, SIZES

ClassNames = str | Sequence[str] | Mapping[str, str | Mapping[str, Any]]
Range = tuple[tuple[float, float, float], tuple[float, float, float]]  # lowest and highest length, width, height m
_SPREAD = 0.05  # of a size of one's own, to both sides
_SMALLEST, _LARGEST = 0.2, 20.0  # m
_WHERE = "SynthSource(classes=)"


@dataclass(frozen=True)
class Catalogue:
    """The kinds of objects in a world, and what its labels call them."""

    labels: dict[str, str]  # kind -> class name, in the order of CLASSES
    sizes: dict[str, Range]  # of the kinds that have one of their own

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(self.labels.values())

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of objects, some of CLASSES."""
        return tuple(self.labels)

    @classmethod
    def of(cls, classes: ClassNames) -> Catalogue:
        """Reads SynthSource's `classes`.

        Args:
            classes: names of CLASSES, in a text separated by commas; or class name -> one of CLASSES; or class name ->
                {"like": one of CLASSES, "size": [length, width, height] m}.
        Raises:
            Error: spec_bad_value for an unknown class, a class like another one's, or a size that is none.
        """
        if isinstance(classes, str):
            classes = [name.strip() for name in classes.split(",") if name.strip()]
        entries = classes if isinstance(classes, Mapping) else {name: name for name in classes}
        labels: dict[str, str] = {}
        sizes: dict[str, Range] = {}
        for name, entry in entries.items():
            kind = entry.get("like", name) if isinstance(entry, Mapping) else entry
            if kind not in CLASSES or kind in labels:
                problem = f"is like {labels[kind]!r}, a" if kind in labels else "is no kind of object here:"
                fix = f"choose each once from {', '.join(CLASSES)}"
                raise Error(Code.spec_bad_value, f"class {name!r} {problem} {kind!r}", _WHERE, fix)
            labels[kind] = str(name)
            if isinstance(entry, Mapping) and "size" in entry:
                sizes[kind] = _size_range(str(name), entry["size"])
        if not labels:
            raise Error(Code.spec_bad_value, "there is no class", _WHERE, f"choose from {', '.join(CLASSES)}")
        return cls({kind: labels[kind] for kind in CLASSES if kind in labels}, sizes)

    def size_range(self, kind: str) -> Range:
        """The lowest and the highest sizes of a kind."""
        return self.sizes.get(kind, SIZES[kind])


def _size_range(name: str, size: Any) -> Range:
    try:
        values = np.asarray(size, float)
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.shape != (3,) or not ((values >= _SMALLEST) & (values <= _LARGEST)).all():
        fix = f"length, width and height of {_SMALLEST} to {_LARGEST} m, such as [2.6, 1.2, 2.1]"
        raise Error(Code.spec_bad_value, f"the size of {name!r} is {size!r}", _WHERE, fix)
    low, high = (values * (1 - _SPREAD)).tolist(), (values * (1 + _SPREAD)).tolist()
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])
