"""ModelSpec: the constants of a model, stored nowhere else."""

from imkd_edge._core import (
    BOX_CHANNELS,
    ClassSpec,
    DepthSpec,
    GridSpec,
    HeadSpec,
    HistorySpec,
    ImageSpec,
    ModelSpec,
    RadarFeature,
    RadarSpec,
)

# Least and largest score threshold, as the core checks them: the logit of 0 and of 1 is infinite.
SCORES = (1e-6, 1 - 1e-6)

__all__ = [
    "BOX_CHANNELS",
    "SCORES",
    "ClassSpec",
    "DepthSpec",
    "GridSpec",
    "HeadSpec",
    "HistorySpec",
    "ImageSpec",
    "ModelSpec",
    "RadarFeature",
    "RadarSpec",
]
