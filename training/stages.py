"""What is trained, one stage after the other: the LiDAR teacher, the label encoder, the student."""

from __future__ import annotations

import torch
from torch import nn

from imkd_edge.errors import Code, Error
from imkd_edge.training.config import Config
from imkd_edge.training.data import FrameDataset
from imkd_edge.training.distill import Distiller, freeze, log_reflectance
from imkd_edge.training.lidar import LidarGrid
from imkd_edge.training.losses import detection_losses
from imkd_edge.training.models.student import Student
from imkd_edge.training.models.teacher import LabelEncoder, Teacher

Batch = dict[str, torch.Tensor]


class Stage(nn.Module):
    """One network to train (`network`, which is averaged and kept) and its loss; other trained parts hang beside it."""

    name = ""
    sensors = False  # whether it reads cameras and radar
    radar = False  # or radar alone
    lidar = False
    config: Config
    network: nn.Module

    def losses(self, batch: Batch, epoch: float) -> Batch:
        """Every term, and "total", which is minimised. epoch: how many are behind, with fraction."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device

    def forward(self, batch: Batch, epoch: float) -> Batch:
        """As losses; what DDP calls."""
        return self.losses(batch, epoch)

    def autocast(self) -> torch.autocast:
        """In which the trained networks run, in the precision of the config; what they say goes on in float32.

        Without its cache, which in older versions of torch took weights met under no_grad for constants (pytorch #158232).
        """
        precision = getattr(torch, self.config.train.precision)
        return torch.autocast(self.device.type, precision, enabled=precision != torch.float32, cache_enabled=False)

    def prepare(self, dataset: FrameDataset) -> None:
        """Before the first epoch of a new run."""


class TeacherStage(Stage):
    """The LiDAR teacher, which learns to detect from the labels; with [teacher] radar it reads the radar grid too."""

    name, lidar = "teacher", True

    def __init__(self, config: Config):
        super().__init__()
        self.config, self.network = config, Teacher(config.spec, config.teacher)
        self.radar = config.teacher.radar

    def losses(self, batch: Batch, epoch: float) -> Batch:
        with self.autocast():
            out = self.network(batch)
        return detection_losses(_single(out), batch, self.config.train, self.config.spec.grid.cell)

    def prepare(self, dataset: FrameDataset) -> None:
        """The 99th percentile of log reflectance over the occupied pillars of the training set; of a large one, every so many frames."""
        lidar, values = LidarGrid.of(self.config.spec), []
        for index in range(0, len(dataset), max(1, len(dataset) // 2000)):
            seen = log_reflectance(torch.from_numpy(lidar(dataset.sample(index).lidar))[None])
            values.append(seen[seen > 0])
        joined = torch.cat(values).double().sort().values
        if not len(joined):
            fix = "name data with LiDAR, or tell the reader to make it ([data.options], such as lidar = true)"
            raise Error(
                Code.train_no_data, "no LiDAR return within the grid, in any frame", self.config.data.source, fix
            )
        self.network.reflectance_scale.fill_(float(joined[int(0.99 * (len(joined) - 1))]))


class LabelStage(Stage):
    """The label encoder, whose features the frozen teacher's trunk and head must read back as the labels."""

    name = "labels"

    def __init__(self, config: Config, teacher: Teacher):
        super().__init__()
        self.config, self.network, self.teacher = config, LabelEncoder(config.spec, config.teacher), freeze(teacher)

    def train(self, mode: bool = True) -> LabelStage:
        super().train(mode)
        self.teacher.eval()
        return self

    def losses(self, batch: Batch, epoch: float) -> Batch:
        with self.autocast():
            heatmap, box = self.teacher.decide(self.network(batch))
        return detection_losses(
            _single({"heatmap": heatmap, "box": box}), batch, self.config.train, self.config.spec.grid.cell
        )


class StudentStage(Stage):
    """The student, which learns from the labels and, where [distill] says so, from a frozen teacher and label encoder."""

    name, sensors = "student", True

    def __init__(self, config: Config, teacher: Teacher | None = None, labels: LabelEncoder | None = None):
        super().__init__()
        self.config, self.network = config, Student(config.spec, config.model)
        self.distiller = Distiller(config, teacher, labels) if teacher is not None and config.distill.taught else None
        self.forebears = (
            [teacher] if teacher is not None and config.distill.inherit else []
        )  # no part of what is trained or kept
        self.lidar = self.distiller is not None

    def prepare(self, dataset: FrameDataset) -> None:
        """Takes over what it inherits."""
        for teacher in self.forebears:
            self.network.bev.inherit(teacher)

    def losses(self, batch: Batch, epoch: float) -> Batch:
        with self.autocast():
            out = _single(self.network(batch))
        terms = detection_losses(out, batch, self.config.train, self.config.spec.grid.cell)
        if self.distiller is not None:
            distilled = self.distiller(out, batch, epoch)
            terms |= {f"distill_{name}": value for name, value in distilled.items()}
            terms["total"] = terms["total"] + sum(distilled.values())
        return terms


def _single(out: Batch) -> Batch:
    return {name: value.float() for name, value in out.items()}
