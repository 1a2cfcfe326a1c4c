"""The nuScenes detection metrics, by the official devkit's code (nutonomy/nuscenes-devkit, eval/detection).

The devkit's: matching by centre distance, average precision, true-positive errors, the classes' ranges, mAP and NDS,
and that a bicycle or motorcycle whose centre lies in a bicycle rack does not count, labelled or detected.
Ours, because the samples need not be a nuScenes data set on disk:

- Boxes are compared in the ego frame: distances, sizes and differences of angles and velocities are the same there.
  Racks stand upright in it.
- The devkit drops labelled boxes without a LiDAR or radar point. Where LiDAR was not simulated (points -1), a box
  without radar points that is less than 40 % visible is dropped (`counted`).
- Neither truth nor detections have attributes here. Both get the one that follows from class and speed
  (`attribute_of`), so mAAE is the share of confusions of moving and standing, unlike the challenge's mAAE.
- Of more than 500 detections in a sample the 500 of highest score count (the devkit refuses such a submission).
- **With `classes`, mAP, NDS and the mean errors are averages over those classes alone. Do not compare such numbers with
  published ones, which are averages over nuScenes' ten classes.**
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.evaluation.detections import Detections
from imkd_edge.sources.base import HIDDEN, Truth
from imkd_edge.sources.nuscenes import GET_DEVKIT
from imkd_edge.sources.nuscenes.labels import attribute_of

CONFIGURATION = "detection_cvpr_2019"
_NAMES = {"trans_err": "ATE", "scale_err": "ASE", "orient_err": "AOE", "vel_err": "AVE", "attr_err": "AAE"}
# errors that a class does not have
_UNDEFINED = {"traffic_cone": ("attr_err", "vel_err", "orient_err"), "barrier": ("attr_err", "vel_err")}


def evaluate(
    truths: Sequence[Truth], detections: Sequence[Detections], classes: Sequence[str] | None = None
) -> dict[str, float]:
    """mAP, NDS and true-positive errors by the configuration detection_cvpr_2019.

    Args:
        truths: one per sample, boxes in the ego frame.
        detections: one per sample: boxes (M, 9) as in Truth, scores (M,), class names.
        classes: average over these only (a set without some of the ten classes has no AP for them); None: the ten.
    Returns:
        mAP, NDS in 0..1, mATE m, mASE, mAOE rad, mAVE m/s, mAAE; then CLASS_AP, CLASS_ATE, CLASS_ASE, ... for each
        class, nan where the metric does not exist for a class.
    Raises:
        Error: missing_extra without the devkit; spec_bad_value for lists of different length or an unknown class.
    """
    devkit = load_devkit()
    if len(truths) != len(detections):
        what = f"{len(truths)} truths but {len(detections)} detections"
        raise Error(Code.spec_bad_value, what, "evaluate", "give one of each per sample")
    config = devkit["config_factory"](CONFIGURATION)
    _check_labels(classes or (), config, "classes")
    for _, _, labels in detections:
        _check_labels(set(labels), config, "detections")
    if classes is not None:
        config.class_names = [name for name in config.class_range if name in classes]
    gt, dt = devkit["EvalBoxes"](), devkit["EvalBoxes"]()
    for index, (truth, frame) in enumerate(zip(truths, detections)):
        token = str(index)
        gt.add_boxes(token, _outside_racks(devkit, truth.racks, _truth_boxes(devkit, token, truth, config)))
        dt.add_boxes(token, _outside_racks(devkit, truth.racks, _detected_boxes(devkit, token, frame, config)))
    return _summary(devkit, config, gt, dt)


def counted(truth: Truth) -> np.ndarray:
    """(M,) bool: labelled boxes with at least one LiDAR or radar point, the devkit's rule.

    Where LiDAR points are unknown, a box without radar points counts unless its occlusion is 3. Detections of boxes
    that do not count are false positives, so a network should not be trained to detect them.
    """
    radar, lidar = np.maximum(truth.radar_points, 0), np.asarray(truth.lidar_points)
    visible = np.where(lidar < 0, np.asarray(truth.occlusion) != HIDDEN, lidar > 0)
    return (radar > 0) | visible


def recall(
    truths: Sequence[Truth],
    detections: Sequence[Detections],
    label: str = "car",
    max_distance: float = 40.0,
    visible_only: bool = True,
    match: float = 2.0,
    min_score: float = 0.0,
) -> float:
    """Share of a class's objects that are detected, such as the unoccluded cars within 40 m.

    In order of score, each detection takes the nearest free object of its class that is nearer than `match`.

    Args:
        truths, detections: as for `evaluate`.
        label: class.
        max_distance: m from the ego, on the ground; farther objects may be taken but do not count.
        visible_only: count objects of occlusion 0 alone.
        match: largest distance of the centres on the ground, m.
        min_score: detections below it do not count.
    Returns:
        0..1; nan where no object counts.
    """
    hit = total = 0
    for truth, (boxes, scores, labels) in zip(truths, detections, strict=True):
        # objects of the class, and which of them count
        of_class = np.array([name == label for name in truth.labels], bool)
        centres = np.asarray(truth.boxes, float).reshape(-1, 9)[of_class, :2]
        counts = np.hypot(*centres.T) < max_distance
        if visible_only:
            counts &= np.asarray(truth.occlusion)[of_class] == 0

        # greedy matching in order of score
        scores = np.asarray(scores, float)
        candidates = np.flatnonzero(np.array([name == label for name in labels], bool) & (scores >= min_score))
        matched = np.zeros(len(centres), bool)
        for k in candidates[np.argsort(-scores[candidates], kind="stable")]:
            distance = np.where(matched, np.inf, np.hypot(*(centres - np.asarray(boxes)[k, :2]).T))
            if len(distance) and distance.min() < match:
                matched[distance.argmin()] = True
        hit, total = hit + int((matched & counts).sum()), total + int(counts.sum())
    return hit / total if total else float("nan")


def load_devkit() -> dict[str, Any]:
    """Names of the devkit that are used here; raises Error missing_extra."""
    try:
        from nuscenes.eval.common.config import config_factory
        from nuscenes.eval.common.data_classes import EvalBoxes
        from nuscenes.eval.detection import algo, constants, data_classes
        from nuscenes.utils.data_classes import Box
        from nuscenes.utils.geometry_utils import points_in_box
        from pyquaternion import Quaternion
    except ImportError as fault:
        what = f"the nuScenes metrics need nuscenes-devkit ({fault})"
        raise Error(Code.missing_extra, what, "evaluate", GET_DEVKIT) from None
    return {
        "config_factory": config_factory,
        "EvalBoxes": EvalBoxes,
        "Box": Box,
        "Quaternion": Quaternion,
        "points_in_box": points_in_box,
        "algo": algo,
        "constants": constants,
        "data": data_classes,
    }


def _check_labels(labels: Sequence[str] | set[str], config: Any, where: str) -> None:
    unknown = sorted(set(labels) - set(config.class_range))
    if unknown:
        fix = f"its classes are {', '.join(config.class_range)}"
        raise Error(Code.spec_bad_value, f"nuScenes has no class {unknown[0]!r}", where, fix)


def _box(devkit: dict[str, Any], token: str, box: np.ndarray, label: str, score: float) -> Any:
    x, y, z, length, width, height, yaw, vx, vy = (float(v) for v in box)
    return devkit["data"].DetectionBox(
        sample_token=token,
        translation=(x, y, z),
        size=(width, length, height),
        rotation=(float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))),
        velocity=(vx, vy),
        ego_translation=(x, y, z),
        detection_name=label,
        detection_score=score,
        attribute_name=attribute_of(label, float(np.hypot(vx, vy))),
    )


def _in_range(index: np.ndarray, boxes: np.ndarray, labels: Sequence[str], config: Any) -> list[int]:
    """Those of `index` whose class is evaluated and whose box lies within its class's range."""
    distance, limits = np.hypot(boxes[:, 0], boxes[:, 1]), config.class_range
    return [i for i in index if labels[i] in config.class_names and distance[i] < limits[labels[i]]]


def _truth_boxes(devkit: dict[str, Any], token: str, truth: Truth, config: Any) -> list[Any]:
    """Labelled boxes that count, within their class's range."""
    index = _in_range(np.flatnonzero(counted(truth)), truth.boxes, truth.labels, config)
    return [_box(devkit, token, truth.boxes[i], truth.labels[i], -1.0) for i in index]


def _detected_boxes(devkit: dict[str, Any], token: str, detections: Detections, config: Any) -> list[Any]:
    """The detections of highest score, within their class's range."""
    boxes, scores, labels = detections
    boxes, scores = np.asarray(boxes, float).reshape(-1, 9), np.asarray(scores, float)
    best = np.argsort(-scores, kind="stable")[: config.max_boxes_per_sample]
    return [_box(devkit, token, boxes[i], labels[i], float(scores[i])) for i in _in_range(best, boxes, labels, config)]


def _outside_racks(devkit: dict[str, Any], racks: np.ndarray, boxes: list[Any]) -> list[Any]:
    """Boxes without the cycles whose centre lies in a bicycle rack: the devkit's filter_eval_boxes."""
    rotations = [devkit["Quaternion"](axis=[0, 0, 1], radians=float(rack[6])) for rack in racks]
    # the devkit's sizes are width, length, height
    solids = [devkit["Box"](rack[:3], rack[[4, 3, 5]], rotation) for rack, rotation in zip(racks, rotations)]

    def in_rack(box: Any) -> bool:
        centre = np.array(box.translation)[:, None]
        return any(devkit["points_in_box"](solid, centre).any() for solid in solids)

    return [box for box in boxes if not (box.detection_name in ("bicycle", "motorcycle") and in_rack(box))]


def _summary(devkit: dict[str, Any], config: Any, gt: Any, dt: Any) -> dict[str, float]:
    """The devkit's DetectionEval.evaluate, for the configured classes."""
    algo, result = devkit["algo"], {}
    metrics = devkit["data"].DetectionMetrics(config)
    for name in config.class_names:
        for threshold in config.dist_ths:
            data = algo.accumulate(gt, dt, name, config.dist_fcn_callable, threshold)
            metrics.add_label_ap(name, threshold, algo.calc_ap(data, config.min_recall, config.min_precision))
            if threshold != config.dist_th_tp:
                continue
            for metric in devkit["constants"].TP_METRICS:
                defined = metric not in _UNDEFINED.get(name, ())
                error = algo.calc_tp(data, config.min_recall, metric) if defined else np.nan
                metrics.add_label_tp(name, metric, error)
        result[f"{name}_AP"] = float(metrics.mean_dist_aps[name])
        result |= {f"{name}_{short}": float(metrics.get_label_tp(name, metric)) for metric, short in _NAMES.items()}
    means = {f"m{short}": metrics.tp_errors[metric] for metric, short in _NAMES.items()}
    return {"mAP": metrics.mean_ap, "NDS": float(metrics.nd_score), **means, **result}
