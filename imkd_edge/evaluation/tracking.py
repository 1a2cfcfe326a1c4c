"""The nuScenes tracking metrics, by the official devkit's code (nutonomy/nuscenes-devkit, eval/tracking).

The devkit's: matching by centre distance below 2 m, AMOTA and AMOTP over 40 recalls (Weng et al., AB3DMOT, 2020), MOTA,
identity switches and the rest at the score of the best MOTA of each class, the classes and their ranges, and that gaps
of tracks on both sides are interpolated. Ours, because the samples need not be a nuScenes data set on disk:

- Labelled boxes count by `nuscenes.counted`, as for the detection metrics.
- Of more than 500 boxes in a sample the 500 of highest score count (the devkit refuses such a submission).
- **With `classes`, the means are those of these classes alone. Do not compare such numbers with published ones, which
  are averages over nuScenes' seven classes.**
"""

from __future__ import annotations

import unittest
import warnings
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.evaluation.nuscenes import counted
from imkd_edge.progress import Track as Progress
from imkd_edge.result import Result
from imkd_edge.sources.base import Sample, Truth
from imkd_edge.sources.nuscenes import GET_DEVKIT
from imkd_edge.sources.select import Selection
from imkd_edge.tracking import Track, Tracker

CONFIGURATION = "tracking_nips_2019"
# the devkit's metric -> its name here
_NAMES = {name: name.upper() for name in ("amota", "amotp", "mota", "motp", "recall", "ids", "frag", "mt", "ml", "faf")}
_NAMES |= {"gt": "GT", "tp": "TP", "fp": "FP", "fn": "FN"}
SWITCH_RATE = "IDS_per_100_object_s"


@dataclass(frozen=True)
class TrackedFrame:
    """Truth and tracks of one sample."""

    scene: str
    timestamp_ns: int
    T_world_ego: np.ndarray  # (4, 4) float64
    truth: Truth
    instances: Sequence[Hashable]  # track of each box of the truth, unique within the scene
    tracks: Sequence[Track]  # those that are published


def evaluate(frames: Sequence[TrackedFrame], classes: Sequence[str] | None = None) -> dict[str, float]:
    """AMOTA, AMOTP and the rest by the configuration tracking_nips_2019.

    Args:
        frames: in order of time within each scene.
        classes: average over these only, of nuScenes' seven tracking classes; None: the seven.
    Returns:
        AMOTA and MOTA in 0..1, AMOTP and MOTP m, RECALL, IDS, FRAG, MT, ML, FAF, GT, TP, FP, FN;
        IDS_per_100_object_s; then CLASS_AMOTA, CLASS_IDS, ... for each class. All nan where the devkit's own assertion
        about its thresholds fails, which happens with some sets of scores; a warning says so.
    Raises:
        Error: missing_extra without the devkit or what its tracking imports; spec_bad_value where no class of the
            protocol is left.
    """
    devkit = load_devkit()
    config = devkit["config_factory"](CONFIGURATION)
    if classes is not None:
        config.class_names = [name for name in config.class_names if name in classes]
    if not config.class_names:
        what, fix = "none of the classes is evaluated", f"its classes are {', '.join(config.class_range)}"
        raise Error(Code.spec_bad_value, what, CONFIGURATION, fix)
    evaluation = devkit["TrackingEval"].__new__(devkit["TrackingEval"])
    evaluation.cfg, evaluation.verbose, evaluation.output_dir, evaluation.render_classes = config, False, "", []
    evaluation.tracks_gt = _by_scene(devkit, frames, config, truth=True)
    evaluation.tracks_pred = _by_scene(devkit, frames, config, truth=False)
    try:
        metrics, _ = evaluation.evaluate()
    except AssertionError as fault:
        warnings.warn(f"the devkit's tracking evaluation failed: {fault}", stacklevel=2)
        metrics = None
    return _summary(metrics, config, _object_seconds(evaluation.tracks_gt, config))


def tracked_frames(
    selection: Selection, detect: Callable[[Sample], Result], tracker: Tracker, track: Progress | None = None
) -> list[TrackedFrame]:
    """Detects and tracks the objects of a selection; published are the tracks that a frame's boxes belong to.

    Args:
        detect: sample -> Result.
        track: wraps the frames, for a progress bar.
    Raises:
        Error: spec_bad_value where the source does not know which boxes are one object.
    """
    instances = getattr(selection.source, "instances", None)
    if instances is None:
        what = "its labels do not say which boxes are one object"
        raise Error(Code.spec_bad_value, what, f"{selection.source.kind}, --track", "evaluate tracks on synth")
    frames = []
    for sample in selection if track is None else track(selection):
        tracks = tracker.follow(detect(sample), sample.scene).tracks or []
        if sample.truth is None or sample.ego is None or sample.ego.T_world_ego is None:
            continue
        published = [one for one in tracks if one.detection is not None]
        T, ids = np.asarray(sample.ego.T_world_ego), instances(sample.name)
        frames.append(TrackedFrame(sample.scene, sample.timestamp_ns, T, sample.truth, ids, published))
    return frames


def load_devkit() -> dict[str, Any]:
    """Names of the devkit that are used here; raises Error missing_extra."""
    try:
        from nuscenes.eval.common.config import config_factory
        from nuscenes.eval.tracking.data_classes import TrackingBox
        from nuscenes.eval.tracking.evaluate import TrackingEval
        from nuscenes.eval.tracking.loaders import interpolate_tracks
    except (ImportError, unittest.SkipTest) as fault:  # the devkit skips without pandas
        what = f"the nuScenes tracking metrics need nuscenes-devkit, motmetrics and pandas ({fault})"
        fix = f"pip install motmetrics pandas xmltodict; {GET_DEVKIT}"
        raise Error(Code.missing_extra, what, "evaluate", fix) from None
    return {
        "config_factory": config_factory,
        "TrackingBox": TrackingBox,
        "TrackingEval": TrackingEval,
        "interpolate_tracks": interpolate_tracks,
    }


def _by_scene(devkit: dict[str, Any], frames: Sequence[TrackedFrame], config: Any, truth: bool) -> dict[str, Any]:
    """{scene: {time: boxes}} as the devkit's create_tracks: a track's score is its mean, gaps are interpolated."""
    scenes: dict[str, Any] = defaultdict(lambda: defaultdict(list))
    for index, frame in enumerate(frames):
        boxes = _truth_boxes if truth else _track_boxes
        scenes[frame.scene][frame.timestamp_ns // 1000] = boxes(devkit, str(index), frame, config)
    for scene, times in scenes.items():
        if not truth:
            _average_scores(times)
        scenes[scene] = devkit["interpolate_tracks"](times)
    return scenes


def _average_scores(times: dict[int, list[Any]]) -> None:
    scores: dict[str, list[float]] = defaultdict(list)
    for boxes in times.values():
        for box in boxes:
            scores[box.tracking_id].append(box.tracking_score)
    for boxes in times.values():
        for box in boxes:
            box.tracking_score = float(np.mean(scores[box.tracking_id]))


def _truth_boxes(devkit: dict[str, Any], token: str, frame: TrackedFrame, config: Any) -> list[Any]:
    truth = frame.truth
    return [
        _box(devkit, token, frame.T_world_ego, truth.boxes[i], truth.labels[i], str(frame.instances[i]), -1.0)
        for i in np.flatnonzero(counted(truth))
        if _in_range(truth.boxes[i], truth.labels[i], config)
    ]


def _track_boxes(devkit: dict[str, Any], token: str, frame: TrackedFrame, config: Any) -> list[Any]:
    best = sorted(frame.tracks, key=lambda track: -track.score)[: config.max_boxes_per_sample]
    boxes = [(np.concatenate([t.center, t.size, [t.yaw], np.nan_to_num(t.velocity)]), t) for t in best]
    return [
        _box(devkit, token, frame.T_world_ego, box, track.label, str(track.id), track.score)
        for box, track in boxes
        if _in_range(box, track.label, config)
    ]


def _in_range(box: np.ndarray, label: str, config: Any) -> bool:
    return label in config.class_names and bool(np.hypot(box[0], box[1]) < config.class_range[label])


def _box(
    devkit: dict[str, Any], token: str, T_world_ego: np.ndarray, box: np.ndarray, label: str, track: str, score: float
) -> Any:
    x, y, z = T_world_ego[:3, :3] @ box[:3] + T_world_ego[:3, 3]
    yaw = float(box[6] + np.arctan2(T_world_ego[1, 0], T_world_ego[0, 0]))
    vx, vy = T_world_ego[:2, :2] @ np.nan_to_num(box[7:9])
    return devkit["TrackingBox"](
        sample_token=token,
        translation=(float(x), float(y), float(z)),
        size=(float(box[4]), float(box[3]), float(box[5])),
        rotation=(float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))),
        velocity=(float(vx), float(vy)),
        ego_translation=tuple(float(value) for value in box[:3]),
        tracking_id=track,
        tracking_name=label,
        tracking_score=score,
    )


def _object_seconds(scenes: dict[str, Any], config: Any) -> float:
    """Seconds for which labelled objects of the classes are there, summed over the objects; a box lasts one period."""
    total = 0.0
    for times in scenes.values():
        moments = sorted(times)
        period = 1e-6 * float(np.median(np.diff(moments))) if len(moments) > 1 else 0.0
        total += period * sum(box.tracking_name in config.class_names for boxes in times.values() for box in boxes)
    return total


def _summary(metrics: Any, config: Any, object_seconds: float) -> dict[str, float]:
    def value(metric: str, name: str) -> float:
        return float("nan") if metrics is None else float(metrics.compute_metric(metric, name))

    result = {short: value(metric, "all") for metric, short in _NAMES.items()}
    result[SWITCH_RATE] = 100 * result["IDS"] / object_seconds if object_seconds else float("nan")
    return result | {
        f"{name}_{short}": value(metric, name) for name in config.class_names for metric, short in _NAMES.items()
    }
