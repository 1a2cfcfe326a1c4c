"""Drives of a vehicle in motion, in memory: synthetic, at 20 m/s, in turns of 20 degrees/s, with exposures of 40 ms."""

from __future__ import annotations

from collections.abc import Sequence

from imkd_edge.sources.base import Sample, Source
from imkd_edge.sources.synth import SynthSource

MOTION = {"exposure": 0.04, "speed": 20.0, "turn_rate": 20.0}  # s, m/s, degrees/s


class Drive(Source):
    """Samples in memory."""

    kind = "synth"

    def __init__(self, samples: Sequence[Sample]):
        self.samples = {sample.name: sample for sample in samples}
        self.names = list(self.samples)

    def __getitem__(self, name: str) -> Sample:
        return self.samples[name]


def moving_drive(frames: int, **options) -> list[Sample]:
    """The first frames of the world, five of each scene, 0.5 s apart; options: of SynthSource."""
    source = SynthSource(scenes=2, frames_per_scene=5, **{"image": (240, 135), **MOTION, **options})
    return [source[name] for name in source.names[:frames]]
