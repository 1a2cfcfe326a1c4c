"""Differences of one tensor, and of the boxes, between two forms of a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from imkd_edge.result import Result

MATCH = 1.0  # m, largest distance between the centres of two boxes that match


@dataclass
class Difference:
    """Of one tensor, over all frames."""

    part: str
    name: str
    output: bool
    largest: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    reference: float = 0.0
    count: int = 0

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        """Adds a frame: the reference a, and b of the same shape."""
        reference = a.astype(np.float64)
        difference = np.abs(reference - b)
        difference[np.isnan(difference)] = np.inf  # NaN is above every tolerance
        self.largest = max(self.largest, float(difference.max(initial=0.0)))
        self.total += float(difference.sum())
        self.count += a.size
        self.squares += float((difference**2).sum())
        self.reference += float((reference**2).sum())

    @property
    def nmse(self) -> float:
        """Squared error over squared reference; infinite where only the reference is all zero."""
        return self.squares / self.reference if self.reference else (np.inf if self.squares else 0.0)

    def row(self) -> dict[str, Any]:
        """The tensor's entry of the report; max and mean are of the absolute difference."""
        return {
            "part": self.part,
            "tensor": self.name,
            "output": self.output,
            "max": self.largest,
            "mean": self.total / self.count,
            "nmse": self.nmse,
        }


@dataclass
class Boxes:
    """Agreement of the boxes of both from a score up, over all frames."""

    threshold: float
    a: int = 0
    b: int = 0
    distances: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def add(self, one: Result, other: Result) -> None:
        """Matches each box of the first with the nearest free box of its class in the second."""
        self.a += int((one.scores >= self.threshold).sum())
        self.b += int((other.scores >= self.threshold).sum())
        free = other.scores >= self.threshold
        for box, score, label in zip(one.boxes, one.scores, one.labels, strict=True):
            if score < self.threshold:
                continue
            distance = np.linalg.norm(other.boxes[:, :3] - box[:3], axis=1)
            distance[~free | (other.labels != label)] = np.inf
            if len(distance) and distance.min() <= MATCH:
                best = int(distance.argmin())
                free[best] = False
                self.distances.append(float(distance[best]))
                self.scores.append(abs(float(score - other.scores[best])))

    def row(self) -> dict[str, Any]:
        """Their entry of the report.

        Numbers of boxes and of matches; of matches the mean and largest distance of centres (m) and the largest
        difference of scores.
        """
        row: dict[str, Any] = {"a": self.a, "b": self.b, "matched": len(self.distances)}
        if self.distances:
            row["mean_m"] = float(np.mean(self.distances))
            row["max_m"] = max(self.distances)
            row["max_score"] = max(self.scores)
        return row
