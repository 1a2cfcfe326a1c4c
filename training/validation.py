"""Measures a network while it is trained, on the split that [train] val_split names, and chooses best.pt by it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imkd_edge.errors import Code, Error
from imkd_edge.evaluation.detections import LabelledFrame
from imkd_edge.evaluation.run import check_protocol, choose, measure, predict
from imkd_edge.options import EvalOptions
from imkd_edge.result import Health, Result
from imkd_edge.sources.base import Sample, Source
from imkd_edge.sources.files import file_name
from imkd_edge.sources.select import Selection
from imkd_edge.spec import ModelSpec
from imkd_edge.training.checkpoint import TEACHER
from imkd_edge.training.config import Config
from imkd_edge.training.evaluate import CheckpointDetector

MAIN_METRICS = ("mAP", "mAP_entire_area", "car_3d_ap40_moderate")  # that choose best.pt, in order of preference
PICTURES = "validation"  # folder of a stage, with a folder for each validated epoch


@dataclass
class Best:
    """The best validation of a run."""

    metric: str = ""
    value: float = -math.inf
    epoch: int = 0
    since: int = 0  # validations without a better one

    def update(self, metric: str, value: float, epoch: int) -> bool:
        """Whether a validation is the best one; the first of equal ones is."""
        if value > self.value:
            self.metric, self.value, self.epoch, self.since = metric, value, epoch, 0
            return True
        self.since += 1
        return False


class Validation:
    """Validates a stage of a run every few epochs."""

    def __init__(self, config: Config, stage: str, folder: Path, trained_on: Sequence[str], source: Source | None):
        """Opens the split and checks that its protocol can be measured.

        Args:
            config: of the run.
            stage: teacher or student.
            folder: of the stage, for pictures.
            trained_on: names of the frames that the run trains on; a warning counts those that it is measured on too.
            source: instead of the config's.

        Raises:
            Error: of `choose` and `check_protocol`.
        """
        train, data = config.train, config.data
        self.config, self.folder = config, folder
        self.options = EvalOptions(split=train.val_split)
        read = ("labels", "lidar") if stage == TEACHER else ("labels",)
        options = None if source is not None else data.options
        try:
            selection = choose(data.source if source is None else source, train.val_split, options, None, read)
        except Error as error:  # which does not say who asked for the split
            fix = f"{error.fix}; [train] val_split names it: empty, nothing is measured"
            raise Error(error.code, error.what, error.where, fix) from None
        check_protocol(selection.source, self.options)
        self.selection = Selection(selection.source, spread(selection.names, train.val_limit))
        shared = len(set(self.selection.names) & set(trained_on))
        if shared:
            what = (
                f"{shared} of {len(self.selection)} frames of the validation split '{train.val_split}' are trained on"
            )
            warnings.warn(f"{what}: its numbers say nothing about other frames", stacklevel=2)

    def due(self, epoch: int) -> bool:
        """Whether a validation follows the epoch."""
        return epoch % self.config.train.val_every == 0 or epoch == self.config.train.epochs

    def run(self, state: dict[str, Any]) -> dict[str, Any]:
        """Measures the averaged network of a checkpoint's state; random numbers of the training stay as they are.

        Returns:
            {"split", "frames", "metrics"}, as a line of log.jsonl has it.
        """
        with torch.random.fork_rng(devices=[]):
            detect = CheckpointDetector(state, self.options.score, self.selection.source)
            predictions = predict(self.selection, detect, self.options)
        metrics = measure(predictions, self.options)
        folder = self.folder / PICTURES / f"epoch-{state['epoch']:03d}"
        drawn = spread(list(range(len(predictions.names))), self.config.train.val_pictures or None)
        for index in drawn if self.config.train.val_pictures else []:
            sample = predictions.source[predictions.names[index]]
            draw(folder, sample, predictions.frames[index], detect.spec)
        numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, Real)}
        numbers = {name: round(value, 5) for name, value in numbers.items() if math.isfinite(value)}
        return {"split": self.options.split, "frames": len(predictions.frames), "metrics": numbers}

    def main_metric(self, metrics: dict[str, float]) -> str:
        """The metric that chooses best.pt; empty where the protocol has none of MAIN_METRICS.

        Raises: Error train_config where the one of the config is not measured.
        """
        name = self.config.train.val_metric
        if name and name not in metrics:
            what = f"val_metric '{name}' is not measured on {self.selection.source.kind}"
            raise Error(Code.train_config, what, "[train]", "choose one of: " + ", ".join(sorted(metrics)))
        return name or next((main for main in MAIN_METRICS if main in metrics), "")


def spread(items: list, most: int | None) -> list:
    """At most so many items, evenly spaced; all where the number is 0 or None."""
    if not most or most >= len(items):
        return items
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, most).round()]


def draw(folder: Path, sample: Sample, frame: LabelledFrame, spec: ModelSpec) -> None:
    """Writes FOLDER/FRAME.png: sensors, truth (dashed) and the boxes above the spec's threshold."""
    from imkd_edge.view.draw import overview, write_png

    _, boxes, scores, names = frame
    known = tuple(c.name for c in spec.head.classes)
    shown = np.flatnonzero(np.asarray(scores) >= spec.head.score_threshold)
    labels = np.array([known.index(names[int(i)]) for i in shown], np.int32)
    result = Result(
        timestamp_ns=sample.timestamp_ns,
        boxes=np.asarray(boxes, np.float32)[shown],
        scores=np.asarray(scores, np.float32)[shown],
        labels=labels,
        class_names=known,
        health=_health(sample),
        timings_us={},
        total_us=0.0,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_png(folder / f"{file_name(sample.name)}.png", overview(sample, result, spec))


def _health(sample: Sample) -> Health:
    """Which sensors a sample has; what only a Detector measures is unknown."""
    radars = {sweep.radar for sweep in sample.radar}
    sensors = {camera.name: "ok" if camera.name in sample.frames else "missing" for camera in sample.rig.cameras}
    sensors |= {radar.name: "ok" if radar.name in radars else "missing" for radar in sample.rig.radars}
    mode = "full" if set(sensors.values()) == {"ok"} else "partial"
    return Health(
        mode=mode,
        sensors=sensors,
        radar_points=sum(len(sweep.points) for sweep in sample.radar),
        radar_points_invalid=0,
        radar_points_outside=0,
        radar_points_overflow=0,
        boxes_invalid=0,
        ego_motion="none",
        ego_speed_estimated=False,
        ego_speed=math.nan,
        ego_speed_residual=math.nan,
        past_frames=0,
    )
