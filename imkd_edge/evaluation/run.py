"""A bundle on the labelled frames of a source, measured with the protocol of that data set."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np

from imkd_edge.bundle import Bundle
from imkd_edge.checks.contract import warn_of_source
from imkd_edge.detector import Detector
from imkd_edge.errors import Code, Error
from imkd_edge.evaluation import protocol, radar, segmentation, tracking
from imkd_edge.evaluation.classes import Tally, tally
from imkd_edge.evaluation.classes import evaluate as evaluate_classes
from imkd_edge.evaluation.conditions import condition, original_frame
from imkd_edge.evaluation.detections import Detections, LabelledFrame
from imkd_edge.evaluation.objects import RANGES
from imkd_edge.options import EvalOptions, RunOptions, changed
from imkd_edge.progress import Track
from imkd_edge.sources.base import Sample, Source
from imkd_edge.sources.select import Selection, select, source_name
from imkd_edge.sources.vod import VodSource
from imkd_edge.spec import SCORES
from imkd_edge.tracking import Tracker

RESAMPLED = ("car_bev_ap40_moderate", "car_3d_ap40_moderate")
DEFAULTS, RUN_DEFAULTS = EvalOptions(), RunOptions()

# Detections, and from a model that segments the logits of segmentation.on_grid
Prediction: TypeAlias = Detections | tuple[np.ndarray, np.ndarray, list[str], np.ndarray]


@dataclass(frozen=True)
class Predictions:
    """What a detector predicts for the labelled frames of a selection."""

    source: Source
    names: list[str]  # of the N frames
    frames: list[LabelledFrame]  # N
    tallies: list[np.ndarray]  # segmentation.tally of each frame; none without segmentation
    unlabelled: int = 0  # frames without labels, which are not measured
    classes: Mapping[str, str] | None = None  # label of the data -> class of the model; None: unknown


def evaluate_bundle(
    bundle: str,
    data: str | Source,
    options: EvalOptions = DEFAULTS,
    *,
    source_options: Mapping[str, Any] | None = None,
    run: RunOptions = RUN_DEFAULTS,
    track: Track | None = None,
) -> dict[str, Any]:
    """Runs the Detector over a split and measures its boxes.

    Args:
        bundle: folder or shipped name.
        data: a labelled Source, or the name of one: its folder, or "synth".
        options: which frames, under which condition, what to report. `score` is low by default, because average
            precision needs the whole curve; `resamples` are draws of frames (kitti.bootstrap).
        source_options: of the source's reader.
        run: of the Detector.
        track: wraps the frames, for a progress bar.

    Returns:
        {"dataset", "split", "protocol", "frames", "unlabelled", "metrics", "warnings", with a protocol for any classes
        "classes", "unlearned_labels", "unlabelled_classes", and with resamples "bootstrap": {metric: values}}.
        "protocol" is that of `protocol.protocol_of`: KITTI's AP in percent for Astyx, the official devkit's numbers for
        View-of-Delft (percent) and nuScenes, those of `classes.evaluate` for others. "frames" are measured;
        "unlabelled" is the number of frames that are not, having no labels. "warnings" [{"code", "text"}] say in what
        the data are unlike the bundle's contract.

    Raises:
        Error: those of `check_protocol`, the source and the bundle before any frame runs; train_no_data where no frame
            has labels.
    """
    selection = choose(data, options.split, source_options, options.limit)
    loaded = Bundle.load(bundle, run.trust)
    classes = protocol.classes_of(loaded)
    if options.track:
        _check_track_options(options)
    else:
        check_protocol(selection.source, options, classes)
    unlike = [asdict(item) for item in warn_of_source(loaded, selection.source)]
    rig = selection.source[selection.names[0]].rig
    with Detector(
        loaded, rig, device=run.device, engine=run.engine, threads=run.threads, score_threshold=options.score
    ) as detector:
        if options.track:
            return {**_tracks(selection, detector, options, track), "warnings": unlike}
        predictions = predict(selection, lambda sample: prediction(detector, sample), options, track, classes)
    metrics = measure(predictions, options)
    result = {**summary(predictions, options, metrics), "warnings": unlike}
    if options.resamples and result["protocol"] == protocol.KITTI:
        from imkd_edge.evaluation import kitti

        frames, names = predictions.frames, predictions.names
        result["bootstrap"] = kitti.bootstrap(frames, names, RESAMPLED, options.resamples, kitti.CHUNK)
    return result


def summary(predictions: Predictions, options: EvalOptions, metrics: dict[str, Any]) -> dict[str, Any]:
    """What was measured, on how many frames, with which metrics; see `evaluate_bundle`."""
    name = protocol.protocol_of(predictions.source, options, predictions.classes)
    head = {"dataset": predictions.source.kind, "split": options.split, "protocol": name}
    counts: dict[str, Any] = {"frames": len(predictions.frames), "unlabelled": predictions.unlabelled}
    if name == protocol.CLASSES:
        counts |= _class_counts(tally(predictions.frames, predictions.classes))
    return {**head, **counts, "metrics": metrics}


def _class_counts(counts: Tally) -> dict[str, Any]:
    classes = {name: asdict(values) for name, values in counts.classes.items()}
    return {"classes": classes, "unlearned_labels": counts.unlearned, "unlabelled_classes": counts.unlabelled}


def _check_track_options(options: EvalOptions) -> None:
    foreign = sorted(set(changed(options)) - {"--track", "--split", "--score", "--limit"})
    if foreign:
        what = "these belong to the metrics of single frames"
        raise Error(Code.spec_bad_value, what, ", ".join(foreign), "leave them out, or --track")
    tracking.load_devkit()


def _tracks(
    selection: Selection, detector: Detector, options: EvalOptions, track: Track | None = None
) -> dict[str, Any]:
    """As `summary`, of nuScenes' tracking metrics."""
    frames = tracking.tracked_frames(selection, detector.infer_sample, Tracker(detector.spec), track)
    metrics = tracking.evaluate(frames, tuple(one.name for one in detector.spec.head.classes))
    counts = {"frames": len(frames), "unlabelled": len(selection) - len(frames)}
    head = {"dataset": selection.source.kind, "split": options.split, "protocol": tracking.CONFIGURATION}
    return {**head, **counts, "metrics": metrics}


def prediction(detector: Detector, sample: Sample) -> Prediction:
    """A detector's boxes of a sample, with scores and names, and its segmentation on the grid where it has one."""
    result = detector.infer_sample(sample)
    if result.segmentation is None:
        return result.boxes, result.scores, result.names
    p = result.segmentation.clip(*SCORES)  # a finite logit
    return result.boxes, result.scores, result.names, segmentation.on_grid(np.log(p / (1 - p)), detector.spec.grid)


def choose(
    data: str | Source,
    split: str,
    source_options: Mapping[str, Any] | None = None,
    limit: int | None = None,
    read: Collection[str] = ("labels",),
) -> Selection:
    """The frames of a split; raises Error of `select`, train_no_data where the limit leaves none."""
    selection = select(data, split=None if split == "all" else split, options=source_options, read=read)
    selection = selection.first(limit)
    if not selection.names:
        raise Error(
            Code.train_no_data, f"no frame of the split {split!r} is left", source_name(data), "choose a limit from 1"
        )
    return selection


def check_protocol(source: Source, options: EvalOptions = DEFAULTS, classes: Mapping[str, str] | None = None) -> None:
    """`protocol.check_protocol`: raises Error where the protocol of a source cannot do what the options say."""
    protocol.check_protocol(source, options, classes)


def evaluate(
    selection: Selection,
    detect: Callable[[Sample], Prediction],
    options: EvalOptions = DEFAULTS,
    track: Track | None = None,
    classes: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The metrics of a detector on the labelled frames of a selection.

    Args:
        detect: sample -> Prediction.
        options: its split, score and limit have no effect here.
        track: wraps the frames, for a progress bar.
        classes: label of the data -> class of the model; None: unknown, and every label is one.
    Raises:
        Error of `check_protocol`; train_no_data where no frame has labels.
    """
    check_protocol(selection.source, options, classes)
    return measure(predict(selection, detect, options, track, classes), options)


def predict(
    selection: Selection,
    detect: Callable[[Sample], Prediction],
    options: EvalOptions = DEFAULTS,
    track: Track | None = None,
    classes: Mapping[str, str] | None = None,
) -> Predictions:
    """Runs a detector over a selection under the condition of the options; arguments as of `evaluate`.

    Frames without labels are run, for the models with a history, but not measured: they are counted, and a warning says
    so.

    Raises: Error train_no_data where no frame has labels; spec_bad_value for an unknown condition.
    """
    names, frames, tallies, change = [], [], [], condition(options.condition)
    for sample in selection if track is None else track(selection):
        boxes, scores, labels, *logits = detect(change(sample))
        boxes = original_frame(options.condition, boxes)  # labels and protocols are in the source's frame
        if sample.truth is not None:
            names.append(sample.name)
            frames.append((sample.truth, boxes, scores, labels))
            tallies += [segmentation.tally(sample.truth, values) for values in logits]
    if not frames:
        fix = "evaluate on a labelled recording"
        raise Error(Code.train_no_data, "no frame has labels", selection.source.kind, fix)
    unlabelled = len(selection) - len(frames)
    if unlabelled:
        what = f"{unlabelled} of {len(selection)} frames have no labels: they are not measured"
        warnings.warn(f"{selection.source.kind}: {what}", stacklevel=2)
    return Predictions(selection.source, names, frames, tallies, unlabelled, classes)


def measure(predictions: Predictions, options: EvalOptions = DEFAULTS) -> dict[str, Any]:
    """The metrics of predictions, by the protocol of their source; the options must have passed `check_protocol`."""
    metrics = _box_metrics(predictions, options)
    tallies = predictions.tallies
    return {**metrics, "vehicle_iou": segmentation.vehicle_iou(tallies)} if tallies else metrics


def _box_metrics(predictions: Predictions, options: EvalOptions) -> dict[str, Any]:
    source, names, frames = predictions.source, predictions.names, predictions.frames
    truths = [truth for truth, *_ in frames]
    detections = [(boxes, scores, labels) for _, boxes, scores, labels in frames]
    name = protocol.protocol_of(source, options, predictions.classes)
    if name == protocol.KITTI:
        from imkd_edge.evaluation import kitti

        return kitti.evaluate(
            frames,
            ranges=RANGES if options.per_range else (),
            names=names if options.per_block else None,
            groups=radar.groups([radar.returns(source[name]) for name in names], truths) if options.per_radar else None,
        )
    if name == protocol.VOD:
        from imkd_edge.evaluation import vod

        assert isinstance(source, VodSource)
        return vod.evaluate(source.label_folder, names, [source.rig(name) for name in names], detections)
    effect = "not scored" if name == protocol.CLASSES else "0 in the averages over nuScenes' classes"
    for remark in tally(frames, predictions.classes).remarks(effect):
        warnings.warn(f"{source_name(source)}: {remark}", stacklevel=2)
    if name == protocol.CLASSES:
        return evaluate_classes(frames, predictions.classes, RANGES if options.per_range else ())
    from imkd_edge.evaluation import nuscenes

    metrics = nuscenes.evaluate(truths, detections, classes=getattr(source, "classes", None) or None)
    return {**metrics, "car_recall_visible_40m": nuscenes.recall(truths, detections)}
