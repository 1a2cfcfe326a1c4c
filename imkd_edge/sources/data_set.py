"""What the readers of Astyx, View-of-Delft and KITTI share: a folder with a file a frame for each sensor."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

from imkd_edge.errors import Code, Error
from imkd_edge.sources.absences import Absences, is_absent
from imkd_edge.sources.base import Source
from imkd_edge.sources.files import unknown_frame

Self = TypeVar("Self", bound="DataSetFolder")
_CACHED = ("splits", "_common_size")  # properties that depend on the names


class DataSetFolder(Source):
    """Frames of a data set's folder. Of a frame only the calibration is needed.

    What else a frame lacks is absent, counted in `absent`.

    Args:
        path: the folder.
        frames: frame names, in this order; all by default.
        images, lidar, labels: False leaves these out of the samples (not read, faster).
    Raises:
        Error source_unknown: not such a folder; source_unknown_frame: a name that is not in it.
    """

    parts: ClassVar[str]  # what such a folder has, for the error

    def __init__(
        self,
        path: str | Path,
        frames: Sequence[str] | None = None,
        images: bool = True,
        lidar: bool = True,
        labels: bool = True,
    ):
        self.path = Path(path)
        self.images, self.lidar, self.labels = images, lidar, labels
        self._absences = Absences()
        if not self.recognises(self.path):
            what = f"no {self.parts} in the folder"
            raise Error(Code.source_unknown, what, str(path), "give the folder that holds them")
        self._known = self._frame_names()
        self.names = sorted(self._known)
        if frames is not None:
            self._select(frames)

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether a folder looks like this set."""
        raise NotImplementedError

    def _frame_names(self) -> Collection[str]:
        """The frames that are in the folder."""
        raise NotImplementedError

    def subset(self: Self, names: Sequence[str]) -> Self:
        """The same folder with these frames only, in this order; raises Error source_unknown_frame."""
        result = copy.copy(self)
        result._absences = Absences()
        for cached in _CACHED:
            result.__dict__.pop(cached, None)
        result._select(names)
        return result

    def _select(self, names: Sequence[str]) -> None:
        for name in names:
            self._check(name, self._known)
        self.names = list(names)

    def _check(self, name: str, names: Collection[str]) -> None:
        if name not in names:
            raise unknown_frame(name, names, self.path)

    @property
    def absent(self) -> dict[str, int]:
        """Number of frames by kind of optional data that they lack, among those read so far."""
        return self._absences.counts()

    def _lacks(self, kind: str, name: str, path: Path) -> bool:
        """Whether a frame has no such file, which is counted."""
        if is_absent(path):
            self._absences.add(kind, name, path)
            return True
        return False
