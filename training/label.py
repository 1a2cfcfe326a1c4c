"""`imkd-edge label`: a trained teacher, or a student, labels a recording; a person corrects what it wrote."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.checks.contract import spaced
from imkd_edge.errors import Code, Error
from imkd_edge.options import ConvertOptions, LabelOptions
from imkd_edge.progress import Track
from imkd_edge.sources.base import FACTS, Sample, Source, Truth
from imkd_edge.sources.convert import convert
from imkd_edge.sources.select import select, source_name
from imkd_edge.training.checkpoint import CHECKPOINT, TEACHER
from imkd_edge.training.evaluate import CheckpointDetector

DEFAULTS = LabelOptions()
PROBE = 10  # frames that are read to see whether a recording has LiDAR
PASSED_ON = ("path", "splits", *FACTS, "moment", "image_files")  # where a source has them


def label(
    source: str | Source,
    teacher: Path | str,
    folder: Path | str,
    options: LabelOptions = DEFAULTS,
    *,
    source_options: Mapping[str, Any] | None = None,
    track: Track | None = None,
) -> dict[str, Any]:
    """Writes the frames of a source as a drive folder whose objects are those that a trained network finds.

    Labels of the source itself are left out. Each object has its score. The velocity stays unknown: a teacher reads one
    sweep. The same call continues where an earlier one stopped.

    Args:
        source: a Source, or the name of one; for a teacher its frames need LiDAR.
        teacher: folder of a run with a teacher, or a checkpoint.pt of a teacher or a student.
        folder: new, or of an interrupted call.
        options: which frames, and the least score of an object.
        source_options: of the source's reader.
        track: wraps the frame names, for a progress bar.

    Returns:
        What `sources.convert.convert` returns, with "objects", their number in the new frames, and "without_lidar", the
        number of new frames that stay without labels.

    Raises:
        Error: train_checkpoint, train_no_data where the teacher finds no LiDAR; those of the source and of `convert`.
    """
    selection = select(source, options.split, span=options.frames, options=source_options, read=("lidar",))
    labelled = FoundObjects(selection.source, checkpoint_of(Path(teacher)), options.score)
    probe = spaced(selection.names[: options.limit], PROBE)
    if labelled.detect.lidar and all(selection.source[name].lidar is None for name in probe):
        fix = "copy its LiDAR files too, or tell the reader to make it (--option lidar=true)"
        raise Error(Code.train_no_data, "frames without LiDAR, which the teacher reads", source_name(source), fix)
    frames = ConvertOptions(options.split, options.frames, options.limit)
    result = convert(labelled, folder, frames, track=track)
    return {**result, "objects": labelled.objects, "without_lidar": labelled.without_lidar}


def checkpoint_of(path: Path) -> Path:
    """The checkpoint of a run's teacher, of a run without one its student's, or the file itself."""
    names = (path / TEACHER / CHECKPOINT, path / CHECKPOINT, path)
    return next((name for name in names if name.is_file()), path)


class FoundObjects(Source):
    """A source with what a network finds in place of its labels."""

    def __init__(self, source: Source, checkpoint: Path, score: float, labels: Mapping[str, str] | None = None):
        """labels: label of the data -> class of the network; objects get the first label of their class."""
        self.source, self.names, self.objects, self.without_lidar = copy.copy(source), source.names, 0, 0
        self.kind = f"{source.kind}, labelled from a score of {score:g}"  # a folder is continued with the same score
        self.detect = CheckpointDetector(checkpoint, score, source)
        self.classes = [item.name for item in self.detect.spec.head.classes]
        self.label_of = {name: label for label, name in reversed(list((labels or {}).items()))}
        for key in PASSED_ON:
            if hasattr(source, key):
                setattr(self, key, getattr(source, key))

    @property
    def images(self) -> bool:
        """Whether samples have images; the writer of drive folders copies files instead, which a teacher allows."""
        return getattr(self.source, "images", True)

    @images.setter
    def images(self, wanted: bool) -> None:
        if self.detect.lidar is not None:
            self.source.images = wanted  # type: ignore[attr-defined]

    def __getitem__(self, name: str) -> Sample:
        sample = self.source[name]
        if self.detect.lidar and sample.lidar is None:
            self.without_lidar += 1
            return replace(sample, truth=None)
        boxes, scores, labels = self.detect(sample)[:3]
        self.objects += len(boxes)
        return replace(sample, truth=found(boxes, scores, [self.label_of.get(label, label) for label in labels]))


def found(boxes: np.ndarray, scores: np.ndarray, labels: list[str]) -> Truth:
    """Detections as labels: boxes (M,9) of unknown velocity, scores (M,); everything else is unknown."""
    boxes = np.array(boxes, np.float64).reshape(-1, 9)
    boxes[:, 7:] = np.nan
    unknown = np.full(len(boxes), -1, np.int32)
    occlusion = unknown.astype(np.int8)
    return Truth(boxes, list(labels), occlusion, unknown, unknown, scores=np.array(scores, np.float64))
