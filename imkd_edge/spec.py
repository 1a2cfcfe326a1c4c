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

__all__ = [
    "BOX_CHANNELS",
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
