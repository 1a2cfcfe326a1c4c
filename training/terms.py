"""Terms of the distillation (IMKD, WACV 2026, arXiv 2512.15581, and what came before it), used only in training.

Every term is a pure function that returns a scalar. It is 0 where student and target agree.
No gradient enters its target or its weight. Feature maps are (B,C,H,W); s and t are the probabilities of student and
teacher. Sums and normalisers count the batch of all processes: see distributed.py.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from imkd_edge.spec import BOX_SLICES
from imkd_edge.training.distributed import divisor
from imkd_edge.training.losses import of_group

STATIC = slice(0, BOX_SLICES["velocity"].start)  # box channels that a single LiDAR sweep shows: all but the velocity


def squared_error(student: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over channels of (student - target)^2: (B,1,H,W)."""
    return (student - target.detach()).square().mean(1, keepdim=True)


def relative_error(
    adapted: torch.Tensor,  # (B,C,H,W)
    target: torch.Tensor,  # (B,C,H,W)
    weight: torch.Tensor,  # (B,1,H,W)
) -> torch.Tensor:
    """sum W |A(F) - T|^2 / sum W |T|^2, each cell's error weighted by W.

    L_fused has W = I, T = F_lidar: intensity weights the error. L_label has W = M, T = F_label. L_radar has
    T = I F_lidar: intensity modulates the target.

    IMKD divides by sum W. The features of a teacher may have any scale (label features reach ten times the LiDAR's
    here). Dividing by their energy gives a weight the same effect in every term and for every teacher.
    """
    weight = weight.detach()
    energy = (weight * target.detach().square().mean(1, keepdim=True)).sum()
    return (weight * squared_error(adapted, target)).sum() / divisor(energy)


def divergence(logits: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """KL(t || s) of two Bernoulli distributions, value by value; t in [0,1] has no gradient."""
    t = t.detach()
    entropy = -(torch.xlogy(t, t) + torch.xlogy(1 - t, 1 - t))
    return F.binary_cross_entropy_with_logits(logits, t, reduction="none") - entropy


def quality_focal(logits: torch.Tensor, t: torch.Tensor, weight: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """sum w |t - s|^2 KL(t || s) / max(1, total): the quality focal loss (Li et al. 2020, eq. 4) minus t's entropy.

    L_response of IMKD's form has t = teacher's probability x ground-truth Gaussian, and the number of objects as total.
    The radar's heat map has t = the teacher's, averaged over the classes, and sum w t as total.

    Args:
        logits, t: (B,K,H,W).
        weight: as logits, or (B,1,H,W).
        total: scalar, of this process.
    """
    t = t.detach()
    loss = (t - torch.sigmoid(logits)).square() * divergence(logits, t)
    return (weight.detach() * loss).sum() / divisor(total)


def mean_divergence(logits: torch.Tensor, t: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """sum w KL(t || s) / max(1, sum w): the response where the teacher's own peaks stand for the objects.

    Args: logits, t, weight (B,K,H,W).
    """
    weight = weight.detach()
    return (weight * divergence(logits, t)).sum() / divisor(weight.sum())


def box_difference(
    box: torch.Tensor,  # (B,groups*10,H,W)
    teacher_box: torch.Tensor,  # (B,groups*10,H,W)
    weight: torch.Tensor,  # (B,H,W)
    group: torch.Tensor,  # (B,H,W)
) -> torch.Tensor:
    """sum w |box - teacher's box|_1 / max(1, sum w) over the cells with w > 0, of the task group of each cell.

    Velocity does not count: one sweep, the teacher's input, does not show it.
    """
    weight = weight.detach()
    where = weight > 0
    target = of_group(teacher_box, group, where).detach()
    error = (of_group(box, group, where) - target).abs()[:, STATIC].sum(1)
    return (weight[where] * error).sum() / divisor(weight.sum())
