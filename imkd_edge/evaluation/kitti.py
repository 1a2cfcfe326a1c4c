"""Average precision by the KITTI object protocol (Geiger et al., CVPR 2012) at 40 recall points.

The 40 points: Simonelli et al., ICCV 2019. Difficulty is by occlusion as in the public results on Astyx HiRes2019:
easy 0, moderate up to 1, hard up to 2. Values are percent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

import imkd_edge.ops as ops
from imkd_edge.evaluation.detections import LabelledFrame
from imkd_edge.evaluation.iou import box_iou
from imkd_edge.rig import SensorRig

DIFFICULTIES = {"easy": 0, "moderate": 1, "hard": 2}  # highest occlusion that counts
RANGES = ((0.0, 20.0), (20.0, 40.0), (40.0, np.inf))  # m on the ground plane
CENTER_DISTANCES = (0.5, 1.0, 2.0, 4.0)  # m
RECALL_POINTS = 40
MIN_OVERLAP = 0.5  # IoU that a true positive exceeds
RESAMPLES, CHUNK = 200, 10  # of `bootstrap`: draws, and consecutive frames that are drawn together

Interval = tuple[float, float]
Mask = Callable[[int, np.ndarray], np.ndarray]  # (frame index, boxes (M, 9)) -> (M,) bool


@dataclass(frozen=True)
class _Frame:
    """One sample reduced to one class."""

    truth: np.ndarray  # (G, 9)
    occlusion: np.ndarray  # (G,)
    ignored: np.ndarray  # (G,) bool: counts neither as object nor as hit, at any difficulty
    boxes: np.ndarray  # (D, 9)
    scores: np.ndarray  # (D,)
    free: np.ndarray  # (D,) bool: no false positive when unmatched
    overlap: dict[str, np.ndarray]  # "bev", "3d" -> (G, D)
    groups: dict[str, tuple[np.ndarray, np.ndarray]]  # name -> (G,), (D,) bool: its members


def _reduce(
    index: int,
    frame: LabelledFrame,
    label: str,
    ignore_labels: Sequence[str] = (),
    visible: Mask | None = None,
    groups: Mapping[str, Mask] | None = None,
) -> _Frame:
    truth, boxes, scores, labels = frame
    relevant = np.array([name == label or name in ignore_labels for name in truth.labels], bool)
    of_class = np.array([name == label for name in labels], bool)
    gt, dt = np.asarray(truth.boxes, np.float64)[relevant], np.asarray(boxes, np.float64).reshape(-1, 9)[of_class]
    other = np.array([name != label for name in truth.labels], bool)[relevant]
    hidden, free = np.zeros(len(gt), bool), np.zeros(len(dt), bool)
    if visible is not None:
        hidden, free = ~visible(index, gt), ~visible(index, dt)
    bev, volume = box_iou(gt, dt)
    return _Frame(
        truth=gt,
        occlusion=np.asarray(truth.occlusion)[relevant],
        ignored=other | hidden,
        boxes=dt,
        scores=np.asarray(scores, np.float64)[of_class],
        free=free,
        overlap={"bev": bev, "3d": volume},
        groups={name: (mask(index, gt), mask(index, dt)) for name, mask in (groups or {}).items()},
    )


def _rules(
    frame: _Frame, level: int, interval: Interval | None = None, group: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(G,) objects to ignore and (D,) detections that are no false positives, at a difficulty, range and group."""
    ignored, free = frame.ignored | (frame.occlusion > level), frame.free
    if group is not None:
        objects, detections = frame.groups[group]
        ignored, free = ignored | ~objects, free | ~detections
    if interval is not None:
        inside = [(r >= interval[0]) & (r < interval[1]) for r in (_range(frame.truth), _range(frame.boxes))]
        ignored, free = ignored | ~inside[0], free | ~inside[1]
    return ignored, free


def _objects(frames: list[_Frame], level: int, group: str | None = None) -> int:
    """How many objects count at a difficulty, of a group."""
    return sum(int((~_rules(frame, level, None, group)[0]).sum()) for frame in frames)


def _range(boxes: np.ndarray) -> np.ndarray:
    return np.hypot(boxes[:, 0], boxes[:, 1])


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
    frame: _Frame, kind: str, rules: tuple[np.ndarray, np.ndarray], min_overlap: float, thresholds: np.ndarray
) -> np.ndarray:
    """True and false positives of one frame at each threshold: (2, T)."""
    ignored, free = rules
    unmatched = frame.scores >= thresholds[:, None]  # (T, D) detections
    true = np.zeros(len(thresholds), int)
    rows = np.arange(len(thresholds))
    for row, skip in zip(frame.overlap[kind], ignored if len(frame.scores) else ()):
        best = np.where(unmatched & (row > min_overlap), row, -1.0).argmax(1)
        hit = unmatched[rows, best] & (row[best] > min_overlap)
        unmatched[rows[hit], best[hit]] = False
        true += hit & (not skip)
    return np.stack([true, (unmatched & ~free).sum(1)])


def _ap40(
    frames: list[_Frame],
    kind: str,
    level: int,
    min_overlap: float,
    interval: Interval | None = None,
    group: str | None = None,
) -> float:
    """Average precision in percent over 40 recall points; nan where no object counts."""
    rules = [_rules(frame, level, interval, group) for frame in frames]
    objects = sum(int((~ignored).sum()) for ignored, _ in rules)
    if not objects:
        return float("nan")
    pairs = list(zip(frames, rules))
    scores = [s for f, (ignored, _) in pairs for s in _matched_scores(f.overlap[kind], f.scores, ignored, min_overlap)]
    thresholds = _thresholds(scores, objects)
    if not len(thresholds):
        return 0.0
    true, false = np.sum([_counts(f, kind, rule, min_overlap, thresholds) for f, rule in pairs], axis=0)
    precision = np.zeros(RECALL_POINTS + 1)
    precision[: len(thresholds)] = true / np.maximum(true + false, 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return 100 * float(precision[1:].mean())


def _center_matches(frames: list[_Frame], distance: float) -> tuple[list[tuple[int, int, int]], np.ndarray, int]:
    """Greedy matching by score over all frames, nearest centre first.

    Returns: matches (frame, truth, detection), hits in order of score, number of objects.
    """
    counted = [~(frame.ignored | (frame.occlusion > DIFFICULTIES["hard"])) for frame in frames]
    order = [(-score, f, d) for f, frame in enumerate(frames) for d, score in enumerate(frame.scores)]
    free = [np.ones(len(frame.truth), bool) for frame in frames]
    matches, hits = [], []
    for _, f, d in sorted(order):
        frame = frames[f]
        distances = np.hypot(*(frame.truth[:, :2] - frame.boxes[d, :2]).T)
        distances[~free[f]] = np.inf
        g = int(distances.argmin()) if len(distances) else -1
        hit = g >= 0 and distances[g] < distance
        if hit:
            free[f][g] = False
            if counted[f][g]:
                matches.append((f, g, d))
        if counted[f][g] if hit else not frame.free[d]:
            hits.append(hit)
    return matches, np.array(hits, bool), sum(int(c.sum()) for c in counted)


def _center_ap(frames: list[_Frame], distance: float) -> float:
    """nuScenes' average precision by centre distance: recall and precision below 0.1 do not count."""
    _, hits, objects = _center_matches(frames, distance)
    if not objects:
        return float("nan")
    if not hits.any():
        return 0.0
    true = np.cumsum(hits)
    precision = np.interp(np.linspace(0, 1, 101), true / objects, true / np.arange(1, len(hits) + 1), right=0)
    return 100 * float(np.maximum(precision[11:] - 0.1, 0).mean()) / 0.9


def _errors(frames: list[_Frame], distance: float = 2.0) -> dict[str, float]:
    """Mean absolute error and bias of the detections matched within `distance` m.

    Errors of yaw are modulo half a turn; `turned` is the share of boxes whose heading is reversed.
    """
    matches, _, _ = _center_matches(frames, distance)
    if not matches:
        return {}
    difference = np.array([frames[f].boxes[d, :7] - frames[f].truth[g, :7] for f, g, d in matches])
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
        frames = [_reduce(i, item, label, ignore_labels, visible, groups) for i, item in enumerate(items)]
        values = _class_metrics(frames, min_overlap, ranges, runs if 2 <= len(runs) <= 9 else [], list(groups or {}))
        result |= {f"{label.replace(' ', '_')}_{key}": value for key, value in values.items()}
    return result


def _class_metrics(
    frames: list[_Frame], min_overlap: float, ranges: Sequence[Interval], runs: list[list[int]], groups: list[str]
) -> dict[str, float]:
    result: dict[str, float] = {}
    for kind in ("bev", "3d"):
        for name, level in DIFFICULTIES.items():
            result[f"{kind}_ap40_{name}"] = _ap40(frames, kind, level, min_overlap)
        moderate = DIFFICULTIES["moderate"]
        for low, high in ranges:
            suffix = f"{low:g}m-" if np.isinf(high) else f"{low:g}-{high:g}m"
            result[f"{kind}_ap40_moderate_{suffix}"] = _ap40(frames, kind, moderate, min_overlap, (low, high))
        for number, run in enumerate(runs, 1):
            result[f"{kind}_ap40_moderate_block{number}"] = _ap40([frames[i] for i in run], kind, moderate, min_overlap)
        for group in groups:
            result[f"{kind}_ap40_moderate_{group}"] = _ap40(frames, kind, moderate, min_overlap, None, group)
            result[f"objects_{group}"] = _objects(frames, moderate, group)
    for distance in CENTER_DISTANCES:
        result[f"center_ap_{distance:g}m"] = _center_ap(frames, distance)
    for name, level in DIFFICULTIES.items():
        result[f"objects_{name}"] = _objects(frames, level)
    return result | _errors(frames)


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
        frames = [_reduce(i, item, label) for i, item in enumerate(samples)]
        result[metric] = [_ap40([frames[i] for i in draw], kind, DIFFICULTIES[level], MIN_OVERLAP) for draw in draws]
    return result
