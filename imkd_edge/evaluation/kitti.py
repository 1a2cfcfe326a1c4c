"""Average precision by the KITTI object protocol (Geiger et al., CVPR 2012) at 40 recall points.

The 40 points: Simonelli et al., ICCV 2019. Difficulty is by occlusion as in the public results on Astyx HiRes2019:
easy 0, moderate up to 1, hard up to 2. Values are percent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

import imkd_edge.ops as ops
from imkd_edge.evaluation.detections import LabelledFrame
from imkd_edge.evaluation.distance import DISTANCES, ERROR_DISTANCE, average_precision
from imkd_edge.evaluation.matching import Pool, match, pool
from imkd_edge.evaluation.objects import ClassFrame, Interval, Mask, count_objects, key_of, range_name, reduce_frame
from imkd_edge.rig import SensorRig

DIFFICULTIES = {"easy": 0, "moderate": 1, "hard": 2}  # highest occlusion that counts
RECALL_POINTS = 40
MIN_OVERLAP = 0.5  # IoU that a true positive exceeds
RESAMPLES, CHUNK = 200, 10  # of `bootstrap`: draws, and consecutive frames that are drawn together


def _matched_scores(overlap: np.ndarray, scores: np.ndarray, ignored: np.ndarray, min_overlap: float) -> list[float]:
    """Scores of the true positives when each object takes the detection of highest score that overlaps it."""
    free, result = np.ones(len(scores), bool), []
    for row, skip in zip(overlap, ignored):
        candidates = np.flatnonzero(free & (row > min_overlap))
        if len(candidates):
            best = candidates[np.argmax(scores[candidates])]
            free[best] = False
            if not skip:
                result.append(float(scores[best]))
    return result


def _thresholds(scores: list[float], objects: int) -> np.ndarray:
    """At most 41 score thresholds whose recall is nearest to 0, 1/40 ... 1: the KITTI devkit's rule."""
    ordered, result, recall = sorted(scores, reverse=True), [], 0.0
    for i, score in enumerate(ordered):
        last = i == len(ordered) - 1
        left, right = (i + 1) / objects, (i + 1 if last else i + 2) / objects
        if last or right - recall >= recall - left:
            result.append(score)
            recall += 1 / RECALL_POINTS
    return np.array(result[: RECALL_POINTS + 1])


def _counts(
    frame: ClassFrame, kind: str, rules: tuple[np.ndarray, np.ndarray], min_overlap: float, thresholds: np.ndarray
) -> np.ndarray:
    """True and false positives of one frame at each threshold: (2, T)."""
    ignored, free = rules
    unmatched = frame.scores >= thresholds[:, None]  # (T, D) detections
    true = np.zeros(len(thresholds), int)
    rows = np.arange(len(thresholds))
    for row, skip in zip(frame.affinity[kind], ignored if len(frame.scores) else ()):
        best = np.where(unmatched & (row > min_overlap), row, -1.0).argmax(1)
        hit = unmatched[rows, best] & (row[best] > min_overlap)
        unmatched[rows[hit], best[hit]] = False
        true += hit & (not skip)
    return np.stack([true, (unmatched & ~free).sum(1)])


def ap40(
    frames: list[ClassFrame],
    kind: str,
    level: int,
    min_overlap: float,
    interval: Interval | None = None,
    group: str | None = None,
) -> float:
    """Average precision in percent over 40 recall points; nan where no object counts."""
    rules = [frame.rules(level, interval, group) for frame in frames]
    objects = sum(int((~ignored).sum()) for ignored, _ in rules)
    if not objects:
        return float("nan")
    pairs = list(zip(frames, rules))
    scores = [s for f, (ignored, _) in pairs for s in _matched_scores(f.affinity[kind], f.scores, ignored, min_overlap)]
    thresholds = _thresholds(scores, objects)
    if not len(thresholds):
        return 0.0
    true, false = np.sum([_counts(f, kind, rule, min_overlap, thresholds) for f, rule in pairs], axis=0)
    precision = np.zeros(RECALL_POINTS + 1)
    precision[: len(thresholds)] = true / np.maximum(true + false, 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return 100 * float(precision[1:].mean())


def _errors(objects: Pool) -> dict[str, float]:
    """Mean absolute error and bias of the detections matched within 2 m.

    Errors of yaw are modulo half a turn; `turned` is the share of boxes whose heading is reversed.
    """
    curve, everything = match(objects, ERROR_DISTANCE, level=DIFFICULTIES["hard"]), objects.everything
    if not curve.hits.any():
        return {}
    difference = (everything.boxes[curve.detection] - everything.truth[curve.truth])[curve.hits]
    yaw = np.remainder(difference[:, 6] + np.pi, 2 * np.pi) - np.pi
    difference[:, 6] = np.remainder(difference[:, 6] + np.pi / 2, np.pi) - np.pi / 2
    result = {"turned": float((np.abs(yaw) > np.pi / 2).mean())}
    for name, column in {"x": 0, "y": 1, "z": 2, "yaw": 6}.items():
        result[f"mae_{name}"] = float(np.abs(difference[:, column]).mean())
        result[f"bias_{name}"] = float(difference[:, column].mean())
    return result


def blocks(names: Sequence[str]) -> list[list[int]]:
    """Indices of runs of consecutive frame numbers; one run where a name is no number."""
    if not all(name.isdecimal() for name in names):
        return [list(range(len(names)))]
    result: list[list[int]] = []
    for i, name in enumerate(names):
        if not i or int(name) != int(names[i - 1]) + 1:
            result.append([])
        result[-1].append(i)
    return result


def in_image(rig: SensorRig, boxes: np.ndarray) -> np.ndarray:
    """(M,) bool: which centres of (M, 7+) boxes in the ego frame project into any image."""
    result = np.zeros(len(boxes), bool)
    for camera in rig.cameras:
        T = np.linalg.inv(np.asarray(camera.T_ego_camera))
        u, v = ops.project(camera, boxes[:, :3] @ T[:3, :3].T + T[:3, 3]).T
        in_width = np.abs(u - (camera.width - 1) / 2) <= camera.width / 2
        in_height = np.abs(v - (camera.height - 1) / 2) <= camera.height / 2
        result |= in_width & in_height
    return result


def evaluate(
    samples: Iterable[LabelledFrame],
    labels: Sequence[str] = ("car",),
    min_overlap: float = MIN_OVERLAP,
    ignore_labels: Sequence[str] = (),
    ranges: Sequence[Interval] = (),
    names: Sequence[str] | None = None,
    visible: Mask | None = None,
    groups: Mapping[str, Mask] | None = None,
) -> dict[str, float]:
    """Average precision of every class, in percent.

    Args:
        samples: per frame the truth and the detections: boxes (M, 9) in the ego frame, scores (M,), labels.
        labels: classes to evaluate.
        min_overlap: IoU that a true positive exceeds.
        ignore_labels: classes whose objects a detection may cover without gain or loss.
        ranges: intervals of ground distance, m, with an AP each. Objects and unmatched detections outside are ignored;
            a detection just outside may still match an object inside.
        names: of the frames; where their numbers make 2 to 9 runs, each run has an AP too.
        visible: False ignores an object, or a detection that matches none; by default none is ignored (see `in_image`).
        groups: by name: each has an AP, as if its members were alone (see `evaluation.radar`).
    Returns:
        for each class `car_{bev,3d}_ap40_{easy,moderate,hard}`, `..._moderate_{0-20m,40m-}`, `..._moderate_block1`,
        `..._moderate_{group}`, `car_objects_{group}`, `car_center_ap_{0.5,1,2,4}m` (nuScenes' rule, all up to hard),
        `car_objects_{easy,moderate,hard}`, and of the detections within 2 m of an object `car_mae_{x,y,z,yaw}`,
        `car_bias_*` (m, rad) and `car_turned` (share with reversed heading).
        nan where there is no object. As in KITTI's devkit an AP cannot reach 100 with 40 objects or fewer.
    """
    items = list(samples)
    runs = blocks(names) if names is not None else []
    result: dict[str, float] = {}
    for label in labels:
        frames = [reduce_frame(i, item, label, ignore_labels, visible, groups) for i, item in enumerate(items)]
        values = _class_metrics(frames, min_overlap, ranges, runs if 2 <= len(runs) <= 9 else [], list(groups or {}))
        result |= {f"{key_of(label)}_{key}": value for key, value in values.items()}
    return result


def _class_metrics(
    frames: list[ClassFrame], min_overlap: float, ranges: Sequence[Interval], runs: list[list[int]], groups: list[str]
) -> dict[str, float]:
    result: dict[str, float] = {}
    for kind in ("bev", "3d"):
        for name, level in DIFFICULTIES.items():
            result[f"{kind}_ap40_{name}"] = ap40(frames, kind, level, min_overlap)
        moderate = DIFFICULTIES["moderate"]
        for interval in ranges:
            name = f"{kind}_ap40_moderate_{range_name(interval)}"
            result[name] = ap40(frames, kind, moderate, min_overlap, interval)
        for number, run in enumerate(runs, 1):
            result[f"{kind}_ap40_moderate_block{number}"] = ap40([frames[i] for i in run], kind, moderate, min_overlap)
        for group in groups:
            result[f"{kind}_ap40_moderate_{group}"] = ap40(frames, kind, moderate, min_overlap, None, group)
            result[f"objects_{group}"] = count_objects(frames, moderate, group)
    objects = pool(frames)
    for distance in DISTANCES:
        curve = match(objects, distance, level=DIFFICULTIES["hard"])
        result[f"center_ap_{distance:g}m"] = 100 * average_precision(curve)
    for name, level in DIFFICULTIES.items():
        result[f"objects_{name}"] = count_objects(frames, level)
    return result | _errors(objects)


def bootstrap(
    samples: Sequence[LabelledFrame],
    names: Sequence[str],
    metrics: Sequence[str],
    count: int,
    chunk: int,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Average precision on frames drawn with replacement, in chunks of consecutive ones.

    The draws depend on the names alone: value i of two models is of the same frames, so differences are paired.

    Args:
        samples, names: as for `evaluate`.
        metrics: of the form car_{bev,3d}_ap40_moderate.
        count: draws.
        chunk: frames that are drawn together, because neighbours are alike.
    Returns:
        `count` values of each metric.
    """
    pieces = [run[i : i + chunk] for run in blocks(names) for i in range(0, len(run), chunk)]
    rng = np.random.default_rng(seed)
    draws = [[i for k in rng.integers(len(pieces), size=len(pieces)) for i in pieces[k]] for _ in range(count)]
    result = {}
    for metric in metrics:
        label, kind, _, level = metric.rsplit("_", 3)
        frames = [reduce_frame(i, item, label) for i, item in enumerate(samples)]
        result[metric] = [ap40([frames[i] for i in draw], kind, DIFFICULTIES[level], MIN_OVERLAP) for draw in draws]
    return result
