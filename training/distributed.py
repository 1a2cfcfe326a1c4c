"""The processes that train together, as torchrun starts them. Alone, everything here does nothing.

A loss is a sum over a normaliser. Each process divides its own sum by `divisor`, so that the mean over the processes, which is
what DDP makes of gradients, is the quotient that one process would have found for the whole batch.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from datetime import timedelta
from inspect import signature
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

import imkd_edge.ops as ops
from imkd_edge.errors import Code, Error

PATIENCE = timedelta(hours=12)  # one process may decode or compute features for long while the others wait
Item = TypeVar("Item")


def size() -> int:
    """Number of processes that train together; 1 alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of the processes this is, from 0; 0 alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def join(device: str) -> torch.device:
    """Joins the processes that torchrun started, if it did, until this one ends; returns its device.

    Args: device: "auto" (CUDA where there is one), "cpu" or "cuda". Raises: Error device_unavailable.
    """
    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise Error(
            Code.device_unavailable,
            f"no device '{device}' for training",
            "device",
            "choose auto, cpu, or cuda where there is one",
        )
    cuda = device != "cpu" and torch.cuda.is_available()
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(place)
    if dist.is_torchelastic_launched() and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)  # not before: a second group would find the addresses of the first
        ops.set_threads(max(1, (os.cpu_count() or 1) // int(os.environ["LOCAL_WORLD_SIZE"])))
    return place


def wait() -> None:
    """Until every process is here."""
    if size() > 1:
        dist.barrier()


def share(items: Sequence[Item]) -> list[Item]:
    """The consecutive items that fall to this process."""
    bounds = np.linspace(0, len(items), size() + 1).astype(int)
    return list(items[bounds[rank()] : bounds[rank() + 1]])


def mean(values: torch.Tensor) -> torch.Tensor:
    """Over the processes."""
    return values if size() == 1 else _sum(values) / size()


def _sum(values: torch.Tensor) -> torch.Tensor:
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def divisor(total: torch.Tensor) -> torch.Tensor:
    """max(1, total) for the total over all processes, divided by their number: what a sum of this process is divided by."""
    return (total if size() == 1 else _sum(total)).detach().clamp(min=1) / size()


def distributed(stage: nn.Module) -> nn.Module:
    """The stage, called through DDP, which averages the gradients of all processes; a term may be off, hence unused parameters."""
    if size() == 1:
        return stage
    ddp = nn.parallel.DistributedDataParallel
    buffers = (
        "forward_sync_buffers" if "forward_sync_buffers" in signature(ddp).parameters else "broadcast_buffers"
    )  # torch before 2.13
    return ddp(stage, find_unused_parameters=True, **{buffers: False})


def synchronised(stage: nn.Module) -> nn.Module:
    """The stage with batch norms that see the batches of all processes; torch and timm have them for CUDA alone."""
    if size() == 1:
        return stage
    if next(stage.parameters()).device.type == "cuda":
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm(stage)
    for module in stage.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d
        elif isinstance(module, nn.BatchNorm2d) and any(p.requires_grad for p in module.parameters()):
            problem = f"{type(module).__name__} cannot be trained by several processes without CUDA"
            raise Error(
                Code.train_config,
                problem,
                "[model] backbone",
                "set frozen_backbone, choose another backbone, or use CUDA",
            )
    return stage


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics are those of all processes together."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        y, mean, variance, count = _Normalise.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return y


class _Normalise(torch.autograd.Function):
    """Ioffe & Szegedy 2015, algorithm 1 and its gradient; the statistics of the shares are joined as in Chan et al. 1979."""

    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        """x (B,C,H,W). Returns y (B,C,H,W), mean (C,), variance (C,) over all values, and their count (C,)."""
        variance, mean = torch.var_mean(x.float(), (0, 2, 3), correction=0)
        own = torch.stack([torch.full_like(mean, x.numel() / len(mean)), mean, variance])
        parts = [torch.empty_like(own) for _ in range(size())]
        dist.all_gather(parts, own)
        counts, means, variances = torch.stack(parts, 1)  # (R,C) each
        count = counts.sum(0)
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean).square())).sum(0) / count
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        y = (x - _wide(mean)) * _wide(scale * weight) + _wide(bias)
        return y.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx, grad, *_):
        x, weight, mean, scale, count = ctx.saved_tensors
        normal = (x - _wide(mean)) * _wide(scale)
        own = torch.stack([grad.float().sum((0, 2, 3)), (grad * normal).sum((0, 2, 3))])
        total = _sum(own)
        back = _wide(scale * weight) * (grad - _wide(total[0] / count) - normal * _wide(total[1] / count))
        return back.to(x.dtype), own[1], own[0], None


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None]
