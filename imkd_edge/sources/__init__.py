"""Sources of sensor data: folders on disk and the synthetic world, all yielding `Sample`."""

from imkd_edge.sources.base import Sample, Source, Truth
from imkd_edge.sources.open import open_source

__all__ = ["Sample", "Source", "Truth", "open_source"]
