"""A bundle on the labelled frames of a source, measured with the protocol that belongs to the data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from imkd_edge.detector import Detector
from imkd_edge.errors import Code, Error
from imkd_edge.result import Result
from imkd_edge.samples import Selection, infer_sample, select
from imkd_edge.sources.sample import Sample

Track = Callable[[Selection], Iterable[Sample]]


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
    engine: str = "onnxruntime",
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
        track: wraps the frames, for a progress bar.

    Returns:
        {"dataset", "split", "frames", "metrics"}: KITTI's AP in percent for Astyx, the official nuScenes devkit's for others.

    Raises:
        Error: train_no_data where no frame has labels; those of the source and the bundle.
    """
    chosen = select(data, split=None if split == "all" else split, options=options)
    chosen = Selection(chosen.source, chosen.names[:limit])
    if not chosen.names:
        raise Error(Code.train_no_data, f"the split {split!r} has no frame", data, "choose another split")
    samples, results = _detect(chosen, bundle, score, threads, device, engine, track)
    if all(sample.truth is None for sample in samples):
        raise Error(Code.train_no_data, "no frame has labels", data, "evaluate on a labelled recording")
    measure = _kitti if chosen.source.kind == "astyx" else _nuscenes
    metrics = measure(chosen, samples, results, per_range, per_block)
    return {"dataset": chosen.source.kind, "split": split, "frames": len(samples), "metrics": metrics}


def _detect(
    chosen: Selection, bundle: str, score: float, threads: int, device: str, engine: str, track: Track | None
) -> tuple[list[Sample], list[Result]]:
    """All results, with the samples stripped of their images and clouds."""
    samples, results = [], []
    rig = chosen.source[chosen.names[0]].rig
    with Detector(bundle, rig, device=device, engine=engine, threads=threads, score_threshold=score) as detector:
        for sample in chosen if track is None else track(chosen):
            results.append(infer_sample(detector, sample))
            bare = Sample(sample.name, sample.timestamp_ns, sample.rig, {}, [], sample.ego, sample.truth, scene=sample.scene)
            samples.append(bare)
    return samples, results


def _kitti(chosen: Selection, samples: list[Sample], results: list[Result], per_range: bool, per_block: bool) -> dict[str, Any]:
    from imkd_edge.evaluation import kitti

    detected = [
        (sample.truth, result.boxes, result.scores, [entry.label for entry in result.detections])
        for sample, result in zip(samples, results, strict=True)
        if sample.truth is not None
    ]
    names = [sample.name for sample in samples if sample.truth is not None]
    return kitti.evaluate(detected, ranges=kitti.RANGES if per_range else (), names=names if per_block else None)


def _nuscenes(chosen: Selection, samples: list[Sample], results: list[Result], per_range: bool, per_block: bool) -> dict[str, Any]:
    from imkd_edge.evaluation import nuscenes

    if per_range or per_block:
        raise Error(
            Code.spec_bad_value,
            "ranges and blocks belong to KITTI's protocol",
            chosen.source.kind,
            "leave --per-range and --per-block out",
        )
    labelled = [(sample.truth, result) for sample, result in zip(samples, results, strict=True) if sample.truth is not None]
    truths = [truth for truth, _ in labelled]
    detected = [(result.boxes, result.scores, [entry.label for entry in result.detections]) for _, result in labelled]
    metrics = nuscenes.evaluate(truths, detected, classes=getattr(chosen.source, "classes", None))
    return {**metrics, "car_recall_visible_40m": nuscenes.recall(truths, detected)}
