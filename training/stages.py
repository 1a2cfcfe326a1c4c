"""Stages of a training, in order: LiDAR teacher, label encoder, student."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from imkd_edge.errors import Code, Error
from imkd_edge.training.cell_weights import log_reflectance
from imkd_edge.training.checkpoint import LABELS, STUDENT, TEACHER
from imkd_edge.training.config import Config
from imkd_edge.training.data import FrameDataset, collate
from imkd_edge.training.distill import Distiller, freeze
from imkd_edge.training.lidar import LidarGrid
from imkd_edge.training.losses import detection_losses
from imkd_edge.training.models.student import Student
from imkd_edge.training.models.teacher import LabelEncoder, Teacher
from imkd_edge.training.source_weights import SourceWeights
from imkd_edge.training.statistics import measure_statistics
from imkd_edge.training.transfer import Transfer, transfer

Batch = dict[str, torch.Tensor]
STATISTICS_FRAMES = 64  # at most so many examples determine the statistics of batch norms
SCALE_FRAMES = 2000  # at most about so many frames determine the scale of the reflectance


class Stage(nn.Module):
    """One network to train (`network`, which is averaged and stored), its loss, and modules trained beside it."""

    name = ""
    sensors = False  # it reads cameras and radar
    radar = False  # it reads radar without cameras
    lidar = False  # it reads LiDAR
    config: Config
    network: nn.Module

    def losses(self, batch: Batch, epoch: float) -> Batch:
        """Every loss term, and "total", which is minimised. epoch: number of finished epochs, with fraction."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    def forward(self, batch: Batch, epoch: float) -> Batch:
        """Same as `losses`; DDP calls it."""
        return self.losses(batch, epoch)

    def autocast(self) -> torch.autocast:
        """Context in which the networks run in the precision of the config; losses take their outputs in float32.

        Its cache is off: older versions of torch cache weights under no_grad as constants (pytorch #158232).
        """
        precision = getattr(torch, self.config.train.precision)
        return torch.autocast(self.device.type, precision, enabled=precision != torch.float32, cache_enabled=False)

    def prepare(self, dataset: FrameDataset) -> None:
        """Initialises the stage from the data, before the first epoch of a new run."""


class TeacherStage(Stage):
    """LiDAR teacher, trained on the labels; with [teacher] radar it also reads the radar grid."""

    name, lidar = TEACHER, True

    def __init__(self, config: Config):
        super().__init__()
        self.config, self.network = config, Teacher(config.spec, config.teacher)
        self.radar = config.teacher.radar

    def losses(self, batch: Batch, epoch: float) -> Batch:
        with self.autocast():
            out = self.network(batch)
        return detection_losses(_float32(out), batch, self.config.train, self.config.spec.grid.cell)

    def prepare(self, dataset: FrameDataset) -> None:
        """Sets the reflectance scale: 99th percentile of log reflectance over occupied pillars of every n-th frame."""
        lidar, values = LidarGrid.of(self.config.spec), []
        for index in range(0, len(dataset), max(1, len(dataset) // SCALE_FRAMES)):
            reflectance = log_reflectance(torch.from_numpy(lidar(dataset.sample(index).lidar))[None])
            values.append(reflectance[reflectance > 0])
        ordered = torch.cat(values).double().sort().values
        if not len(ordered):
            problem = "no LiDAR return within the grid, in any frame"
            fix = "name data with LiDAR, tell the reader to make it ([data.options], such as lidar = true), "
            fix += "or train without a teacher: remove [distill]"
            raise Error(Code.train_no_data, problem, self.config.data.source, fix)
        self.network.reflectance_scale.fill_(float(ordered[int(0.99 * (len(ordered) - 1))]))


class LabelStage(Stage):
    """Label encoder; the frozen teacher's trunk and head must decode its features to the labels."""

    name = LABELS

    def __init__(self, config: Config, teacher: Teacher):
        super().__init__()
        self.config, self.network, self.teacher = config, LabelEncoder(config.spec, config.teacher), freeze(teacher)

    def train(self, mode: bool = True) -> LabelStage:
        super().train(mode)
        self.teacher.eval()
        return self

    def losses(self, batch: Batch, epoch: float) -> Batch:
        with self.autocast():
            out = self.teacher.predict(self.network(batch))
        return detection_losses(_float32(out), batch, self.config.train, self.config.spec.grid.cell)


class StudentStage(Stage):
    """Student, trained on the labels and, as [distill] says, on a frozen teacher and label encoder."""

    name, sensors = STUDENT, True

    def __init__(self, config: Config, teacher: Teacher | None = None, labels: LabelEncoder | None = None):
        super().__init__()
        self.config, self.network = config, Student(config.spec, config.model)
        self.folded: list[str] = []  # batch norms that `start` took without statistics
        distil = teacher is not None and config.distill.has_terms
        self.distiller = Distiller(config, teacher, labels) if distil else None  # type: ignore[arg-type]
        # In a list, so that torch neither trains nor stores the teacher.
        self.initialisers = [teacher] if teacher is not None and config.distill.inherit else []
        self.lidar = self.distiller is not None

    def start(self, source: SourceWeights) -> Transfer:
        """Takes the weights of a trained student that fit; raises Error train_checkpoint where none does."""
        result = transfer(self.network, self.config.model, source)
        frozen = "camera.backbone." if self.config.model.frozen_backbone else None
        self.folded = [name for name in result.folded if frozen is None or not name.startswith(frozen)]
        if self.initialisers:
            result.notes.append("[distill] inherit: trunk and head, and what else it copies, are the teacher's instead")
        return result

    def prepare(self, dataset: FrameDataset) -> None:
        """Measures the batch norms that `start` took without statistics; copies what [distill] inherit takes.

        With [distill] normalise it also measures the statistics of the teacher's maps.
        """
        if self.folded:
            measure_statistics(self.network, self.folded, self.some_batches(dataset))
        for teacher in self.initialisers:
            self.network.bev.inherit(teacher)
        if self.distiller is not None and self.config.distill.normalise:
            self.distiller.measure(self.some_batches(dataset))

    def some_batches(self, dataset: FrameDataset) -> Iterator[dict]:
        """Batches of at most STATISTICS_FRAMES examples, evenly spaced, as the first epoch trains on them."""
        size = min(self.config.train.batch, len(dataset))
        count = min(STATISTICS_FRAMES, len(dataset))
        indices = [i * len(dataset) // count for i in range(count)]
        for first in range(0, count, size):
            examples = [dataset[i] for i in indices[first : first + size]]
            yield to_device(collate(examples, self.config.spec), self.device)

    def losses(self, batch: Batch, epoch: float) -> Batch:
        with self.autocast():
            out = _float32(self.network(batch))
        terms = detection_losses(out, batch, self.config.train, self.config.spec.grid.cell)
        if self.distiller is not None:
            distilled = self.distiller(out, batch, epoch)
            terms |= {f"distill_{name}": value for name, value in distilled.items()}
            terms["total"] = terms["total"] + sum(distilled.values())
        return terms


def _float32(out: Batch) -> Batch:
    return {name: value.float() for name, value in out.items()}


def to_device(values: Any, device: torch.device) -> Any:
    """Copies the tensors of a batch (nested dictionaries and lists) to a device."""
    if isinstance(values, torch.Tensor):
        return values.to(device, non_blocking=True)
    if isinstance(values, dict):
        return {key: to_device(value, device) for key, value in values.items()}
    return [to_device(value, device) for value in values]
