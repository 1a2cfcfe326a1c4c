"""Average precision for whatever classes the data has: by centre distance (nuScenes) and by overlap (KITTI).

docs/guide/evaluation.md states the rules. By centre distance: `evaluation.distance`, 0..1. By overlap of the boxes on
the ground plane (bev) and in space (3d): AP at 40 recall points, percent (`average_precision_40`). Objects that no
sensor can see do not count (`nuscenes.counted`); a class without an object that counts has no AP, and is no part of a
mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from imkd_edge.evaluation.detections import LabelledFrame
from imkd_edge.evaluation.distance import DISTANCES, ERROR_DISTANCE, ERRORS, average_precision, mean_errors
from imkd_edge.evaluation.kitti import RECALL_POINTS
from imkd_edge.evaluation.matching import Curve, Pool, match, pool
from imkd_edge.evaluation.nuscenes import counted
from imkd_edge.evaluation.objects import Interval, key_of, range_name, reduce_frame
from imkd_edge.sources.base import Truth

OVERLAPS = (0.25, 0.5, 0.7)  # IoU


@dataclass(frozen=True)
class ClassCounts:
    """The objects of one class in the frames that are measured."""

    objects: int = 0  # that count
    unseen: int = 0  # that do not: no sensor can see them
    detections: int = 0


@dataclass(frozen=True)
class Tally:
    """What the frames have of each class."""

    classes: dict[str, ClassCounts]  # of the model, with an object in the frames: these are scored
    unlearned: dict[str, int]  # label of the data that is no class of the model -> objects
    unlabelled: dict[str, int]  # class of the model without an object in the frames -> detections

    def remarks(self, effect: str = "not scored") -> list[str]:
        """In what data and model differ, one sentence each; `effect` on the scores."""
        result = []
        if self.unlearned:
            result.append(f"the model has no class for {_listed(self.unlearned, 'object')}: {effect}")
        if self.unlabelled:
            result.append(f"no object is labelled as {_listed(self.unlabelled, 'detection')}: {effect}")
        return result


def _listed(counts: Mapping[str, int], noun: str) -> str:
    return ", ".join(f"{name} ({count} {noun}{'' if count == 1 else 's'})" for name, count in counts.items())


def tally(frames: Sequence[LabelledFrame], classes: Mapping[str, str] | None = None) -> Tally:
    """Counts objects and detections by class.

    Args:
        frames: the truth and the detections.
        classes: label of the data -> class of the model; a label that is a class stands for it. None: the model's
            classes are unknown, and every label is one.
    """
    labels = Counter(label for truth, *_ in frames for label in truth.labels)
    detections = Counter(label for *_, names in frames for label in names)
    classes = {label: label for label in (*labels, *detections)} if classes is None else classes
    names = dict.fromkeys(classes.values())
    objects, seen = Counter[str](), Counter[str]()
    for truth, *_ in frames:
        mapped = [classes.get(label, label) for label in truth.labels]
        objects.update(mapped)
        seen.update(label for label, counts in zip(mapped, counted(truth), strict=True) if counts)
    return Tally(
        {n: ClassCounts(seen[n], objects[n] - seen[n], detections[n]) for n in names if objects[n]},
        {label: count for label, count in labels.items() if classes.get(label, label) not in names},
        {n: detections[n] for n in names if not objects[n]},
    )


def evaluate(
    frames: Sequence[LabelledFrame],
    classes: Mapping[str, str] | None = None,
    ranges: Sequence[Interval] = (),
) -> dict[str, float]:
    """Average precision and errors of every class with an object.

    Args:
        frames: per frame the truth and the detections: boxes (M, 9) in the ego frame, scores (M,), labels.
        classes: as of `tally`.
        ranges: intervals of ground distance, m. Objects and unmatched detections outside are ignored; a detection just
            outside may still match an object inside.
    Returns:
        mAP (0..1), mATE m, mASE, mAOE rad, mAVE m/s: means over the classes that have one; then for each class
        `forklift_objects`, `forklift_AP` (0..1, the mean of the next four), `forklift_ap_{0.5,1,2,4}m` (0..1),
        `forklift_{bev,3d}_ap40_iou{25,50,70}` (percent), `forklift_{ATE,ASE,AOE,AVE}`, and all but the errors for each
        range, `forklift_ap_2m_0-20m`. nan where it does not exist.
    """
    result: dict[str, float] = {}
    names = list(tally(frames, classes).classes)
    visible = [_visible(frame, classes or {}) for frame in frames]
    for name in names:
        objects = pool([reduce_frame(index, frame, name) for index, frame in enumerate(visible)])
        values = _precisions(objects)
        for interval in ranges:
            values |= {f"{key}_{range_name(interval)}": v for key, v in _precisions(objects, interval).items()}
        values |= mean_errors(objects, match(objects, ERROR_DISTANCE))
        result |= {f"{key_of(name)}_{key}": value for key, value in values.items()}
    means = {f"m{key}": _mean([result[f"{key_of(name)}_{key}"] for name in names]) for key in ("AP", *ERRORS)}
    return {**means, **result}


def _visible(frame: LabelledFrame, classes: Mapping[str, str]) -> LabelledFrame:
    """A frame with the objects that count, under the model's names of their classes."""
    truth, *detections = frame
    index = np.flatnonzero(counted(truth))
    labels = [classes.get(truth.labels[i], truth.labels[i]) for i in index]
    columns = ("boxes", "occlusion", "radar_points", "lidar_points")
    reduced: Truth = replace(truth, labels=labels, **{name: getattr(truth, name)[index] for name in columns})
    return (reduced, *detections)  # type: ignore[return-value]  # the same three


def _precisions(objects: Pool, interval: Interval | None = None) -> dict[str, float]:
    curves = {limit: match(objects, limit, interval=interval) for limit in DISTANCES}
    by_distance = {f"ap_{limit:g}m": average_precision(curve) for limit, curve in curves.items()}
    by_overlap = {
        f"{kind}_ap40_iou{100 * overlap:.0f}": average_precision_40(match(objects, overlap, kind, interval=interval))
        for kind in ("bev", "3d")
        for overlap in OVERLAPS
    }
    count = curves[ERROR_DISTANCE].objects
    return {"objects": count, "AP": float(np.mean(list(by_distance.values()))), **by_distance, **by_overlap}


def average_precision_40(curve: Curve) -> float:
    """Percent: the mean over the recalls 1/40 ... 1 of the best precision at that recall or a higher one; nan without
    an object.

    Simonelli et al., ICCV 2019, eq. 7, of the whole curve. KITTI's program instead samples 41 scores: `kitti`.
    """
    if not curve.objects:
        return float("nan")
    true = np.cumsum(curve.hits)
    precision = np.append(true / np.arange(1, len(true) + 1), 0)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    recalls = np.arange(1, RECALL_POINTS + 1) / RECALL_POINTS
    return 100 * float(best[np.searchsorted(true / curve.objects, recalls)].mean())


def _mean(values: Sequence[float]) -> float:
    """The mean of those that exist; nan where none does."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
