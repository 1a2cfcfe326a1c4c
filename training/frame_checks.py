"""Whether the frames teach anything: labels that [data] classes maps, where the network looks; images, radar points."""

from __future__ import annotations

import warnings

from imkd_edge.errors import Code, Error
from imkd_edge.sources.base import Sample, Truth
from imkd_edge.spec import ModelSpec
from imkd_edge.training.sections import DataConfig


class SeenLabels:
    """The labels of frames: of all objects, and of those whose centre is on the grid."""

    def __init__(self, spec: ModelSpec, data: DataConfig) -> None:
        self._grid, self._data = spec.grid, data
        self.all: set[str] = set()
        self.on_grid: set[str] = set()

    def add(self, truth: Truth | None) -> None:
        """Adds a frame's; of a frame without labels any object may be there."""
        if truth is None:
            self.all |= set(self._data.classes)
            self.on_grid |= set(self._data.classes)
            return
        grid, (x, y) = self._grid, truth.boxes[:, :2].T
        inside = (grid.x_min <= x) & (x < grid.x_max) & (grid.y_min <= y) & (y < grid.y_max)
        self.all |= set(truth.labels)
        self.on_grid |= {label for label, near in zip(truth.labels, inside, strict=True) if near}

    def check_mapped(self) -> None:
        """Raises Error train_no_data where [data] classes has none of the labels."""
        classes = self._data.classes
        if self.all and not self.all & set(classes):
            problem = f"[data] classes has none of the labels: {', '.join(sorted(self.all))}"
            fix = f"map them to the classes of the spec, for example '{min(self.all)}' = '{min(classes.values())}'"
            raise Error(Code.train_no_data, problem, self._data.source, fix)

    def check_learnt(self) -> None:
        """Warns of labels and classes that are not learnt; raises Error train_no_data where none is."""
        data = self._data
        learnt = {data.classes[label] for label in self.on_grid & set(data.classes)}
        if not learnt:
            fix = "label objects, or widen [spec.grid] (x forward, y left, in m)"
            raise Error(Code.train_no_data, "no frame has an object of a class on the grid", data.source, fix)
        if missing := set(data.classes.values()) - learnt:
            text = f"no object on the grid is labelled as {', '.join(sorted(missing))}: training cannot learn it"
            warnings.warn(f"{data.source}: {text}", stacklevel=3)
        if background := self.all - set(data.classes) - set(data.vehicles):
            text = f"[data] classes lacks the labels {', '.join(sorted(background))}: they count as background"
            warnings.warn(f"{data.source}: {text}", stacklevel=3)


class SeenSensors:
    """Which kinds of sensors the rigs of the frames have, and which of them gave anything in any frame."""

    CAMERAS, RADARS = "an image", "a radar point"
    LEARNT = {"both": (CAMERAS, RADARS), "camera": (CAMERAS,), "radar": (RADARS,)}  # by [data] sensors

    def __init__(self, data: DataConfig) -> None:
        self._data = data
        self._owned: set[str] = set()
        self._seen: set[str] = set()

    def add(self, sample: Sample) -> None:
        """Adds a frame's."""
        rig, points = sample.rig, any(len(sweep.points) for sweep in sample.radar)
        self._owned |= {kind for kind, owned in ((self.CAMERAS, rig.cameras), (self.RADARS, rig.radars)) if owned}
        self._seen |= {kind for kind, seen in ((self.CAMERAS, sample.frames), (self.RADARS, points)) if seen}

    def check(self) -> None:
        """Warns of a kind of sensor that no frame has; raises Error train_no_data where no frame has any."""
        owned = [kind for kind in self.LEARNT[self._data.sensors] if kind in self._owned]
        lost = [kind for kind in owned if kind not in self._seen]
        if not lost:
            return
        what, where = f"no frame has {' or '.join(lost)}", self._data.source
        if lost == owned:
            fix = f"copy the sensors' files, which imkd-edge check {where} lists, to where its frames name them"
            raise Error(Code.train_no_data, what, where, fix)
        warnings.warn(f"{where}: {what}, though the rig has such sensors: training cannot learn them", stacklevel=3)
