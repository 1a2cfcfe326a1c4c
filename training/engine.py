"""One epoch of training, apart from the program around it (main.py)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from imkd_edge.errors import Code, Error
from imkd_edge.training import world
from imkd_edge.training.config import TrainConfig
from imkd_edge.training.stages import Stage


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine down to 1 % of the peak."""
    warm = max(1, int(config.warmup * steps))
    if step < warm:
        return config.rate * (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    return config.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def make_optimizer(stage: Stage, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW; no decay on biases and batch norms."""
    trained = [p for p in stage.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.rate)


@torch.no_grad()
def update_ema(ema: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """ema <- decay * ema + (1 - decay) * network, with a decay that grows from 0; batch statistics too."""
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
) -> dict[str, float]:
    """Returns the mean of every loss term and of the gradient norm.

    Args:
        model: the stage, or DDP around it.
        batches: micro-batches, config.accumulate to a step.
        scaler: of the loss, for gradients that float16 would lose.

    Raises:
        Error: train_diverged, with the terms, when the loss is not finite.
    """
    stage: Stage = getattr(model, "module", model)
    stage.train()
    sums: dict[str, float] = {}
    count = 0
    for count, batch in enumerate(batches, 1):
        step, part = divmod(count - 1, config.accumulate)
        step += first_step
        whole = part == config.accumulate - 1
        if part == 0:
            optimizer.zero_grad(set_to_none=True)
        with contextlib.nullcontext() if whole or model is stage else model.no_sync():
            terms = model(moved(batch, stage.device), step / steps * config.epochs)
            means = dict(zip(terms, world.mean(torch.stack([v.detach() for v in terms.values()])).tolist()))
            if not math.isfinite(means["total"]):
                fix = "lower [train] rate, or look at the data"
                raise Error(Code.train_diverged, f"the loss is not finite: {means}", f"step {step}", fix)
            scaler.scale(terms["total"] / config.accumulate).backward()
        for key, value in means.items():
            sums[key] = sums.get(key, 0.0) + value
        if whole:
            norm = advance(stage, optimizer, scaler, learning_rate(step, steps, config), config.clip)
            update_ema(ema, stage.network, config.ema, step)
            sums["gradient"] = sums.get("gradient", 0.0) + norm * config.accumulate
    return {k: v / max(1, count) for k, v in sums.items()}


def advance(
    stage: Stage, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, rate: float, clip: float
) -> float:
    """One step along the clipped gradient; returns the gradient's norm."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(stage.parameters(), clip)
    scaler.step(optimizer)
    scaler.update()
    return float(norm)


def moved(values: Any, device: torch.device) -> Any:
    """A batch on another device."""
    if isinstance(values, torch.Tensor):
        return values.to(device, non_blocking=True)
    if isinstance(values, dict):
        return {key: moved(value, device) for key, value in values.items()}
    return [moved(value, device) for value in values]
