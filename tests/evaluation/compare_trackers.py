"""Tracker beside CenterPoint's greedy matching, on the same boxes of the synthetic world's validation drives.

PYTHONPATH=tests python -m evaluation.compare_trackers [BUNDLE [FRAMES_PER_SCENE [FRAMES]]] prints two tables: the
nuScenes tracking metrics, and MOTA and IDF1 of the boxes with a score from 0.3, whose objects keep their identity while
they are hidden.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import motmetrics
import numpy as np
from evaluation.greedy_tracker import GreedyTracker

from imkd_edge import Detector, Result, Tracker
from imkd_edge.evaluation.nuscenes import HIDDEN, counted
from imkd_edge.evaluation.tracking import TrackedFrame, evaluate
from imkd_edge.sources.base import Sample, Truth
from imkd_edge.sources.select import select

LOWEST, SCORE = 0.05, 0.3  # of the boxes that are tracked; of those in MOTA and IDF1
RANGE, NEAR = 40.0, 2.0  # m from the ego; from centre to centre of a match
COLUMNS = "AMOTA", "AMOTP", "MOTA", "RECALL", "IDS", "IDS_per_100_object_s"


@dataclass(frozen=True)
class Frame:
    """What the trackers get, and the truth; without the sensors' data."""

    scene: str
    result: Result
    truth: Truth
    instances: Sequence[int]


def detect(bundle: str, frames_per_scene: int, limit: int | None) -> tuple[Any, list[Frame]]:
    """The spec, and the boxes of the validation scenes."""
    selection = select("synth", split="val", options={"frames_per_scene": frames_per_scene})
    names = selection.names[:limit]
    first: Sample = selection.source[names[0]]
    frames = []
    with Detector(bundle, first.rig, threads=1, score_threshold=LOWEST) as detector:
        for name in names:
            sample = selection.source[name]
            result = detector.infer_sample(sample)
            frames.append(Frame(sample.scene, result, sample.truth, selection.source.instances(name)))
        return detector.spec, frames


def tracked(frames: Sequence[Frame], make: Callable[[], Any]) -> list[TrackedFrame]:
    """The tracks of the boxes of each frame; every scene has a new tracker."""
    tracker, scene, found = None, None, []
    for frame in frames:
        if frame.scene != scene:
            tracker, scene = make(), frame.scene
        result = frame.result
        tracks = tracker.update_boxes(result.boxes, result.scores, result.labels, result.timestamp_ns, result.ego)
        published = [track for track in tracks if track.detection is not None]
        T = np.asarray(result.ego.T_world_ego)
        found.append(TrackedFrame(frame.scene, result.timestamp_ns, T, frame.truth, frame.instances, published))
    return found


def identity_metrics(frames: Sequence[Frame], tracks: Sequence[TrackedFrame]) -> dict[str, float]:
    """MOTA, IDF1 and switches by motmetrics, of all scenes and classes together."""
    scenes: dict[str, Any] = defaultdict(lambda: motmetrics.MOTAccumulator(auto_id=True))
    for frame, found in zip(frames, tracks, strict=True):
        near = np.hypot(*frame.truth.boxes[:, :2].T) < RANGE
        rows = np.flatnonzero(near & counted(frame.truth))
        kept = [one for one in found.tracks if frame.result.scores[one.detection] >= SCORE]
        kept = [one for one in kept if np.hypot(*one.center[:2]) < RANGE]
        centers = np.array([one.center[:2] for one in kept]).reshape(-1, 2)
        distances = np.linalg.norm(frame.truth.boxes[rows, None, :2] - centers[None], axis=2)
        labels = np.array([frame.truth.labels[row] for row in rows])
        distances[(distances > NEAR) | (labels[:, None] != np.array([one.label for one in kept], labels.dtype))] = (
            np.nan
        )
        scenes[frame.scene].update([frame.instances[row] for row in rows], [one.id for one in kept], distances)
    host = motmetrics.metrics.create()
    names = ["mota", "idf1", "num_switches"]
    table = host.compute_many(list(scenes.values()), metrics=names, names=list(scenes), generate_overall=True)
    return {name: float(table.loc["OVERALL"][name]) for name in names}


def hidden_for_a_while(frames: Sequence[Frame]) -> tuple[int, int]:
    """Objects within the range that are hidden between two frames in which they are not, and all objects."""
    seen: dict[tuple[str, int], str] = defaultdict(str)  # a letter a frame
    for frame in frames:
        for row in np.flatnonzero(np.hypot(*frame.truth.boxes[:, :2].T) < RANGE):
            seen[frame.scene, frame.instances[row]] += "h" if frame.truth.occlusion[row] == HIDDEN else "v"
    return sum(re.search("vh+v", states) is not None for states in seen.values()), len(seen)


def main(bundle: str = "tiny-t4", frames_per_scene: str = "10", limit: str | None = None) -> None:
    spec, frames = detect(bundle, int(frames_per_scene), None if limit is None else int(limit))
    classes = tuple(one.name for one in spec.head.classes)
    hidden, all_objects = hidden_for_a_while(frames)
    print(f"{len(frames)} frames; {hidden} of {all_objects} objects within {RANGE:.0f} m are hidden for a while")
    for name, make in {"greedy": lambda: GreedyTracker(classes), "Tracker": lambda: Tracker(spec)}.items():
        tracks = tracked(frames, make)
        metrics, identities = evaluate(tracks, classes), identity_metrics(frames, tracks)
        print(name, *(f"{column} {metrics[column]:.3f}" for column in COLUMNS))
        print(name, *(f"{column} {value:.3f}" for column, value in identities.items()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
