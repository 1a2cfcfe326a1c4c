"""The golden drive: six frames of a moving vehicle whose sensors fail one after another.

For every test of what runs frame by frame: the detector on each device, replay of graphs, comparing, quantizing.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from imkd_edge.frames import RadarSweep
from imkd_edge.sources.base import Sample, Source
from imkd_edge.sources.synth import SynthSource, default_rig

# What each frame has, in order of time.
NO_IMAGE, WHOLE, NO_CAMERA, NO_POSE, ZERO_PACKET, LAST = range(6)
ABSENT = "CAM_BACK_LEFT"  # in NO_CAMERA
ZEROED = "RADAR_FRONT_LEFT"  # in ZERO_PACKET: its newest sweep holds zeros only
SEED = 5  # 11 m/s, and a turn of 6 to 8 degrees per second
IMAGE = (160, 90)  # px


class GoldenDrive(Source):
    """The drive as a source."""

    kind = "drive"

    def __init__(self) -> None:
        world = SynthSource(seed=SEED, scenes=1, frames_per_scene=6, rig=default_rig(IMAGE), lidar=False)
        self._samples = {sample.name: sample for sample in _with_faults([world[name] for name in world.names])}
        self.names = list(self._samples)
        self.splits = {"all": self.names}

    def __getitem__(self, name: str) -> Sample:
        return self._samples[name]


@functools.cache
def golden_drive() -> GoldenDrive:
    """The drive, rendered once per process."""
    return GoldenDrive()


def _with_faults(samples: list[Sample]) -> list[Sample]:
    samples[NO_IMAGE] = replace(samples[NO_IMAGE], frames={})
    images = {name: image for name, image in samples[NO_CAMERA].frames.items() if name != ABSENT}
    samples[NO_CAMERA] = replace(samples[NO_CAMERA], frames=images)
    sweeps = [replace(sweep, T_world_ego=None) for sweep in samples[NO_POSE].radar]
    samples[NO_POSE] = replace(samples[NO_POSE], ego=None, radar=sweeps)
    samples[ZERO_PACKET] = replace(samples[ZERO_PACKET], radar=_with_zeros(samples[ZERO_PACKET].radar))
    return samples


def _with_zeros(sweeps: list[RadarSweep]) -> list[RadarSweep]:
    newest = max((s for s in sweeps if s.radar == ZEROED), key=lambda sweep: sweep.timestamp_ns or 0)
    return [replace(s, points=np.zeros_like(s.points)) if s is newest else s for s in sweeps]
