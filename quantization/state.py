"""What every quantization method starts from: a calibrated float bundle, and the settings of a training."""

from __future__ import annotations

from dataclasses import dataclass

from imkd_edge.bundle.format import Bundle
from imkd_edge.calibration.collect import Collection
from imkd_edge.calibration.frames import Frames
from imkd_edge.errors import Code, Error
from imkd_edge.quantization.graph import Part
from imkd_edge.sources.base import Source


@dataclass(frozen=True)
class Training:
    """Quantization-aware training, or refinement of the scales alone: its length and its learning rates.

    Args:
        steps: of each part.
        batch: frames in a step.
        rate: Adam's for the weights, at the start of half a cosine; for the logarithms of quantizers' steps it is
            `qat.STEP_RATE` times as high.
        seed: of the order of the frames.
        weights: train weights and biases too; otherwise only quantizers' steps.
        radar: share of the radar's map in the weight of the errors, 0..1.
    """

    steps: int = 150
    batch: int = 2
    rate: float = 2e-4
    seed: int = 0
    weights: bool = True
    radar: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or not 0 < self.rate < 1:
            what = f"steps {self.steps}, batch {self.batch}, rate {self.rate}"
            raise Error(Code.spec_bad_value, what, "training", "steps and batch from 1, rate above 0 and below 1")


@dataclass(frozen=True)
class Calibration:
    """A float bundle and the histograms of its tensors on the calibration frames."""

    bundle: Bundle
    parts: dict[str, Part]
    source: Source
    frames: Frames
    collection: Collection
