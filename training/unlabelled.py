"""Frames without labels that teach beside labelled ones: by the terms of the distillation, without detection losses.

Their rivals are frames whose objects a teacher finds, and frames with labels of another source.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from imkd_edge.sources.base import Sample, Source, Truth
from imkd_edge.sources.timeline import moment

PREFIX = "unlabelled/"  # of the names and scenes of such frames


class PartlyLabelled(Source):
    """A source, and after its frames those of another one, without their labels unless `truth` is set."""

    def __init__(self, labelled: Source, unlabelled: Source, names: list[str], truth: bool = False):
        self.labelled, self.unlabelled, self.kind, self.truth = labelled, unlabelled, labelled.kind, truth
        self.intensity, self.traffic = getattr(labelled, "intensity", ""), getattr(labelled, "traffic", "")
        self.names = [*labelled.names, *(PREFIX + name for name in names)]

    def moment(self, name: str) -> tuple[str, int]:
        """Scene and timestamp (ns) of a sample."""
        if is_labelled(name):
            return moment(self.labelled, name)
        scene, timestamp_ns = moment(self.unlabelled, name.removeprefix(PREFIX))
        return PREFIX + scene, timestamp_ns

    def __getitem__(self, name: str) -> Sample:
        if is_labelled(name):
            return self.labelled[name]
        sample = self.unlabelled[name.removeprefix(PREFIX)]
        truth = sample.truth if self.truth else None
        return replace(sample, name=name, scene=PREFIX + sample.scene, truth=truth)


def is_labelled(name: str) -> bool:
    """Whether a frame of a training source has labels."""
    return not name.startswith(PREFIX)


def no_truth() -> Truth:
    """The truth of a world without objects."""
    unknown = np.zeros(0, np.int32)
    return Truth(np.zeros((0, 9)), [], np.zeros(0, np.int8), unknown, unknown)
