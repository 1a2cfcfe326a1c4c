"""A bundle on the labelled frames of a source, measured with the protocol that belongs to the data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from imkd_edge.detector import Detector
from imkd_edge.errors import Code, Error
from imkd_edge.evaluation import segmentation
from imkd_edge.evaluation.conditions import condition as condition_of
from imkd_edge.samples import Selection, infer_sample, select
from imkd_edge.sources.sample import Sample, Truth
from imkd_edge.sources.vod import VodSource

Track = Callable[[Selection], Iterable[Sample]]
Boxes = tuple[np.ndarray, np.ndarray, list[str]]  # boxes (M, 9), scores (M,), labels
Found = Boxes | tuple[np.ndarray, np.ndarray, list[str], np.ndarray]  # and the logits of segmentation.on_grid, from a model that segments
Detected = tuple[Truth, np.ndarray, np.ndarray, list[str]]


def evaluate_bundle(
    bundle: str,
    data: str,
    split: str = "val",
    options: Mapping[str, Any] | None = None,
    score: float = 0.01,
    limit: int | None = None,
    per_range: bool = False,
    per_block: bool = False,
    threads: int = 0,
    device: str = "auto",
    engine: str = "auto",
    condition: str = "none",
    track: Track | None = None,
) -> dict[str, Any]:
    """Runs the Detector over a split and measures its boxes.

    Args:
        bundle: folder or shipped name.
        data: folder of a labelled recording, or "synth".
        split: of the source; "all" takes every frame.
        options: of the source's reader.
        score: boxes below it do not count; low, because average precision needs the whole curve.
        limit: only the first frames.
        per_range, per_block: KITTI protocol also by distance and by run of consecutive frames.
        threads, device, engine: of the Detector.
        condition: what happens to the sensors first, one of conditions.CONDITIONS.
        track: wraps the frames, for a progress bar.

    Returns:
        {"dataset", "split", "frames", "metrics"}: KITTI's AP in percent for Astyx, the official devkit's numbers for
        View-of-Delft (percent), the official nuScenes devkit's for others.

    Raises:
        Error: train_no_data where no frame has labels; those of the source and the bundle.
    """
    chosen = choose(data, split, options, limit)
    rig = chosen.source[chosen.names[0]].rig
    with Detector(bundle, rig, device=device, engine=engine, threads=threads, score_threshold=score) as detector:
        grid = detector.spec.grid

        def detect(sample: Sample) -> Found:
            result = infer_sample(detector, sample)
            if result.segmentation is None:
                return result.boxes, result.scores, result.names
            p = result.segmentation.clip(1e-6, 1 - 1e-6)
            return result.boxes, result.scores, result.names, segmentation.on_grid(np.log(p / (1 - p)), grid)

        metrics = evaluate(chosen, detect, per_range, per_block, condition, track)
    return {"dataset": chosen.source.kind, "split": split, "frames": len(chosen), "metrics": metrics}


def choose(data: str, split: str, options: Mapping[str, Any] | None = None, limit: int | None = None) -> Selection:
    """The frames of a split; raises Error train_no_data where there is none."""
    chosen = select(data, split=None if split == "all" else split, options=options)
    if not chosen.names[:limit]:
        raise Error(Code.train_no_data, f"the split {split!r} has no frame", data, "choose another split")
    return Selection(chosen.source, chosen.names[:limit])


def evaluate(
    chosen: Selection,
    detect: Callable[[Sample], Found],
    per_range: bool = False,
    per_block: bool = False,
    condition: str = "none",
    track: Track | None = None,
) -> dict[str, Any]:
    """The metrics of whatever finds boxes in a sample. Raises Error train_no_data where no frame has labels."""
    names, detected, tallies = run(chosen, detect, condition, track)
    return measure(chosen, names, detected, tallies, per_range, per_block)


def measure(
    chosen: Selection,
    names: list[str],
    detected: list[Detected],
    tallies: list[np.ndarray],
    per_range: bool = False,
    per_block: bool = False,
) -> dict[str, Any]:
    """The metrics of what `run` found."""
    metrics = _boxes(chosen, names, detected, per_range, per_block)
    return {**metrics, "vehicle_iou": segmentation.vehicle_iou(tallies)} if tallies else metrics


def _boxes(chosen: Selection, names: list[str], detected: list[Detected], per_range: bool, per_block: bool) -> dict[str, Any]:
    if chosen.source.kind == "astyx":
        from imkd_edge.evaluation import kitti

        return kitti.evaluate(detected, ranges=kitti.RANGES if per_range else (), names=names if per_block else None)
    if per_range or per_block:
        what, fix = "ranges and blocks belong to KITTI's protocol", "leave --per-range and --per-block out"
        raise Error(Code.spec_bad_value, what, chosen.source.kind, fix)
    if isinstance(chosen.source, VodSource):
        from imkd_edge.evaluation import vod

        rigs = [chosen.source.rig(name) for name in names]
        return vod.evaluate(chosen.source.labels, names, rigs, [item[1:] for item in detected])
    return _nuscenes(chosen, detected)


def run(
    chosen: Selection, detect: Callable[[Sample], Found], condition: str = "none", track: Track | None = None
) -> tuple[list[str], list[Detected], list[np.ndarray]]:
    """Names, truths and detections of the labelled samples; of a model that segments, segmentation.tally of each.

    Raises: Error train_no_data where there is none.
    """
    names, detected, tallies, change = [], [], [], condition_of(condition)
    for sample in chosen if track is None else track(chosen):
        boxes, scores, labels, *logits = detect(change(sample))
        if sample.truth is not None:
            names.append(sample.name)
            detected.append((sample.truth, boxes, scores, labels))
            tallies += [segmentation.tally(sample.truth, values) for values in logits]
    if not detected:
        raise Error(Code.train_no_data, "no frame has labels", chosen.source.kind, "evaluate on a labelled recording")
    return names, detected, tallies


def _nuscenes(chosen: Selection, detected: list[Detected]) -> dict[str, Any]:
    from imkd_edge.evaluation import nuscenes

    truths, found = [item[0] for item in detected], [item[1:] for item in detected]
    metrics = nuscenes.evaluate(truths, found, classes=getattr(chosen.source, "classes", None))
    return {**metrics, "car_recall_visible_40m": nuscenes.recall(truths, found)}
