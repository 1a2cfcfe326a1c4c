"""What the metrics take: the detections of a frame, alone and beside its truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from imkd_edge.sources.base import Truth

# boxes (M, 9) x, y, z centre, l, w, h m, yaw rad, vx, vy m/s in the ego frame; scores (M,); M class names
Detections: TypeAlias = tuple[np.ndarray, np.ndarray, Sequence[str]]
LabelledFrame: TypeAlias = tuple[Truth, np.ndarray, np.ndarray, Sequence[str]]  # the truth, and the same three
