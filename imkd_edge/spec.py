"""ModelSpec: the constants of a model, stored nowhere else."""

from imkd_edge._core import (
    BOX_CHANNELS,
    BOX_SLICES,
    SCORES,
    BoxChannel,
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
    "BOX_SLICES",
    "SCORES",
    "BoxChannel",
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
