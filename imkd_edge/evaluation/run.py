"""A bundle on the labelled frames of a source, measured with the protocol that belongs to the data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from imkd_edge.detector import Detector
from imkd_edge.errors import Code, Error
from imkd_edge.evaluation import radar, segmentation
from imkd_edge.evaluation.conditions import condition as condition_of
from imkd_edge.sources.base import Sample, Source, Truth
from imkd_edge.sources.select import Selection, select
from imkd_edge.sources.vod import VodSource

RESAMPLED = ("car_bev_ap40_moderate", "car_3d_ap40_moderate")
Track = Callable[[Selection], Iterable[Sample]]
Boxes = tuple[np.ndarray, np.ndarray, list[str]]  # boxes (M, 9), scores (M,), labels
Found = (
    Boxes | tuple[np.ndarray, np.ndarray, list[str], np.ndarray]
)  # and the logits of segmentation.on_grid, from a model that segments
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
    per_radar: bool = False,
    threads: int = 0,
    device: str = "auto",
    engine: str = "auto",
    condition: str = "none",
    resamples: int = 0,
    track: Track | None = None,
) -> dict[str, Any]:
    """Runs the Detector over a split and measures its boxes.

    Args:
        bundle: folder or shipped name.
        data: folder of a labelled recording, or "synth".
        split: of the source; "all" takes every frame.
        options: of the source's reader.
        score: boxes below it do not count, as a Detector's score_threshold; low, because average precision needs the whole curve.
        limit: only the first frames.
        per_range, per_block, per_radar: KITTI protocol also by distance, by run of consecutive frames, and by the returns in a box.
        resamples: draws of frames for intervals (kitti.bootstrap), KITTI protocol only.
        threads, device, engine: of the Detector.
        condition: what happens to the sensors first, one of conditions.CONDITIONS.
        track: wraps the frames, for a progress bar.

    Returns:
        {"dataset", "split", "frames", "metrics", and with resamples "bootstrap": {metric: values}}: KITTI's AP in percent for Astyx, the
        official devkit's numbers for View-of-Delft (percent), the official nuScenes devkit's for others.

    Raises:
        Error: those of `check_protocol`, the source and the bundle before any frame runs; train_no_data where no frame has labels.
    """
    chosen = choose(data, split, options, limit)
    check_protocol(chosen.source, per_range, per_block, per_radar)
    rig = chosen.source[chosen.names[0]].rig
    with Detector(bundle, rig, device=device, engine=engine, threads=threads, score_threshold=score) as detector:
        grid = detector.spec.grid

        def detect(sample: Sample) -> Found:
            result = detector.infer_sample(sample)
            if result.segmentation is None:
                return result.boxes, result.scores, result.names
            p = result.segmentation.clip(1e-6, 1 - 1e-6)
            return result.boxes, result.scores, result.names, segmentation.on_grid(np.log(p / (1 - p)), grid)

        names, detected, tallies = run(chosen, detect, condition, track)
    metrics = measure(chosen, names, detected, tallies, per_range, per_block, per_radar)
    result = {"dataset": chosen.source.kind, "split": split, "frames": len(chosen), "metrics": metrics}
    if resamples and chosen.source.kind == "astyx":
        from imkd_edge.evaluation import kitti

        result["bootstrap"] = kitti.bootstrap(detected, names, RESAMPLED, resamples, kitti.CHUNK)
    return result


def choose(data: str, split: str, options: Mapping[str, Any] | None = None, limit: int | None = None) -> Selection:
    """The frames of a split; raises Error of `select`, train_no_data where the limit leaves none."""
    chosen = select(data, split=None if split == "all" else split, options=options)
    if not chosen.names[:limit]:
        raise Error(Code.train_no_data, f"no frame of the split {split!r} is left", data, "choose a limit from 1")
    return Selection(chosen.source, chosen.names[:limit])


def check_protocol(source: Source, per_range: bool = False, per_block: bool = False, per_radar: bool = False) -> None:
    """Asks before the long work what the protocol of a source needs: raises Error spec_bad_value, missing_extra without its devkit."""
    if source.kind == "astyx":
        return
    if per_range or per_block or per_radar:
        what, fix = (
            "ranges, blocks and returns belong to KITTI's protocol",
            "leave --per-range, --per-block and --per-radar out",
        )
        raise Error(Code.spec_bad_value, what, source.kind, fix)
    if isinstance(source, VodSource):
        from imkd_edge.evaluation import vod

        vod.load_devkit()
    else:
        from imkd_edge.evaluation import nuscenes

        nuscenes.load_devkit()


def evaluate(
    chosen: Selection,
    detect: Callable[[Sample], Found],
    per_range: bool = False,
    per_block: bool = False,
    per_radar: bool = False,
    condition: str = "none",
    track: Track | None = None,
) -> dict[str, Any]:
    """The metrics of whatever finds boxes in a sample. Raises Error of `check_protocol`; train_no_data where no frame has labels."""
    check_protocol(chosen.source, per_range, per_block, per_radar)
    names, detected, tallies = run(chosen, detect, condition, track)
    return measure(chosen, names, detected, tallies, per_range, per_block, per_radar)


def measure(
    chosen: Selection,
    names: list[str],
    detected: list[Detected],
    tallies: list[np.ndarray],
    per_range: bool = False,
    per_block: bool = False,
    per_radar: bool = False,
) -> dict[str, Any]:
    """The metrics of what `run` found, by a protocol that `check_protocol` has let pass."""
    metrics = _boxes(chosen, names, detected, per_range, per_block, per_radar)
    return {**metrics, "vehicle_iou": segmentation.vehicle_iou(tallies)} if tallies else metrics


def _boxes(
    chosen: Selection, names: list[str], detected: list[Detected], per_range: bool, per_block: bool, per_radar: bool
) -> dict[str, Any]:
    if chosen.source.kind == "astyx":
        from imkd_edge.evaluation import kitti

        clouds = [radar.returns(chosen.source[name]) for name in names] if per_radar else []
        parts = radar.parts(clouds, [item[0] for item in detected]) if per_radar else None
        return kitti.evaluate(
            detected, ranges=kitti.RANGES if per_range else (), names=names if per_block else None, parts=parts
        )
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
