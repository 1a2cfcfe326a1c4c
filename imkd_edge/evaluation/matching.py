"""Matches detections of one class: in order of score each takes the best free object of its frame within a limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imkd_edge.evaluation.objects import ANY_OCCLUSION, CENTRE, ClassFrame, Interval


@dataclass(frozen=True)
class Pool:
    """One class in all frames: G objects, D detections, and the P pairs of them that are of one frame."""

    everything: ClassFrame  # all frames as one; its affinity and groups are empty
    pairs: np.ndarray  # (P, 2) int: object, detection
    affinity: dict[str, np.ndarray]  # (P,) each, of ClassFrame.affinity


@dataclass(frozen=True)
class Curve:
    """The N detections that count, in order of score, the highest first."""

    detection: np.ndarray  # (N,) int: index in the pool
    truth: np.ndarray  # (N,) int: index of the object that it takes; -1: none
    scores: np.ndarray  # (N,)
    objects: int  # that count

    @property
    def hits(self) -> np.ndarray:
        """(N,) bool."""
        return self.truth >= 0


def pool(frames: Sequence[ClassFrame]) -> Pool:
    """The frames of one class together."""
    pairs, objects, detections = [np.zeros((0, 2), int)], 0, 0
    for frame in frames:
        g, d = np.indices((len(frame.truth), len(frame.boxes))).reshape(2, -1)
        pairs.append(np.stack([g + objects, d + detections], 1))
        objects, detections = objects + len(frame.truth), detections + len(frame.boxes)

    def joined(name: str, empty: np.ndarray) -> np.ndarray:
        return np.concatenate([empty, *(getattr(frame, name) for frame in frames)])

    boxes, numbers, flags = np.zeros((0, 9)), np.zeros(0), np.zeros(0, bool)
    everything = ClassFrame(
        truth=joined("truth", boxes),
        occlusion=joined("occlusion", numbers),
        ignored=joined("ignored", flags),
        boxes=joined("boxes", boxes),
        scores=joined("scores", numbers),
        free=joined("free", flags),
        affinity={},
        groups={},
    )
    kinds = frames[0].affinity if frames else ()
    affinity = {kind: np.concatenate([frame.affinity[kind].ravel() for frame in frames]) for kind in kinds}
    return Pool(everything, np.concatenate(pairs), affinity)


def match(
    pool: Pool,
    limit: float,
    kind: str = CENTRE,
    level: int = ANY_OCCLUSION,
    interval: Interval | None = None,
) -> Curve:
    """Matches the detections of one class.

    Args:
        pool: of the class.
        limit: m that a match is nearer than; for "bev" and "3d" the IoU that it exceeds.
        kind: what is compared: "centre" distance, overlap on the ground plane ("bev") or in space ("3d").
        level, interval: which objects count: `ClassFrame.rules`. A detection that takes another object, or that takes
            none outside the interval, does not count.
    """
    scores = pool.everything.scores
    ignored, free = pool.everything.rules(level, interval)
    order = np.argsort(scores, kind="stable")[::-1]  # of equal scores the last is first, as in nuScenes' devkit
    truth = _matches(pool, limit, kind, order)
    skipped = np.append(ignored, True)[truth]  # meaningless where it takes none
    counts: np.ndarray = np.where(truth >= 0, ~skipped, ~free)
    detection = order[counts[order]]
    return Curve(detection, truth[detection], scores[detection], int((~ignored).sum()))


def _matches(pool: Pool, limit: float, kind: str, order: np.ndarray) -> np.ndarray:
    """(D,) int: the object that each detection takes, -1 for none; `order` of the detections."""
    result, taken = np.full(len(order), -1), np.zeros(len(pool.everything.truth), bool)
    if not len(pool.pairs):
        return result
    sign = 1 if kind == CENTRE else -1  # the smallest value matches best
    cost = sign * pool.affinity[kind]
    near = np.flatnonzero(cost < sign * limit)
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    pairs = pool.pairs[near]
    for g, d in pairs[np.lexsort((pairs[:, 0], cost[near], rank[pairs[:, 1]]))].tolist():
        if result[d] < 0 and not taken[g]:
            result[d], taken[g] = g, True
    return result
