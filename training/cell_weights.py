"""Where the terms of the distillation act: weights of cells, without parameters and without gradient.

A trained weight would collapse to 0. Maps of weights are (B,1,H,W) on the feature grid.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from imkd_edge.evaluation.segmentation import centres
from imkd_edge.spec import BoxChannel, ModelSpec
from imkd_edge.training import lidar
from imkd_edge.training.distributed import divisor
from imkd_edge.training.mix import mix_maps

Batch = dict[str, torch.Tensor]
FOUND = 0.1  # score from which the teacher has found an object
CAR = 4.5 * 1.8  # m^2, the footprint at which the balance is 1
BALANCE = (0.5, 2.0)  # its range
DILATION = 5  # cells, side of the square around a radar return in which the radar is active


def near(spec: ModelSpec, reach: float) -> torch.Tensor:
    """(1,1,H,W): 1 where a cell's centre is at most `reach` (m) from the ego origin, else 0; reach 0 is infinite."""
    x, y = (torch.from_numpy(axis) for axis in centres(spec.grid))
    inside = torch.hypot(x[None, :], y[:, None]) <= (reach or math.inf)
    return inside.float()[None, None]


def log_reflectance(lidar_grid: torch.Tensor) -> torch.Tensor:
    """log(1 + 255 p) / log 256, p the mean reflectance of a pillar, 0 if empty: (B,F,Hr,Wr) -> (B,1,Hr,Wr)."""
    levels = lidar.MAX_REFLECTANCE
    return torch.log1p(levels * lidar.channel(lidar_grid, "intensity_mean"))[:, None] / math.log(1 + levels)


@torch.no_grad()
def intensity_map(kind: str, lidar_grid: torch.Tensor, f_lidar: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """I_lidar (B,1,H,W) in [0,1].

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


def area_balance(batch: Batch) -> torch.Tensor:
    """sqrt(A_car / A) within BALANCE in the cells of an object of footprint A, 1 elsewhere: (B,1,H,W).

    DistillBEV (Wang et al., ICCV 2023, eq. 4) divides by the root of the object's area in the same sense.
    """
    log_area = batch["box"][:, BoxChannel.log_length] + batch["box"][:, BoxChannel.log_width]
    balance = (math.sqrt(CAR) * torch.exp(-0.5 * log_area)).clamp(*BALANCE)
    return torch.where(batch["label"] >= 0, balance, 1.0)[:, None]


@torch.no_grad()
def fused_weight(
    intensity: torch.Tensor,  # (B,1,H,W)
    batch: Batch,  # label (B,H,W), box (B,10,H,W)
    score: torch.Tensor,  # (B,1,H,W), the teacher's over the classes
    balance: bool,
    background: float,
    false_positives: float,
) -> torch.Tensor:
    """W = I b inside objects, b the area balance, and I x background + [t > FOUND] x false_positives outside."""
    inside = (batch["label"] >= 0)[:, None]
    weight = intensity * area_balance(batch) if balance else intensity
    return torch.where(inside, weight, background * intensity + false_positives * (score > FOUND))


@torch.no_grad()
def radar_active(occupied: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """1 in the square of DILATION cells around each radar return: (B,1,Hr,Wr) of 0 and 1 -> (B,1,H,W)."""
    return F.max_pool2d(F.adaptive_max_pool2d(occupied, size), DILATION, 1, DILATION // 2)


@torch.no_grad()
def radar_weight(intensity: torch.Tensor, where: torch.Tensor, empty: float, balanced: bool) -> torch.Tensor:
    """v = 1 in the cells of `where` with a LiDAR return, `empty` in those without; balanced, `empty` x their ratio.

    Balanced, the empty cells together weigh `empty` times as much as the others, however many they are.
    """
    lit = where * (intensity > 0)
    bare = where - lit
    share = empty * divisor(lit.sum()) / divisor(bare.sum()) if balanced else empty
    return lit + share * bare


def seen_map(batch: Batch, sensors: list[int], shape: torch.Size) -> torch.Tensor:
    """1 in cells of examples that have all of the `sensors` (0 camera, 1 radar), else 0: (B,1,H,W)."""
    seen = batch["seen"][:, sensors].amin(1).view(-1, 1, 1, 1).expand(-1, 1, *shape)
    return mix_maps(seen, batch["sector"]) if "sector" in batch else seen


@torch.no_grad()
def peak_weight(kind: str, logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
    """(B,K,H,W): "either": max(s, t) where t > FOUND; "difference": |s - t|."""
    s, t = torch.sigmoid(logits), torch.sigmoid(teacher_logits)
    return torch.maximum(s, t) * (t > FOUND) if kind == "either" else (s - t).abs()


@torch.no_grad()
def labelled_score(teacher_logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(B,H,W): the teacher's score of the class of each cell's object x its Gaussian, 0 without an object."""
    label = batch["label"].clamp(min=0)[:, None]
    return torch.sigmoid(teacher_logits).gather(1, label)[:, 0] * batch["weight"]
