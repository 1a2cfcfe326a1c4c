"""How well another form of a model reproduces its outputs and boxes; needs no labels.

loss: error of the outputs per expected object. Over all cells the divergence of the heat map (nats) plus, weighted by
the reference's highest probability, half the squared error of the box in units of `tolerances`; divided by the sum of
the reference's probabilities.
agree: soft Jaccard index of the boxes in percent. Sum of min(score) * BEV IoU over matched boxes, by the sum of
max(score) over matched boxes and of the scores of all others.
fap: AP40 with the reference's boxes above the score threshold as truth, by what these boxes themselves reach, percent;
mean over classes and over BEV IoU 0.5, 0.7 and 0.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from imkd_edge.evaluation.detections import Detections
from imkd_edge.evaluation.iou import box_iou
from imkd_edge.evaluation.kitti import ap40
from imkd_edge.evaluation.objects import ANY_OCCLUSION, RANGES, ClassFrame, range_name, reduce_frame
from imkd_edge.sources.base import Truth
from imkd_edge.spec import BOX_CHANNELS, ModelSpec

LOW_SCORE = 0.01  # the detectors' threshold: agree and fap need boxes below the model's own
OVERLAPS = (0.5, 0.7, 0.8)  # BEV IoU of fap
MIN_OVERLAP = 0.1  # BEV IoU of two boxes that match, for agree
MIN_OBJECTS = 20  # of a class; with fewer, fap leaves it out
REACH = 2  # cells around a radar return that radar sees
RADAR = ("unseen", "seen")


def tolerances(spec: ModelSpec) -> np.ndarray:
    """(10,) error of each box channel that starts to matter, in its unit.

    0.3 m in place and height, 0.1 in the logarithms of the size, 0.15 in sine and cosine, 0.5 m/s.
    """
    cell = spec.grid.cell
    return np.array([0.3 / cell, 0.3 / cell, 0.3, 0.1, 0.1, 0.1, 0.15, 0.15, 0.5, 0.5])


def seen_by_radar(radar_grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width) bool: cells of the output with a return within REACH cells; radar_grid (1, F, H, W)."""
    occupied = (radar_grid.reshape(-1, *radar_grid.shape[-2:]) != 0).any(0)
    share = cv2.resize(occupied.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return cv2.dilate(share, np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8)) > 0


@dataclass(frozen=True)
class Outputs:
    """Of one form of the model on one frame."""

    heatmap: np.ndarray  # (K, H, W) logits
    box: np.ndarray  # (groups * 10, H, W)
    detections: Detections  # from LOW_SCORE up

    @classmethod
    def of(cls, spec: ModelSpec, tensors: Mapping[str, np.ndarray], detections: Detections) -> Outputs:
        """From a Detector's tensors after a frame."""
        size = spec.grid.height(), spec.grid.width()
        heatmap, box = (tensors[name].reshape(-1, *size).astype(np.float64) for name in ("heatmap", "box"))
        return cls(heatmap, box, detections)


def cell_errors(spec: ModelSpec, a: Outputs, b: Outputs) -> np.ndarray:
    """(K, H, W) what each class and cell adds to the sum of the loss; a: the reference."""
    p = 1 / (1 + np.exp(-a.heatmap))
    error = p * (a.heatmap - b.heatmap) + np.logaddexp(0, b.heatmap) - np.logaddexp(0, a.heatmap)
    units = tolerances(spec)[:, None, None]
    apart = ((b.box - a.box).reshape(-1, BOX_CHANNELS, *p.shape[1:]) / units) ** 2
    wrong = p.max(0) * apart.sum((0, 1)) / 2
    return error + np.where(p.argmax(0) == np.arange(len(p))[:, None, None], wrong, 0)


class Fidelity:
    """Sums over frames, by class, range and radar."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec, self._classes = spec, [c.name for c in spec.head.classes]
        shape = len(self._classes), len(RANGES), len(RADAR)
        self._error, self._objects = np.zeros(shape), np.zeros(shape)  # of the loss
        self._common, self._united = np.zeros(shape), np.zeros(shape)  # of agree
        self._frames: dict[str, list[tuple[ClassFrame, ClassFrame]]] = {name: [] for name in self._classes}
        self.frames = 0
        grid = spec.grid
        x = grid.x_min + grid.cell * (np.arange(grid.width()) + 0.5)
        y = grid.y_min + grid.cell * (np.arange(grid.height()) + 0.5)
        self._range = _range_index(np.hypot(x, y[:, None]))  # (H, W)

    def add(self, reference: Outputs, other: Outputs, radar_grid: np.ndarray) -> None:
        """Adds a frame; radar_grid (1, F, H, W) of both."""
        seen = seen_by_radar(radar_grid, *self._range.shape)
        self._add_maps(reference, other, seen)
        for k, label in enumerate(self._classes):
            self._add_boxes(k, label, reference.detections, other.detections, seen)
        self.frames += 1

    def _add_maps(self, a: Outputs, b: Outputs, seen: np.ndarray) -> None:
        p, error = 1 / (1 + np.exp(-a.heatmap)), cell_errors(self._spec, a, b)
        index = self._range * len(RADAR) + seen
        for k in range(len(self._classes)):
            for total, values in ((self._error, error[k]), (self._objects, p[k])):
                total[k] += np.bincount(index.ravel(), values.ravel(), total[k].size).reshape(total[k].shape)

    def _add_boxes(self, k: int, label: str, a: Detections, b: Detections, seen: np.ndarray) -> None:
        groups = {name: lambda _, boxes, i=i: self._seen(boxes, seen) == i for i, name in enumerate(RADAR)}
        sure = np.asarray(a[1]) >= self._spec.head.score_threshold
        frames = []
        for boxes, scores, names in (a, b):
            truth = Truth(
                a[0][sure], list(np.array(a[2], object)[sure]), *(np.zeros(sure.sum(), int) for _ in range(3))
            )
            frames.append(reduce_frame(self.frames, (truth, boxes, scores, names), label, groups=groups))
        self._frames[label].append((frames[0], frames[1]))

        one, two = frames
        overlap = box_iou(one.boxes, two.boxes)[0]
        free = np.ones(len(two.boxes), bool)
        for i in np.argsort(-one.scores, kind="stable").tolist():
            candidates = np.where(free, overlap[i], 0.0)
            where = self._where(k, one.boxes[i : i + 1], seen)
            if len(candidates) and candidates.max() > MIN_OVERLAP:
                j = int(candidates.argmax())
                free[j] = False
                self._common[where] += min(one.scores[i], two.scores[j]) * overlap[i, j]
                self._united[where] += max(one.scores[i], two.scores[j])
            else:
                self._united[where] += one.scores[i]
        for j in np.flatnonzero(free).tolist():
            self._united[self._where(k, two.boxes[j : j + 1], seen)] += two.scores[j]

    def _where(self, k: int, box: np.ndarray, seen: np.ndarray) -> tuple[int, int, int]:
        return k, int(_range_index(np.hypot(box[:, 0], box[:, 1]))[0]), int(self._seen(box, seen)[0])

    def _seen(self, boxes: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """(M,) bool, at the centres of boxes (M, 9)."""
        grid = self._spec.grid
        rows = np.floor((boxes[:, 1] - grid.y_min) / grid.cell).astype(int).clip(0, seen.shape[0] - 1)
        columns = np.floor((boxes[:, 0] - grid.x_min) / grid.cell).astype(int).clip(0, seen.shape[1] - 1)
        return seen[rows, columns]

    def row(self) -> dict[str, Any]:
        """{"frames", "loss", "agree", "fap", "by": {class, range or radar: {"loss", "agree", "fap", "objects"}}}.

        None where there is nothing to measure on; "objects" are expected ones of the reference.
        """
        labels = self._classes
        by = {name: self._values(np.s_[k : k + 1], [name]) for k, name in enumerate(labels)}
        for i, interval in enumerate(RANGES):
            by[range_name(interval)] = self._values(np.s_[:, i], labels, interval=interval)
        for i, name in enumerate(RADAR):
            by[name] = self._values(np.s_[:, :, i], labels, group=name)
        whole = self._values(np.s_[:], labels)
        del whole["objects"]
        return {"frames": self.frames, **whole, "by": by}

    def _values(self, part: Any, labels: list[str], **which: Any) -> dict[str, float | None]:
        objects, united = self._objects[part].sum(), self._united[part].sum()
        found = [_percent(self._frames[label], **which) for label in labels]
        measured = [value for value in found if value is not None]
        return {
            "loss": float(self._error[part].sum() / objects) if objects else None,
            "agree": float(100 * self._common[part].sum() / united) if united else None,
            "fap": float(np.mean(measured)) if measured else None,
            "objects": float(objects),
        }


def _range_index(distance: np.ndarray) -> np.ndarray:
    return np.searchsorted([high for _, high in RANGES[:-1]], distance, "right")


def _percent(frames: list[tuple[ClassFrame, ClassFrame]], **which: Any) -> float | None:
    """fap of one class; which: range and group of `ClassFrame.rules`."""
    if sum(int((~one.rules(**which)[0]).sum()) for one, _ in frames) < MIN_OBJECTS:
        return None
    one, two = ([pair[i] for pair in frames] for i in range(2))
    rules = which.get("interval"), which.get("group")
    ratios = [ap40(two, "bev", ANY_OCCLUSION, t, *rules) / ap40(one, "bev", ANY_OCCLUSION, t, *rules) for t in OVERLAPS]
    return 100 * float(np.mean(ratios))
