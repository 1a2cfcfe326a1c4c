"""The nuScenes detection metrics, computed by the official devkit's own code (nutonomy/nuscenes-devkit, eval/detection).

What is the devkit's: matching by centre distance, average precision, true-positive errors, the classes' ranges, mAP and NDS, and that
a bicycle or motorcycle whose centre lies in a bicycle rack does not count, labelled or detected.
What is ours, because the samples need not be a nuScenes data set on disk:

- Boxes are compared in the ego frame; distances, sizes and differences of angles and velocities are the same there. Racks stand upright
  in it.
- The devkit drops labelled boxes without a LiDAR or radar point. Where LiDAR was not simulated (points -1), a box is
  dropped that has no radar point and is less than 40 % visible (`counted`).
- Neither truth nor detections carry attributes here. Both get the one that follows from class and speed
  (`attribute_of`), so mAAE says how often moving is told from standing, not what the challenge's mAAE says.
- Of more than 500 detections in a sample the 500 of highest score count (the devkit refuses such a submission).
- **With `classes` given, mAP, NDS and the mean errors are averages over those classes alone. Such numbers must not be put
  beside published ones, which are averages over nuScenes' ten classes.**
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.sources.base import Truth
from imkd_edge.sources.nuscenes import GET_DEVKIT
from imkd_edge.sources.nuscenes.labels import attribute_of

Detections = tuple[np.ndarray, np.ndarray, Sequence[str]]  # boxes (M, 9), scores (M,), labels, of one sample
_NAMES = {"trans_err": "ATE", "scale_err": "ASE", "orient_err": "AOE", "vel_err": "AVE", "attr_err": "AAE"}


def evaluate(
    truths: Sequence[Truth], detections: Sequence[Detections], classes: Sequence[str] | None = None
) -> dict[str, float]:
    """mAP, NDS and true-positive errors by the configuration detection_cvpr_2019.

    Args:
        truths: one per sample, boxes in the ego frame.
        detections: one per sample, boxes (M, 9) as in Truth (x, y, z, l, w, h m, yaw rad, vx, vy m/s), scores (M,), class names.
        classes: average over these only (a set without some of the ten classes has no AP for them); None: the official ten.
    Returns:
        mAP, NDS in 0..1, mATE m, mASE, mAOE rad, mAVE m/s, mAAE; then CLASS_AP, CLASS_ATE, CLASS_ASE, ... for each class,
        nan where the metric does not exist for a class.
    Raises:
        Error: missing_extra without the devkit; spec_bad_value for lists of different length or an unknown class.
    """
    devkit = load_devkit()
    if len(truths) != len(detections):
        raise Error(
            Code.spec_bad_value,
            f"{len(truths)} truths but {len(detections)} detections",
            "evaluate",
            "give one of each per sample",
        )
    config = devkit["config_factory"]("detection_cvpr_2019")
    _check_labels(classes or (), config, "classes")
    for _, _, labels in detections:
        _check_labels(set(labels), config, "detections")
    if classes is not None:
        config.class_names = [name for name in config.class_range if name in classes]
    wanted = set(config.class_names)
    expected, found = devkit["EvalBoxes"](), devkit["EvalBoxes"]()
    for index, (truth, (boxes, scores, labels)) in enumerate(zip(truths, detections)):
        token = str(index)
        expected.add_boxes(token, _outside(devkit, truth.racks, _truth_boxes(devkit, token, truth, config, wanted)))
        found.add_boxes(
            token, _outside(devkit, truth.racks, _found_boxes(devkit, token, boxes, scores, labels, config, wanted))
        )
    return _summary(devkit, config, expected, found)


def counted(truth: Truth) -> np.ndarray:
    """(M,) bool: which labelled boxes some sensor could have seen, the devkit's rule of at least one LiDAR or radar point.

    Where LiDAR points are unknown, a box without radar points counts unless its occlusion is 3. Detections of boxes that do
    not count are false positives, so nothing should be trained to find them.
    """
    radar, lidar = np.maximum(truth.radar_points, 0), np.asarray(truth.lidar_points)
    seen = np.where(lidar < 0, np.asarray(truth.occlusion) != 3, lidar > 0)
    return (radar > 0) | seen


def recall(
    truths: Sequence[Truth],
    detections: Sequence[Detections],
    label: str = "car",
    max_distance: float = 40.0,
    visible_only: bool = True,
    match: float = 2.0,
    min_score: float = 0.0,
) -> float:
    """Share of a class's objects that are found, such as the unoccluded cars within 40 m.

    In order of score, each detection takes the nearest object of its class that is still free and nearer than `match`.

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
        own = np.array([name == label for name in truth.labels], bool)
        centres = np.asarray(truth.boxes, float).reshape(-1, 9)[own, :2]
        counts = np.hypot(*centres.T) < max_distance
        if visible_only:
            counts &= np.asarray(truth.occlusion)[own] == 0
        scores = np.asarray(scores, float)
        chosen = np.flatnonzero(np.array([name == label for name in labels], bool) & (scores >= min_score))
        taken = np.zeros(len(centres), bool)
        for k in chosen[np.argsort(-scores[chosen], kind="stable")]:
            distance = np.where(taken, np.inf, np.hypot(*(centres - np.asarray(boxes)[k, :2]).T))
            if len(distance) and distance.min() < match:
                taken[distance.argmin()] = True
        hit, total = hit + int((taken & counts).sum()), total + int(counts.sum())
    return hit / total if total else float("nan")


def load_devkit() -> dict[str, Any]:
    """What is used of the devkit, by name; raises Error missing_extra, so it is worth asking before the frames run."""
    try:
        from nuscenes.eval.common.config import config_factory
        from nuscenes.eval.common.data_classes import EvalBoxes
        from nuscenes.eval.detection import algo, constants, data_classes
        from nuscenes.utils.data_classes import Box
        from nuscenes.utils.geometry_utils import points_in_box
        from pyquaternion import Quaternion
    except ImportError as fault:
        raise Error(
            Code.missing_extra, f"the nuScenes metrics need nuscenes-devkit ({fault})", "evaluate", GET_DEVKIT
        ) from None
    common = {
        "config_factory": config_factory,
        "EvalBoxes": EvalBoxes,
        "Box": Box,
        "Quaternion": Quaternion,
        "points_in_box": points_in_box,
    }
    return {**common, "algo": algo, "constants": constants, "data": data_classes}


def _check_labels(labels: Sequence[str] | set[str], config: Any, where: str) -> None:
    unknown = sorted(set(labels) - set(config.class_range))
    if unknown:
        raise Error(
            Code.spec_bad_value,
            f"nuScenes has no class {unknown[0]!r}",
            where,
            f"its classes are {', '.join(config.class_range)}",
        )


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


def _truth_boxes(devkit: dict[str, Any], token: str, truth: Truth, config: Any, wanted: set[str]) -> list[Any]:
    """Labelled boxes within their class's range that some sensor could have seen."""
    distance = np.hypot(truth.boxes[:, 0], truth.boxes[:, 1])
    kept = [
        i
        for i in np.flatnonzero(counted(truth))
        if truth.labels[i] in wanted and distance[i] < config.class_range[truth.labels[i]]
    ]
    return [_box(devkit, token, truth.boxes[i], truth.labels[i], -1.0) for i in kept]


def _found_boxes(devkit: dict[str, Any], token: str, boxes, scores, labels, config: Any, wanted: set[str]) -> list[Any]:
    """The highest-scoring detections within their class's range."""
    boxes, scores = np.asarray(boxes, float).reshape(-1, 9), np.asarray(scores, float)
    best = np.argsort(-scores, kind="stable")[: config.max_boxes_per_sample]
    distance = np.hypot(boxes[:, 0], boxes[:, 1])
    kept = [k for k in best if labels[k] in wanted and distance[k] < config.class_range[labels[k]]]
    return [_box(devkit, token, boxes[k], labels[k], float(scores[k])) for k in kept]


def _outside(devkit: dict[str, Any], racks: np.ndarray, boxes: list[Any]) -> list[Any]:
    """Boxes but for cycles whose centre lies in a bicycle rack, as in the devkit's filter_eval_boxes."""
    turned = [devkit["Quaternion"](axis=[0, 0, 1], radians=float(rack[6])) for rack in racks]
    solid = [
        devkit["Box"](rack[:3], rack[[4, 3, 5]], turn) for rack, turn in zip(racks, turned)
    ]  # its sizes are width, length, height

    def parked(box: Any) -> bool:
        centre = np.array(box.translation)[:, None]
        return box.detection_name in ("bicycle", "motorcycle") and any(
            devkit["points_in_box"](rack, centre).any() for rack in solid
        )

    return [box for box in boxes if not parked(box)]


def _summary(devkit: dict[str, Any], config: Any, expected: Any, found: Any) -> dict[str, float]:
    """What the devkit's DetectionEval.evaluate does, for the configured classes."""
    algo, result = devkit["algo"], {}
    metrics = devkit["data"].DetectionMetrics(config)
    for name in config.class_names:
        for threshold in config.dist_ths:
            data = algo.accumulate(expected, found, name, config.dist_fcn_callable, threshold)
            metrics.add_label_ap(name, threshold, algo.calc_ap(data, config.min_recall, config.min_precision))
            if threshold != config.dist_th_tp:
                continue
            for metric in devkit["constants"].TP_METRICS:
                absent = {
                    "traffic_cone": ("attr_err", "vel_err", "orient_err"),
                    "barrier": ("attr_err", "vel_err"),
                }.get(name, ())
                metrics.add_label_tp(
                    name, metric, np.nan if metric in absent else algo.calc_tp(data, config.min_recall, metric)
                )
        result[f"{name}_AP"] = float(metrics.mean_dist_aps[name])
        result |= {f"{name}_{short}": float(metrics.get_label_tp(name, metric)) for metric, short in _NAMES.items()}
    means = {f"m{short}": metrics.tp_errors[metric] for metric, short in _NAMES.items()}
    return {"mAP": metrics.mean_ap, "NDS": float(metrics.nd_score), **means, **result}
