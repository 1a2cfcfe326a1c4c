"""Average precision and errors by centre distance: nuScenes' definitions, for any class.

Caesar et al., CVPR 2020; nutonomy/nuscenes-devkit, eval/detection/algo.py. In order of score each detection takes the
nearest free object of its class in its frame that is nearer than a limit; precision is interpolated at 101 recall
points, of which those up to 0.1 do not count, nor does precision below 0.1. An error at a recall is the mean over the
true positives of at least that confidence; the errors are averaged over the recall points from 0.11 to the highest that
is reached. Ours: an error is nan where a recall of 0.11 is not reached (the devkit has 1).
"""

from __future__ import annotations

import numpy as np

from imkd_edge.evaluation.matching import Curve, Pool

DISTANCES = (0.5, 1.0, 2.0, 4.0)  # m
ERROR_DISTANCE = 2.0  # m: the errors are those of the detections that this limit matches
ERRORS = ("ATE", "ASE", "AOE", "AVE")  # translation m, size 1 - IoU, orientation rad, velocity m/s
_RECALLS = np.linspace(0, 1, 101)
_FIRST = 11  # index of the first recall point that counts: above 0.1
_MIN_PRECISION = 0.1


def average_precision(curve: Curve) -> float:
    """0..1; nan where no object counts."""
    if not curve.objects:
        return float("nan")
    if not curve.hits.any():
        return 0.0
    true = np.cumsum(curve.hits)
    precision = np.interp(_RECALLS, true / curve.objects, true / np.arange(1, len(true) + 1), right=0)
    mean = float(np.maximum(precision[_FIRST:] - _MIN_PRECISION, 0).mean())
    return min(mean / (1 - _MIN_PRECISION), 1.0)


def mean_errors(pool: Pool, curve: Curve) -> dict[str, float]:
    """ATE, ASE, AOE, AVE of the matches of a curve.

    nan where the recall is too low, and for AVE where no match has a labelled and a detected velocity.
    """
    hits = curve.hits
    if not hits.any():
        return dict.fromkeys(ERRORS, float("nan"))
    recall = np.cumsum(hits) / curve.objects
    confidence = np.interp(_RECALLS, recall, curve.scores, right=0)
    reached = np.flatnonzero(confidence)
    last = int(reached[-1]) if len(reached) else 0
    truth, boxes = pool.everything.truth[curve.truth[hits]], pool.everything.boxes[curve.detection[hits]]
    result = {}
    for name, values in zip(ERRORS, _errors(truth, boxes), strict=True):
        known = np.cumsum(np.isfinite(values))
        mean = np.where(known > 0, np.nancumsum(values) / np.maximum(known, 1), 0)
        at_recall = np.interp(confidence[::-1], curve.scores[hits][::-1], mean[::-1])[::-1]
        enough = last >= _FIRST and known[-1] > 0
        result[name] = float(at_recall[_FIRST : last + 1].mean()) if enough else float("nan")
    return result


def _errors(truth: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, ...]:
    """(M,) each, in the order of ERRORS, of pairs of boxes (M, 9)."""
    offset = boxes - truth
    common = np.minimum(truth[:, 3:6], boxes[:, 3:6]).prod(1)
    union = truth[:, 3:6].prod(1) + boxes[:, 3:6].prod(1) - common
    yaw = np.remainder(offset[:, 6] + np.pi, 2 * np.pi) - np.pi
    translation, velocity = np.hypot(offset[:, 0], offset[:, 1]), np.hypot(offset[:, 7], offset[:, 8])
    return translation, 1 - common / union, np.abs(yaw), velocity
