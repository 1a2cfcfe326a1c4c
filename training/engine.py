"""One epoch of training, apart from the program around it (main.py)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from imkd_edge.errors import Code, Error
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
    stage: Stage,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[dict],
    config: TrainConfig,
    first_step: int,
    steps: int,
) -> dict[str, float]:
    """Returns the mean of every loss term and of the gradient norm.

    Raises:
        Error: train_diverged, with the terms, when the loss is not finite.
    """
    stage.train()
    sums: dict[str, float] = {}
    count = 0
    for count, batch in enumerate(batches, 1):
        step = first_step + count - 1
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, config)
        terms = stage.losses(batch, step / steps * config.epochs)
        if not torch.isfinite(terms["total"]):
            values = {k: float(v.detach()) for k, v in terms.items()}
            fix = "lower [train] rate, or look at the data"
            raise Error(Code.train_diverged, f"the loss is not finite: {values}", f"step {step}", fix)
        optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()
        norm = nn.utils.clip_grad_norm_(stage.parameters(), config.clip)
        optimizer.step()
        update_ema(ema, stage.network, config.ema, step)
        for key, value in {**terms, "gradient": norm}.items():
            sums[key] = sums.get(key, 0.0) + float(value.detach())
    return {k: v / max(1, count) for k, v in sums.items()}
