"""One epoch of training: schedule, optimizer, averaging."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

from imkd_edge.errors import Code, Error
from imkd_edge.training import distributed
from imkd_edge.training.sections import TrainConfig
from imkd_edge.training.stages import Stage, to_device


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine down to 1 % of the peak."""
    warmup = max(1, int(config.warmup * steps))
    if step < warmup:
        return config.rate * (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    return config.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def make_optimizer(stage: Stage, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW; no decay on biases and batch norms."""
    parameters = [p for p in stage.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.rate)


@torch.no_grad()
def update_ema(ema: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """ema <- decay * ema + (1 - decay) * network, batch statistics included; the decay grows from 0 over the steps."""
    decay = min(decay, (1 + step) / (10 + step))
    for (_, mean), (_, value) in zip(ema.state_dict().items(), network.state_dict().items()):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def train_one_epoch(
    model: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batches: Iterable[dict],
    config: TrainConfig,
    first_step: int,
    steps: int,
    report: Callable[[int, float], None] | None = None,
) -> dict[str, float]:
    """Trains on the batches of one epoch.

    Args:
        model: the stage, or DDP around it.
        ema: moving average of the stage's network, updated after each step.
        scaler: scales the loss, so that small gradients do not vanish in float16.
        batches: micro-batches, config.accumulate per step.
        first_step, steps: index of the first step of this epoch; number of steps of all epochs.
        report: called after each micro-batch with their number and the mean loss up to now.

    Returns:
        The mean of every loss term, and "gradient", the mean norm.

    Raises:
        Error: train_diverged, with the terms, where the loss is not finite.
    """
    stage: Stage = getattr(model, "module", model)
    stage.train()
    sums: dict[str, float] = {}
    count = 0
    for count, batch in enumerate(batches, 1):
        step, part = divmod(count - 1, config.accumulate)
        step += first_step
        last = part == config.accumulate - 1
        if part == 0:
            optimizer.zero_grad(set_to_none=True)

        # DDP averages the gradients only in the last micro-batch of a step.
        with contextlib.nullcontext() if last or model is stage else model.no_sync():
            means = accumulate_gradient(model, to_device(batch, stage.device), scaler, config, step, steps)
        for key, value in means.items():
            sums[key] = sums.get(key, 0.0) + value

        if last:
            norm = take_step(stage, optimizer, scaler, learning_rate(step, steps, config), config.clip)
            update_ema(ema, stage.network, config.ema, step)
            sums["gradient"] = sums.get("gradient", 0.0) + norm * config.accumulate
        if report is not None:
            report(count, sums["total"] / count)
    return {k: v / max(1, count) for k, v in sums.items()}


def accumulate_gradient(
    model: nn.Module, batch: dict, scaler: torch.amp.GradScaler, config: TrainConfig, step: int, steps: int
) -> dict[str, float]:
    """Adds the gradient of a micro-batch; returns its loss terms, averaged over the processes.

    Raises:
        Error: train_diverged where the loss is not finite.
    """
    terms = model(batch, step / steps * config.epochs)
    values = distributed.mean(torch.stack([v.detach() for v in terms.values()])).tolist()
    means = dict(zip(terms, values))
    if not math.isfinite(means["total"]):
        fix = "lower [train] rate, or check the data"
        raise Error(Code.train_diverged, f"the loss is not finite: {means}", f"step {step}", fix)
    scaler.scale(terms["total"] / config.accumulate).backward()
    return means


def take_step(
    stage: Stage, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, rate: float, clip: float
) -> float:
    """Takes one step along the gradient, its norm clipped to `clip`; returns the norm before clipping."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(stage.parameters(), clip)
    scaler.step(optimizer)
    scaler.update()
    return float(norm)
