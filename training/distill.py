"""Distillation from the LiDAR teacher and the label encoder (IMKD, WACV 2026, arXiv 2512.15581), used only in training.

Every term is a pure function that returns a scalar. It is 0 where student and target agree.
No gradient enters its target. Feature maps are (B,C,H,W); the intensity map I and the masks are (B,1,H,W) in [0,1].
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from imkd_edge.evaluation.segmentation import centres
from imkd_edge.spec import BOX_SLICES, ModelSpec
from imkd_edge.training import lidar
from imkd_edge.training.config import Config, DistillConfig
from imkd_edge.training.distributed import divisor
from imkd_edge.training.losses import of_group
from imkd_edge.training.models.teacher import LabelEncoder, Teacher
from imkd_edge.training.targets import POSITIVE

Batch = dict[str, torch.Tensor]
STATIC = slice(0, BOX_SLICES["velocity"].start)  # box channels that a single LiDAR sweep shows: all but the velocity
BOX_WEIGHT = 0.25  # of the boxes in the response term, beside the heat map


def squared_error(student: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over channels of (student - target)^2: (B,1,H,W)."""
    return (student - target.detach()).square().mean(1, keepdim=True)


def radar_guidance(
    adapted: torch.Tensor, f_lidar: torch.Tensor, intensity: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """L_radar = sum v |A_r(F_rad) - I F_lidar|^2 / sum v |I F_lidar|^2: intensity modulates the target. weight: v."""
    return relative_error(adapted, intensity * f_lidar, weight)


def relative_error(adapted: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """sum W |A(F) - T|^2 / sum W |T|^2, each cell's error weighted by W.

    L_fused has W = I, T = F_lidar: intensity weights the error. L_label has W = M, T = F_label.

    IMKD divides by sum W. The features of a teacher may have any scale (label features reach ten times the LiDAR's
    here). Dividing by their energy gives a weight the same effect in every term and for every teacher.
    """
    weight = weight.detach()
    energy = (weight * target.detach().square().mean(1, keepdim=True)).sum()
    return (weight * squared_error(adapted, target)).sum() / divisor(energy)


def near(spec: ModelSpec, reach: float) -> torch.Tensor:
    """(1,1,H,W): 1 where a cell's centre is at most `reach` (m) from the ego origin, else 0; reach 0 is infinite."""
    x, y = (torch.from_numpy(axis) for axis in centres(spec.grid))
    inside = torch.hypot(x[None, :], y[:, None]) <= (reach or math.inf)
    return inside.float()[None, None]


def response_heatmap(
    logits: torch.Tensor, teacher_logits: torch.Tensor, gaussian: torch.Tensor, drop: torch.Tensor
) -> torch.Tensor:
    """sum |t - p|^2 KL(t || p) / objects, t = teacher's probability x ground-truth Gaussian, p = student's probability.

    This is the quality focal loss (Li et al. 2020, eq. 4) minus its target's entropy: it is 0 where t = p.

    Args:
        logits, teacher_logits, gaussian: (B,K,H,W).
        drop: (B,H,W), 1 in cells of objects that the teacher cannot see.
    """
    t = (torch.sigmoid(teacher_logits) * gaussian).detach()
    p = torch.sigmoid(logits)
    entropy = -(torch.xlogy(t, t) + torch.xlogy(1 - t, 1 - t))
    divergence = F.binary_cross_entropy_with_logits(logits, t, reduction="none") - entropy
    loss = (t - p).square() * divergence * (1 - drop)[:, None]
    return loss.sum() / divisor(gaussian.eq(1).sum())


def response_box(
    box: torch.Tensor,  # (B,groups*10,H,W)
    teacher_box: torch.Tensor,  # (B,groups*10,H,W)
    teacher_logits: torch.Tensor,  # (B,K,H,W)
    batch: Batch,  # weight, group, label, unlit (B,H,W)
) -> torch.Tensor:
    """sum s |box - teacher's box|_1 / max(1, sum s) over cells of objects, s = teacher's score x Gaussian, 0 if unlit.

    Velocity does not count: one sweep, the teacher's input, does not show it.
    """
    where = (batch["weight"] > 0) & (batch["unlit"] == 0)
    by_class = torch.sigmoid(teacher_logits).permute(0, 2, 3, 1)[where]  # (P,K)
    score = by_class.gather(1, batch["label"][where][:, None])[:, 0] * batch["weight"][where]
    target = of_group(teacher_box, batch["group"], where).detach()
    error = (of_group(box, batch["group"], where) - target).abs()[:, STATIC].sum(1)
    return (score.detach() * error).sum() / divisor(score.sum())


def log_reflectance(lidar_grid: torch.Tensor) -> torch.Tensor:
    """log(1 + 255 p) / log 256, p the mean reflectance of a pillar, 0 if empty: (B,F,Hr,Wr) -> (B,1,Hr,Wr)."""
    levels = lidar.MAX_REFLECTANCE
    return torch.log1p(levels * lidar.channel(lidar_grid, "intensity_mean"))[:, None] / math.log(1 + levels)


@torch.no_grad()
def intensity_map(kind: str, lidar_grid: torch.Tensor, f_lidar: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """I_lidar (B,1,H,W) in [0,1] on the feature grid.

    It has no parameters and no gradient: a trained weight would collapse to 0.

    Args:
        kind: "reflectance": log reflectance / its 99th percentile (`scale`); "density": ln(1+n), "energy": mean
            |F_lidar|, both over the frame's maximum and 0 in empty cells; "binary": 1 in cells with a return;
            "uniform": 1 everywhere.
        lidar_grid: (B,F,Hr,Wr). f_lidar: (B,C,H,W).
    """
    size = f_lidar.shape[-2:]
    count = F.adaptive_max_pool2d(lidar.channel(lidar_grid, "log_count")[:, None], size)
    occupied = (count > 0).to(f_lidar.dtype)
    if kind == "uniform":
        return torch.ones_like(occupied)
    if kind == "binary":
        return occupied
    if kind == "reflectance":
        return (F.adaptive_max_pool2d(log_reflectance(lidar_grid), size) / scale).clamp(0, 1)
    value = count if kind == "density" else f_lidar.abs().mean(1, keepdim=True) * occupied
    return value / value.amax((1, 2, 3), keepdim=True).clamp(min=1e-6)


class Distiller(nn.Module):
    """Frozen teacher and label encoder, and the adaptors that are trained beside the student."""

    def __init__(self, config: Config, teacher: Teacher, labels: LabelEncoder | None):
        super().__init__()
        self.config: DistillConfig = config.distill
        self.teacher, self.labels = freeze(teacher), None if labels is None else freeze(labels)
        model, target = config.model, config.teacher.channels
        self.register_buffer("near", near(config.spec, config.distill.reach), persistent=False)
        self.radar = adaptor(model.sensor_channels, target)
        same = config.distill.inherit  # the inherited trunk and head take the student's map like the teacher's
        self.fused = nn.Identity() if same else adaptor(model.bev_channels, target)
        self.label = nn.Identity() if same else adaptor(model.bev_channels, target)

    def train(self, mode: bool = True) -> Distiller:
        super().train(mode)
        self.teacher.eval()
        if self.labels is not None:
            self.labels.eval()
        return self

    def forward(self, student: Batch, batch: Batch, epoch: float) -> Batch:
        """The active terms, each times its weight and the ramp. epoch: number of finished epochs, with fraction."""
        config, terms = self.config, {}
        with torch.no_grad():
            teacher = self.teacher(batch)
        f_lidar, scale = teacher["f_lidar"], self.teacher.reflectance_scale
        intensity = intensity_map(config.intensity, batch["lidar_grid"], f_lidar, scale)

        # Features.
        if config.radar:
            weight = torch.where(intensity > 0, 1.0, config.empty) * self.near
            terms["radar"] = radar_guidance(self.radar(student["f_rad"]), f_lidar, intensity, weight)
        if config.fused:
            terms["fused"] = relative_error(self.fused(student["f_fused"]), f_lidar, intensity * self.near)
        if config.label and self.labels is not None:
            mask = batch["heatmap"].amax(1, keepdim=True)
            mask = (mask > POSITIVE).to(mask.dtype) if config.label_mask == "binary" else mask
            with torch.no_grad():
                f_label = self.labels(batch)
            terms["label"] = relative_error(self.label(student["f_fused"]), f_label, mask * self.near)

        # Outputs, except for objects that the teacher cannot see.
        if config.response:
            drop = torch.maximum(batch["unlit"], 1 - self.near[:, 0])
            heatmap = response_heatmap(student["heatmap"], teacher["heatmap"], batch["heatmap"], drop)
            box = response_box(student["box"], teacher["box"], teacher["heatmap"], {**batch, "unlit": drop})
            terms["response"] = heatmap + BOX_WEIGHT * box

        ramp = min(1.0, epoch / config.ramp) if config.ramp > 0 else 1.0
        return {name: value * ramp * getattr(config, name) for name, value in terms.items()}


def adaptor(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 convolution and batch norm: channels of the student -> channels of the teacher."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


def freeze(module: nn.Module) -> nn.Module:
    """Disables gradients and switches batch norms to their running statistics."""
    return module.eval().requires_grad_(False)
