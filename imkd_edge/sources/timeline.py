"""The past of a sample: which earlier samples of its recording fill the history of a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from imkd_edge.sources.base import Sample, Source
from imkd_edge.spec import HistorySpec

if TYPE_CHECKING:
    from imkd_edge.detector import Detector
    from imkd_edge.result import Result


class Timeline:
    """The past samples of each sample of a source, in the slots of the Detector's history.

    Args:
        source: its names are in order of time within each scene.
        history: of the model; with 0 frames no sample has a past.
        without: names of samples that cannot be read; their slots stay empty.
    """

    def __init__(self, source: Source, history: HistorySpec, without: Iterable[str] = ()):
        self.source, self.history, self.without = source, history, frozenset(without)
        self.index = {name: i for i, name in enumerate(source.names)}

    def past(self, name: str) -> list[str | None]:
        """For each slot k = 1, 2, ... the sample of the same scene nearest to k intervals ago.

        The sample lies within a quarter of an interval of that time; a slot without such a sample is None.
        """
        interval = round(self.history.interval * 1e9)  # ns
        slots: list[str | None] = [None] * self.history.frames
        if not slots:
            return slots
        gaps = [interval / 4] * self.history.frames
        scene, now = moment(self.source, name)
        for index in range(self.index[name] - 1, -1, -1):
            earlier = self.source.names[index]
            if earlier in self.without:
                continue
            then_scene, then = moment(self.source, earlier)
            slot = round((now - then) / interval) - 1
            if then_scene != scene or slot >= len(slots):
                break
            gap = abs(now - then - (slot + 1) * interval)
            if slot >= 0 and (gap < gaps[slot] or (slots[slot] is None and gap == gaps[slot])):
                slots[slot], gaps[slot] = earlier, gap
        return slots

    def walk(self, name: str) -> Iterator[Sample]:
        """The past samples of a sample, the oldest first, then the sample: what a detector runs to know its past."""
        for earlier in reversed(self.past(name)):
            if earlier is not None:
                yield self.source[earlier]
        yield self.source[name]


def infer_with_past(detector: Detector, samples: Iterable[Sample]) -> Result:
    """The result of the last of the samples that `Timeline.walk` yields, whatever the detector ran before."""
    detector.reset()
    *_, result = (detector.infer_sample(sample) for sample in samples)
    return result


def moment(source: Source, name: str) -> tuple[str, int]:
    """Scene and timestamp (ns) of a sample, without decoding it where the source has a method `moment`."""
    method = getattr(source, "moment", None)
    if method is not None:
        return method(name)
    sample = source[name]
    return sample.scene, sample.timestamp_ns
