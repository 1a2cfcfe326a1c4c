"""Distillation from the LiDAR teacher and the label encoder: which maps of student and teacher the terms compare.

IMKD's form compares the fused maps; the second form (training/README.md) also later ones, each standardised.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional as F

from imkd_edge.training.cell_weights import (
    FOUND,
    fused_weight,
    intensity_map,
    labelled_score,
    near,
    peak_weight,
    radar_active,
    radar_weight,
    seen_map,
)
from imkd_edge.training.config import Config
from imkd_edge.training.models.bev import PRIOR
from imkd_edge.training.models.blocks import conv_bn
from imkd_edge.training.models.teacher import LabelEncoder, Teacher
from imkd_edge.training.sections import DistillConfig
from imkd_edge.training.targets import POSITIVE
from imkd_edge.training.terms import box_difference, mean_divergence, quality_focal, relative_error

Batch = dict[str, torch.Tensor]
BOX_WEIGHT = 0.25  # of the boxes in the response term, beside the heat map
MAPS = {"fused": ["f_fused"], "trunk": ["f_middle", "f_coarse"], "pre-head": ["f_head"]}  # of each level
WIDTHS = {"f_fused": 1, "f_middle": 2, "f_coarse": 4, "f_head": 1}  # channels, in those of the fused map
SENSORS = {"camera": [0], "radar": [1], "both": [0, 1]}  # of [data] sensors, in an example's "seen"


class Standard(nn.Module):
    """N(F) = (F - m) / s per channel, with the mean m and deviation s of a frozen network over the training set.

    It is the identity until `fix` takes m and s from the maps that `add` has seen. A constant channel becomes 0.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("deviation", torch.ones(channels, 1, 1))

        self.sums: list = [0, 0.0, 0.0]  # number of values, their sum and sum of squares (C,)

    def add(self, x: torch.Tensor) -> None:
        """Counts the values of a map (B,C,H,W)."""
        x, (count, total, squares) = x.double(), self.sums
        self.sums = [count + x.numel() // x.shape[1], total + x.sum((0, 2, 3)), squares + x.square().sum((0, 2, 3))]

    def fix(self) -> None:
        """Sets m and s; without a map they stay 0 and 1."""
        count, total, squares = self.sums
        if not count:
            return
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        self.mean.copy_(mean[:, None, None])
        self.deviation.copy_(variance.sqrt().clamp(min=1e-4)[:, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.deviation


class Distiller(nn.Module):
    """Frozen teacher and label encoder, and the adaptors that are trained beside the student."""

    def __init__(self, config: Config, teacher: Teacher, labels: LabelEncoder | None):
        super().__init__()
        self.config: DistillConfig = config.distill
        self.teacher, self.labels = freeze(teacher), None if labels is None else freeze(labels)
        model, target, distill, spec = config.model, config.teacher.channels, config.distill, config.spec
        self.register_buffer("near", near(spec, distill.reach), persistent=False)
        group_of = torch.tensor([c.group for c in spec.head.classes])
        self.register_buffer("group_of", group_of, persistent=False)
        self.maps = [name for level in distill.levels for name in MAPS[level]]
        self.sensors = SENSORS[config.data.sensors]
        statistics = [feature.statistic for feature in spec.radar.features]
        self.count = statistics.index("log_count") if distill.radar_active else 0
        self.nothing = -spec.radar.features[self.count].offset * spec.radar.features[self.count].scale  # of no return

        # The inherited trunk and head take the student's map like the teacher's.
        same, channels = distill.inherit and not distill.groups, model.bev_channels
        half = channels // 2 if distill.groups else channels
        self.groups = {"f_fused": slice(0, half), "f_label": slice(channels - half, channels)}
        sizes = {name: (half if name == "f_fused" else channels * WIDTHS[name], target * WIDTHS[name])
                 for name in self.maps}  # fmt: skip
        norm = distill.normalise
        self.fused = nn.ModuleDict({name: adaptor(*size, same, norm) for name, size in sizes.items()})
        self.label = adaptor(half, target, same, norm)
        features = distill.radar_target == "features"
        sensor = model.sensor_channels
        self.radar = adaptor(sensor, target, False, norm) if features else heatmap_head(sensor)
        widths = {name: target * WIDTHS[name] for name in ("f_fused", *self.maps)} | {"f_label": target}
        self.standard = nn.ModuleDict({name: Standard(width) for name, width in widths.items()} if norm else {})

    def train(self, mode: bool = True) -> Distiller:
        super().train(mode)
        self.teacher.eval()
        if self.labels is not None:
            self.labels.eval()
        return self

    @torch.no_grad()
    def targets(self, batch: Batch) -> Batch:
        """Outputs and maps of teacher and label encoder, standardised where the config says so; f_lidar stays raw."""
        targets = self.teacher(batch)
        targets["f_fused"] = targets["f_lidar"]
        if self.config.label and self.labels is not None:
            targets["f_label"] = self.labels(batch)
        return {name: self.standard[name](x) if name in self.standard else x for name, x in targets.items()}

    def measure(self, batches: Iterable[Batch]) -> None:
        """Measures the statistics of the teacher's and the label encoder's maps on batches of the training set."""
        for batch in batches if self.standard else ():
            for name, x in self.targets(batch).items():
                if name in self.standard:
                    self.standard[name].add(x)
        for standard in self.standard.values():
            standard.fix()

    def forward(self, student: Batch, batch: Batch, epoch: float) -> Batch:
        """The active terms, each times its weight and the ramp. epoch: number of finished epochs, with fraction."""
        config = self.config
        teacher = self.targets(batch)
        intensity = intensity_map(
            config.intensity, batch["lidar_grid"], teacher["f_lidar"], self.teacher.reflectance_scale
        )
        terms = {}
        if config.radar:
            terms["radar"] = self.radar_term(student, teacher, batch, intensity)
        if config.fused:
            terms["fused"] = self.fused_term(student, teacher, batch, intensity)
        if "f_label" in teacher:
            terms["label"] = self.label_term(student, teacher, batch)
        if config.response:
            terms["response"] = self.response_term(student, teacher, batch)
        ramp = min(1.0, epoch / config.ramp) if config.ramp > 0 else 1.0
        return {name: value * ramp * getattr(config, name) for name, value in terms.items()}

    def where(self, batch: Batch, sensors: list[int]) -> torch.Tensor:
        """1 within the reach, in examples that have what is to learn from: (B,1,H,W)."""
        size = self.near.shape[-2:]
        where = self.near.expand(len(batch["label"]), -1, *size)
        return where * seen_map(batch, sensors, size) if self.config.seen else where

    def radar_term(self, student: Batch, teacher: Batch, batch: Batch, intensity: torch.Tensor) -> torch.Tensor:
        """Radar features against I x the teacher's, or a small head on them against the teacher's mean heat map."""
        config, where = self.config, self.where(batch, SENSORS["radar"])
        if config.radar_active:
            occupied = (batch["radar_grid"][:, self.count : self.count + 1] > self.nothing).to(where.dtype)
            where = where * radar_active(occupied, tuple(where.shape[-2:]))
        adapted = self.radar(student["f_rad"])
        if config.radar_target == "heatmap":
            t = torch.sigmoid(teacher["heatmap"]).mean(1, keepdim=True)
            return quality_focal(adapted, t, where, (where * t).sum())
        weight = radar_weight(intensity, where, config.empty, config.radar_active)
        return relative_error(adapted, intensity * teacher["f_fused"], weight)

    def fused_term(self, student: Batch, teacher: Batch, batch: Batch, intensity: torch.Tensor) -> torch.Tensor:
        """Mean over the maps of the configured levels."""
        config, score = self.config, torch.sigmoid(teacher["heatmap"]).amax(1, keepdim=True)
        weight = fused_weight(intensity, batch, score, config.balance, config.background, config.false_positives)
        weight = weight * self.where(batch, self.sensors)
        errors = []
        for name in self.maps:
            adapted = self.fused[name](student[name][:, self.groups.get(name, slice(None))])
            at_level = F.adaptive_avg_pool2d(weight, adapted.shape[-2:])
            errors.append(relative_error(adapted, teacher[name], at_level))
        return torch.stack(errors).mean()

    def label_term(self, student: Batch, teacher: Batch, batch: Batch) -> torch.Tensor:
        """The fused map against the label encoder's, in the cells of objects."""
        mask = batch["heatmap"].amax(1, keepdim=True)
        mask = (mask > POSITIVE).to(mask.dtype) if self.config.label_mask == "binary" else mask
        adapted = self.label(student["f_fused"][:, self.groups["f_label"]])
        return relative_error(adapted, teacher["f_label"], mask * self.where(batch, self.sensors))

    def response_term(self, student: Batch, teacher: Batch, batch: Batch) -> torch.Tensor:
        """Heat map and boxes against the teacher's, except for objects that the teacher cannot see."""
        kind, keep = self.config.response_weight, self.where(batch, self.sensors)[:, 0] * (1 - batch["unlit"])
        t = torch.sigmoid(teacher["heatmap"])
        if kind == "gaussian":
            keep = keep * batch.get("labelled", 1.0)
            t = t * batch["heatmap"]
            heatmap = quality_focal(student["heatmap"], t, keep[:, None], batch["heatmap"].eq(1).sum())
            weight, group = labelled_score(teacher["heatmap"], batch), batch["group"]
        else:
            peaks = peak_weight(kind, student["heatmap"], teacher["heatmap"]) * keep[:, None]
            heatmap = mean_divergence(student["heatmap"], t, peaks)
            weight, label = (peaks * (t > FOUND)).max(1)
            group = self.group_of[label]
        return heatmap + BOX_WEIGHT * box_difference(student["box"], teacher["box"], weight * keep, group)


def adaptor(inputs: int, outputs: int, same: bool, normalise: bool) -> nn.Sequential:
    """1x1 convolution, unless both maps are of the `same` kind, and batch norm, which standardises without weights."""
    layers: list[nn.Module] = [] if same else [nn.Conv2d(inputs, outputs, 1, bias=False)]
    layers += [nn.BatchNorm2d(outputs, affine=not normalise)] if normalise or not same else []
    return nn.Sequential(*layers)


def heatmap_head(channels: int) -> nn.Sequential:
    """F_rad -> logits (B,1,H,W) of a heat map that the radar alone shows."""
    last = nn.Conv2d(channels, 1, 1)
    nn.init.constant_(last.bias, PRIOR)
    return nn.Sequential(conv_bn(channels, channels), last)


def freeze(module: nn.Module) -> nn.Module:
    """Disables gradients and switches batch norms to their running statistics."""
    return module.eval().requires_grad_(False)
