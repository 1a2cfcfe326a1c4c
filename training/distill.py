"""What the student learns from the LiDAR teacher and the label encoder (IMKD, WACV 2026, arXiv 2512.15581). Train only.

Every term is a pure function that returns a scalar, is 0 where student and target agree, and sends no gradient into its target.
Feature maps are (B,C,H,W); the intensity map I and the masks are (B,1,H,W) in [0,1].
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from imkd_edge.evaluation.segmentation import centres
from imkd_edge.spec import ModelSpec
from imkd_edge.training import lidar
from imkd_edge.training.config import Config, DistillConfig
from imkd_edge.training.losses import of_group
from imkd_edge.training.models.teacher import LabelEncoder, Teacher
from imkd_edge.training.targets import POSITIVE
from imkd_edge.training.world import divisor

Batch = dict[str, torch.Tensor]
SEEN = slice(0, 8)  # box channels that a single LiDAR sweep shows: all but the velocity


def squared_error(student: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over channels of (student - target)^2: (B,1,H,W)."""
    return (student - target.detach()).square().mean(1, keepdim=True)


def radar_guidance(
    adapted: torch.Tensor, f_lidar: torch.Tensor, intensity: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """L_radar = sum v |A_r(F_rad) - I F_lidar|^2 / sum v |I F_lidar|^2: intensity modulates the target. weight: v of `counted`."""
    return relative_error(adapted, intensity * f_lidar, weight)


def relative_error(adapted: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """sum W |A(F) - T|^2 / sum W |T|^2: L_fused with W = I, T = F_lidar (intensity weights the error), L_label with W = M, T = F_label.

    IMKD divides by sum W. The features of a teacher may grow to any scale (label features to ten times the LiDAR's here), so only the
    share of their energy that the student misses makes a weight mean the same in every term and for every teacher.
    """
    weight = weight.detach()
    energy = (weight * target.detach().square().mean(1, keepdim=True)).sum()
    return (weight * squared_error(adapted, target)).sum() / divisor(energy)


def near(spec: ModelSpec, reach: float) -> torch.Tensor:
    """1 where a cell's centre is at most `reach` (m) from the ego origin, else 0; 1 everywhere where reach is 0. (1,1,H,W)."""
    x, y = (torch.from_numpy(axis) for axis in centres(spec.grid))
    inside = torch.hypot(x[None, :], y[:, None]) <= (reach or math.inf)
    return inside.float()[None, None]


def response_heatmap(
    logits: torch.Tensor, teacher_logits: torch.Tensor, gaussian: torch.Tensor, drop: torch.Tensor
) -> torch.Tensor:
    """sum |t - p|^2 KL(t || p) / objects with t = teacher's probability x ground-truth Gaussian, p = the student's.

    The quality focal loss (Li et al. 2020, eq. 4) less its target's entropy, so that agreement costs nothing.

    Args: logits, teacher_logits, gaussian (B,K,H,W); drop (B,H,W), 1 where the teacher could not see the object.
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
    """sum s |box - teacher's box|_1 / max(1, sum s) over the objects' cells; s = teacher's score x the cell's Gaussian, 0 if unlit.

    Velocity does not count: the teacher reads one sweep and can only guess it.
    """
    where = (batch["weight"] > 0) & (batch["unlit"] == 0)
    by_class = torch.sigmoid(teacher_logits).permute(0, 2, 3, 1)[where]  # (P,K)
    score = by_class.gather(1, batch["label"][where][:, None])[:, 0] * batch["weight"][where]
    target = of_group(teacher_box, batch["group"], where).detach()
    error = (of_group(box, batch["group"], where) - target).abs()[:, SEEN].sum(1)
    return (score.detach() * error).sum() / divisor(score.sum())


def log_reflectance(lidar_grid: torch.Tensor) -> torch.Tensor:
    """log(1 + 255 p) / log 256 of the mean reflectance p of each pillar, 0 in empty ones: (B,F,Hr,Wr) -> (B,1,Hr,Wr)."""
    return torch.log1p(255 * lidar.channel(lidar_grid, "intensity_mean"))[:, None] / math.log(256)


@torch.no_grad()
def intensity_map(kind: str, lidar_grid: torch.Tensor, f_lidar: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """I_lidar (B,1,H,W) in [0,1] on the feature grid, without parameters and detached: a learnt weight would collapse to 0.

    Args:
        kind: "reflectance": log reflectance / its 99th percentile (`scale`); "density": ln(1+n), "energy": mean |F_lidar|, both over
            the frame's maximum and 0 in empty cells; "binary": 1 where there is a return; "uniform": 1 everywhere.
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
    """The frozen teacher and label encoder, and the adaptors that are trained beside the student."""

    def __init__(self, config: Config, teacher: Teacher, labels: LabelEncoder | None):
        super().__init__()
        self.config: DistillConfig = config.distill
        self.teacher, self.labels = freeze(teacher), None if labels is None else freeze(labels)
        model, target = config.model, config.teacher.channels
        self.register_buffer("near", near(config.spec, config.distill.reach), persistent=False)
        self.radar = adaptor(model.sensor_channels, target)
        own = config.distill.inherit  # then trunk and head read the student's map as they read the teacher's
        self.fused = nn.Identity() if own else adaptor(model.bev_channels, target)
        self.label = nn.Identity() if own else adaptor(model.bev_channels, target)

    def train(self, mode: bool = True) -> Distiller:
        super().train(mode)
        self.teacher.eval()
        if self.labels is not None:
            self.labels.eval()
        return self

    def forward(self, student: Batch, batch: Batch, epoch: float) -> Batch:
        """The active terms, each times its weight; they ramp up over the first epochs. epoch: how many are behind, with fraction."""
        config, terms = self.config, {}
        with torch.no_grad():
            seen = self.teacher(batch)
        intensity = intensity_map(
            config.intensity, batch["lidar_grid"], seen["f_lidar"], self.teacher.reflectance_scale
        )
        if config.radar:
            counted = torch.where(intensity > 0, 1.0, config.empty) * self.near
            terms["radar"] = radar_guidance(self.radar(student["f_rad"]), seen["f_lidar"], intensity, counted)
        if config.fused:
            terms["fused"] = relative_error(self.fused(student["f_fused"]), seen["f_lidar"], intensity * self.near)
        if config.label and self.labels is not None:
            mask = batch["heatmap"].amax(1, keepdim=True)
            mask = (mask > POSITIVE).to(mask.dtype) if config.label_mask == "binary" else mask
            with torch.no_grad():
                f_label = self.labels(batch)
            terms["label"] = relative_error(self.label(student["f_fused"]), f_label, mask * self.near)
        if config.response:
            unseen = torch.maximum(batch["unlit"], 1 - self.near[:, 0])
            heatmap = response_heatmap(student["heatmap"], seen["heatmap"], batch["heatmap"], unseen)
            box = response_box(student["box"], seen["box"], seen["heatmap"], {**batch, "unlit": unseen})
            terms["response"] = heatmap + 0.25 * box
        ramp = min(1.0, epoch / config.ramp) if config.ramp > 0 else 1.0
        return {name: value * ramp * getattr(config, name) for name, value in terms.items()}


def adaptor(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 convolution and batch norm: the student's channels -> the teacher's."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


def freeze(module: nn.Module) -> nn.Module:
    """No gradient, and batch norms that do not move."""
    return module.eval().requires_grad_(False)
