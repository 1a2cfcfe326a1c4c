"""Objects and detections of one class in one frame, and which of them count: what average precision is taken over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from imkd_edge.evaluation.detections import LabelledFrame
from imkd_edge.evaluation.iou import box_iou

RANGES = ((0.0, 20.0), (20.0, 40.0), (40.0, np.inf))  # m on the ground plane, the upper end excluded
CENTRE = "centre"
ANY_OCCLUSION = 3  # of Truth.occlusion: every object counts

Interval = tuple[float, float]
Mask = Callable[[int, np.ndarray], np.ndarray]  # (frame index, boxes (M, 9)) -> (M,) bool


@dataclass(frozen=True)
class ClassFrame:
    """One frame reduced to one class: G objects, D detections."""

    truth: np.ndarray  # (G, 9)
    occlusion: np.ndarray  # (G,)
    ignored: np.ndarray  # (G,) bool: counts neither as object nor as hit, at any difficulty
    boxes: np.ndarray  # (D, 9)
    scores: np.ndarray  # (D,)
    free: np.ndarray  # (D,) bool: no false positive when unmatched
    affinity: dict[str, np.ndarray]  # "bev", "3d": IoU; "centre": m between centres on the ground plane; (G, D) each
    groups: dict[str, tuple[np.ndarray, np.ndarray]]  # name -> (G,), (D,) bool: its members

    def rules(
        self, level: int = ANY_OCCLUSION, interval: Interval | None = None, group: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(G,) objects to ignore and (D,) detections that are no false positives, at a difficulty, range and group."""
        ignored, free = self.ignored | (self.occlusion > level), self.free
        if group is not None:
            objects, detections = self.groups[group]
            ignored, free = ignored | ~objects, free | ~detections
        if interval is not None:
            ignored, free = ignored | ~_inside(self.truth, interval), free | ~_inside(self.boxes, interval)
        return ignored, free


def _inside(boxes: np.ndarray, interval: Interval) -> np.ndarray:
    r = np.hypot(boxes[:, 0], boxes[:, 1])
    return (r >= interval[0]) & (r < interval[1])


def range_name(interval: Interval) -> str:
    """ "0-20m", or "40m-" without an end."""
    low, high = interval
    return f"{low:g}m-" if np.isinf(high) else f"{low:g}-{high:g}m"


def key_of(label: str) -> str:
    """A class in the names of metrics."""
    return label.replace(" ", "_")


def reduce_frame(
    index: int,
    frame: LabelledFrame,
    label: str,
    ignore_labels: Sequence[str] = (),
    visible: Mask | None = None,
    groups: Mapping[str, Mask] | None = None,
) -> ClassFrame:
    """A frame reduced to one class.

    Args:
        index: of the frame, for the masks.
        frame: the truth and the detections.
        label: the class.
        ignore_labels: classes whose objects a detection may cover without gain or loss.
        visible: False ignores an object, or a detection that matches none; None: none is ignored.
        groups: by name.
    """
    truth, boxes, scores, labels = frame
    relevant = np.array([name == label or name in ignore_labels for name in truth.labels], bool)
    of_class = np.array([name == label for name in labels], bool)
    gt, dt = np.asarray(truth.boxes, np.float64)[relevant], np.asarray(boxes, np.float64).reshape(-1, 9)[of_class]
    other = np.array([name != label for name in truth.labels], bool)[relevant]
    hidden, free = np.zeros(len(gt), bool), np.zeros(len(dt), bool)
    if visible is not None:
        hidden, free = ~visible(index, gt), ~visible(index, dt)
    bev, volume = box_iou(gt, dt)
    distance = np.hypot(gt[:, None, 0] - dt[:, 0], gt[:, None, 1] - dt[:, 1])
    return ClassFrame(
        truth=gt,
        occlusion=np.asarray(truth.occlusion)[relevant],
        ignored=other | hidden,
        boxes=dt,
        scores=np.asarray(scores, np.float64)[of_class],
        free=free,
        affinity={"bev": bev, "3d": volume, CENTRE: distance},
        groups={name: (mask(index, gt), mask(index, dt)) for name, mask in (groups or {}).items()},
    )


def count_objects(frames: Sequence[ClassFrame], level: int = ANY_OCCLUSION, group: str | None = None) -> int:
    """How many objects count at a difficulty, of a group."""
    return sum(int((~frame.rules(level, None, group)[0]).sum()) for frame in frames)
