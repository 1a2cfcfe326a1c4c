"""Processes that train together, started by torchrun. In a single process every function here is the identity.

A loss is a sum over a normaliser. Each process divides its own sum by `divisor`. DDP averages the gradients over the
processes; the average equals the quotient that one process computes for the whole batch.
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

TIMEOUT = timedelta(hours=12)  # one process may decode samples or compute features for hours while the others wait
DEVICES = ("auto", "cpu", "cuda")
Item = TypeVar("Item")


def size() -> int:
    """Number of processes; 1 without torchrun."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Index of this process, from 0; 0 without torchrun."""
    return dist.get_rank() if dist.is_initialized() else 0


def join(device: str) -> torch.device:
    """Joins the process group that torchrun set up, if any, until this process ends.

    Args:
        device: "auto" (CUDA where available), "cpu" or "cuda".

    Returns:
        The torch device of this process.

    Raises:
        Error: device_unavailable.
    """
    if device not in DEVICES or (device == "cuda" and not torch.cuda.is_available()):
        problem, fix = f"no device '{device}' for training", "choose auto, cpu, or cuda where torch finds a GPU"
        raise Error(Code.device_unavailable, problem, "device", fix)
    cuda = device != "cpu" and torch.cuda.is_available()
    result = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(result)
    if dist.is_torchelastic_launched() and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=TIMEOUT)
        # Not earlier: a second group would reuse the addresses of the first.
        atexit.register(dist.destroy_process_group)
        ops.set_threads(max(1, (os.cpu_count() or 1) // int(os.environ["LOCAL_WORLD_SIZE"])))
    return result


def use_threads(threads: int) -> None:
    """Gives torch and our ops that many threads on the CPU; 0 leaves them as they are."""
    if threads:
        torch.set_num_threads(threads)
        ops.set_threads(threads)


def barrier() -> None:
    """Waits until every process calls it."""
    if size() > 1:
        dist.barrier()


def share(items: Sequence[Item]) -> list[Item]:
    """The consecutive items of this process, out of all items."""
    bounds = np.linspace(0, len(items), size() + 1).astype(int)
    return list(items[bounds[rank()] : bounds[rank() + 1]])


def mean(values: torch.Tensor) -> torch.Tensor:
    """Mean over the processes."""
    return values if size() == 1 else _sum(values) / size()


def from_first(value: Item) -> Item:
    """The first process's value, in every process."""
    values = [value]
    if size() > 1:
        dist.broadcast_object_list(values)
    return values[0]


def _sum(values: torch.Tensor) -> torch.Tensor:
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def divisor(total: torch.Tensor) -> torch.Tensor:
    """Divisor of this process's sum of losses: max(1, total over all processes) / number of processes."""
    return (total if size() == 1 else _sum(total)).detach().clamp(min=1) / size()


def wrap(stage: nn.Module) -> nn.Module:
    """The stage inside DDP, which averages gradients over the processes; inactive terms leave parameters unused."""
    if size() == 1:
        return stage
    ddp = nn.parallel.DistributedDataParallel
    names = ("forward_sync_buffers", "broadcast_buffers")  # torch from 2.13 on, and before
    buffers = next(name for name in names if name in signature(ddp).parameters)
    return ddp(stage, find_unused_parameters=True, **{buffers: False})


def sync_batch_norms(stage: nn.Module) -> nn.Module:
    """Makes batch norms use the batches of all processes; torch and timm support this only on CUDA.

    Raises:
        Error: train_config for a batch norm of another class that is trained without CUDA.
    """
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
            fix = "set frozen_backbone, choose another backbone, or use CUDA"
            raise Error(Code.train_config, problem, "[model] backbone", fix)
    return stage


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with the statistics of all processes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        one = torch.ones_like(self.running_mean)
        weight, bias = (self.weight, self.bias) if self.affine else (one, 0 * one)
        y, mean, variance, count = _Normalise.apply(x, weight, bias, self.eps)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return y


class _Normalise(torch.autograd.Function):
    """Ioffe & Szegedy 2015, algorithm 1 and its gradient.

    Statistics of the processes are combined as in Chan et al. 1979.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        """x (B,C,H,W). Returns y (B,C,H,W), mean (C,), variance (C,) over all values, and their count (C,)."""
        # Statistics of this process, gathered from all R processes.
        variance, mean = torch.var_mean(x.float(), (0, 2, 3), correction=0)
        local = torch.stack([torch.full_like(mean, x.numel() / len(mean)), mean, variance])
        gathered = [torch.empty_like(local) for _ in range(size())]
        dist.all_gather(gathered, local)
        counts, means, variances = torch.stack(gathered, 1)  # (R,C) each

        # Statistics of the whole batch.
        count = counts.sum(0)
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean).square())).sum(0) / count
        scale = (variance + eps).rsqrt()

        ctx.save_for_backward(x, weight, mean, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        y = (x - _per_channel(mean)) * _per_channel(scale * weight) + _per_channel(bias)
        return y.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx, grad, *_):
        x, weight, mean, scale, count = ctx.saved_tensors
        normalised = (x - _per_channel(mean)) * _per_channel(scale)
        local = torch.stack([grad.float().sum((0, 2, 3)), (grad * normalised).sum((0, 2, 3))])
        total = _sum(local)
        centred = grad - _per_channel(total[0] / count) - normalised * _per_channel(total[1] / count)
        grad_x = _per_channel(scale * weight) * centred
        return grad_x.to(x.dtype), local[1], local[0], None


def _per_channel(values: torch.Tensor) -> torch.Tensor:  # (C,) -> (C,1,1)
    return values[:, None, None]
