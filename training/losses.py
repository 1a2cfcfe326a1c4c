"""Losses without distillation; each is a pure function that returns a scalar.

Normalisers count the batch of all processes: see distributed.py.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from imkd_edge.spec import BOX_CHANNELS, BOX_SLICES, BoxChannel
from imkd_edge.training.distributed import divisor
from imkd_edge.training.sections import TrainConfig

POSITIVE_WEIGHT = 2.13  # Philion & Fidler 2020, their pos_weight


def gaussian_focal(
    logits: torch.Tensor,  # (B,K,H,W)
    target: torch.Tensor,  # (B,K,H,W) in [0,1], exactly 1 at object centres
    labelled: torch.Tensor | None = None,  # (B,H,W), 0 in cells whose objects are unknown; None: all are known
) -> torch.Tensor:
    """Penalty-reduced focal loss of CornerNet (Law & Deng 2018, eq. 1; alpha 2, beta 4) over the number of objects."""
    positive = target.eq(1).to(logits.dtype)
    p = torch.sigmoid(logits)
    hit = F.logsigmoid(logits) * (1 - p) ** 2 * positive
    miss = F.logsigmoid(-logits) * p**2 * (1 - target) ** 4 * (1 - positive)
    loss = hit + miss if labelled is None else (hit + miss) * labelled[:, None]
    return -loss.sum() / divisor(positive.sum())


def of_group(
    box: torch.Tensor,  # (B,groups*10,H,W)
    group: torch.Tensor,  # (B,H,W)
    where: torch.Tensor,  # (B,H,W) bool, P of them true
) -> torch.Tensor:  # (P,10)
    """The box channels of the task group of each cell in `where`."""
    batch, _, height, width = box.shape
    by_group = box.view(batch, -1, BOX_CHANNELS, height, width).permute(0, 3, 4, 1, 2)[where]  # (P,groups,10)
    return by_group[torch.arange(len(by_group), device=box.device), group[where]]


def box_l1(
    predicted: torch.Tensor,  # (B,groups*10,H,W)
    target: torch.Tensor,  # (B,10,H,W), nan where unknown
    weight: torch.Tensor,  # (B,H,W)
    group: torch.Tensor,  # (B,H,W)
    channel_weight: torch.Tensor,  # (10,)
) -> torch.Tensor:
    """L1 of the box channels over the objects' cells, weighted by their Gaussians; unknown channels do not count."""
    where = weight > 0
    values = of_group(predicted, group, where)
    labels = target.permute(0, 2, 3, 1)[where]
    known = torch.isfinite(labels)
    error = (values - torch.where(known, labels, values.detach())).abs() * known * channel_weight
    cells = weight[where][:, None]
    return (error * cells).sum() / divisor(cells.sum())


def box_overlap(
    predicted: torch.Tensor,  # (B,groups*10,H,W)
    target: torch.Tensor,  # (B,10,H,W), nan where unknown
    weight: torch.Tensor,  # (B,H,W)
    group: torch.Tensor,  # (B,H,W)
    cell: float,  # m
) -> torch.Tensor:
    """1 - IoU of each cell's box with its object's, both with the object's heading; weighted and normalised as box_l1.

    ODIoU of CIA-SSD (Zheng et al., AAAI 2021) without its terms of distance and heading. An object whose box is unknown
    in more than the velocity does not count.
    """
    labels = target.permute(0, 2, 3, 1)
    where = (weight > 0) & torch.isfinite(labels[..., : BoxChannel.velocity_x]).all(-1)
    boxes, labels = of_group(predicted, group, where), labels[where]

    # Offset of the predicted box in the frame of the object (m), then the overlap per axis.
    centre, log_size = slice(BoxChannel.offset_x, BoxChannel.log_length), BOX_SLICES["log_size"]
    dx, dy, dz = ((boxes[:, centre] - labels[:, centre]) * boxes.new_tensor([cell, cell, 1.0])).unbind(1)
    s, c = labels[:, BoxChannel.sin_yaw], labels[:, BoxChannel.cos_yaw]
    shift = torch.stack([dx * c + dy * s, dy * c - dx * s, dz], 1)
    size, label_size = boxes[:, log_size].clamp(-5, 5).exp(), labels[:, log_size].exp()
    overlap = torch.minimum(shift + size / 2, label_size / 2) - torch.maximum(shift - size / 2, -label_size / 2)

    intersection, volumes = overlap.clamp(min=0).prod(1), size.prod(1) + label_size.prod(1)
    cells = weight[where]
    return (cells * (1 - intersection / (volumes - intersection))).sum() / divisor(cells.sum())


def depth_cross_entropy(
    depth: torch.Tensor,  # (N,D,h,w) probabilities
    target: torch.Tensor,  # (N,h,w) bin, -1 unknown
) -> torch.Tensor:
    """Cross-entropy of the depth distribution over the pixels of known depth."""
    known = target >= 0
    probability = depth.gather(1, target.clamp(min=0)[:, None])[:, 0]
    return -torch.log(probability[known].clamp(min=1e-6)).sum() / divisor(known.sum())


def vehicle_cross_entropy(
    logits: torch.Tensor,  # (B,1,H,W)
    target: torch.Tensor,  # (B,H,W) 0 or 1, nan where a cell does not count
) -> torch.Tensor:
    """Binary cross-entropy over the cells that count; vehicles weigh POSITIVE_WEIGHT, as in Lift, Splat, Shoot."""
    known = torch.isfinite(target)
    weight = logits.new_tensor(POSITIVE_WEIGHT)
    labels = torch.nan_to_num(target)
    loss = F.binary_cross_entropy_with_logits(logits[:, 0], labels, reduction="none", pos_weight=weight)
    return (loss * known).sum() / divisor(known.sum())


def detection_losses(
    out: dict[str, torch.Tensor], batch: dict[str, torch.Tensor], config: TrainConfig, cell: float
) -> dict[str, torch.Tensor]:
    """Every loss term, and their sum "total", weighted by the config. Outputs without depth have no depth term."""
    channels = torch.ones(BOX_CHANNELS, device=out["box"].device)
    channels[BoxChannel.above_ground] = config.height_weight
    terms = {
        "heatmap": gaussian_focal(out["heatmap"], batch["heatmap"], batch.get("labelled")),
        "box": box_l1(out["box"], batch["box"], batch["weight"], batch["group"], channels),
    }
    total = terms["heatmap"] + config.box_weight * terms["box"]
    if config.overlap_weight:
        terms["overlap"] = box_overlap(out["box"], batch["box"], batch["weight"], batch["group"], cell)
        total = total + config.overlap_weight * terms["overlap"]
    if "depth" in out:
        terms["depth"] = depth_cross_entropy(out["depth"], batch["depth_bin"])
        total = total + config.depth_weight * terms["depth"]
    if "segmentation" in out:
        terms["segmentation"] = vehicle_cross_entropy(out["segmentation"], batch["vehicles"])
        total = total + config.segmentation_weight * terms["segmentation"]
    return {**terms, "total": total}
