"""ModelSpec: the only home of a model's constants."""

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

SCORES = (
    1e-6,
    1 - 1e-6,
)  # least and largest score threshold, as the core checks them: at 0 and 1 the logit is infinite

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
