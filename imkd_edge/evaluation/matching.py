"""Matches detections of one class: in order of score each takes the best free object of its frame within a limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imkd_edge.evaluation.objects import ANY_OCCLUSION, CENTRE, ClassFrame, Interval


@dataclass(frozen=True)
class Curve:
    """The N detections that count, in order of score, the highest first."""

    frame: np.ndarray  # (N,) int: index of its frame
    detection: np.ndarray  # (N,) int: index in its frame
    truth: np.ndarray  # (N,) int: index of the object that it takes; -1: none
    scores: np.ndarray  # (N,)
    objects: int  # that count

    @property
    def hits(self) -> np.ndarray:
        """(N,) bool."""
        return self.truth >= 0


def match(
    frames: Sequence[ClassFrame],
    limit: float,
    kind: str = CENTRE,
    level: int = ANY_OCCLUSION,
    interval: Interval | None = None,
) -> Curve:
    """Matches the detections of one class.

    Args:
        frames: of the class.
        limit: m that a match is nearer than; for "bev" and "3d" the IoU that it exceeds.
        kind: what is compared: "centre" distance, overlap on the ground plane ("bev") or in space ("3d").
        level, interval: which objects count: `ClassFrame.rules`. A detection that takes another object, or that takes
            none outside the interval, does not count.
    """
    sign = 1 if kind == CENTRE else -1  # the smallest value matches best
    empty = (np.zeros(0, int), np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    columns, objects = [empty], 0
    for index, frame in enumerate(frames):
        ignored, free = frame.rules(level, interval)
        truth = _match_frame(sign * frame.affinity[kind], frame.scores, sign * limit)
        skipped = np.append(ignored, True)[truth]  # meaningless where it takes none
        counts: np.ndarray = np.where(truth >= 0, ~skipped, ~free)
        detection = np.flatnonzero(counts)
        columns.append((np.full(len(detection), index), detection, truth[counts], frame.scores[counts]))
        objects += int((~ignored).sum())
    of_frame, detection, truth, scores = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.argsort(scores, kind="stable")[::-1]  # of equal scores the last is first, as in the devkit
    return Curve(of_frame[order], detection[order], truth[order], scores[order], objects)


def _match_frame(cost: np.ndarray, scores: np.ndarray, limit: float) -> np.ndarray:
    """(D,) int: the object that each detection takes, -1 for none."""
    result = np.full(len(scores), -1)
    near = (cost < limit).any(0)
    cost = cost.copy()
    for d in np.argsort(scores, kind="stable")[::-1]:
        if not near[d]:
            continue
        g = int(cost[:, d].argmin())
        if cost[g, d] < limit:
            result[d], cost[g] = g, np.inf
    return result
