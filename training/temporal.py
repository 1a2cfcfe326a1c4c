"""Temporal fusion: past fused maps in the present ego frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

import imkd_edge.ops as ops
from imkd_edge.spec import ModelSpec


def past_motions(now: ops.EgoMotion, past: Sequence[ops.EgoMotion | None]) -> list[np.ndarray | None]:
    """T_then_now (4,4) of each past frame, newest first; None without a frame, and from the first unknown motion on.

    As the Detector's history, which composes the motions from frame to frame and begins anew after an unknown one.
    """
    motions: list[np.ndarray | None] = [None] * len(past)
    newer, T_newer_now = now, np.eye(4)
    for slot, then in enumerate(past):
        if then is None:
            continue
        T_then_newer = newer.since(then)
        if T_then_newer is None:
            break
        newer, T_newer_now = then, T_then_newer @ T_newer_now
        motions[slot] = T_newer_now
    return motions


def is_blind(inputs: Mapping[str, np.ndarray]) -> bool:
    """Whether no sensor gives anything to the networks: the runtime stores no map of such a frame."""
    return not inputs["present"].any() and not inputs["radar_grid"].any()


def warp_history(
    spec: ModelSpec,
    examples: int,
    fused: torch.Tensor | None = None,  # (P,C,H,W)
    slots: torch.Tensor | None = None,  # (P,2) example and slot of each
    motions: torch.Tensor | None = None,  # (P,4,4) T_then_now of each
    grounds: torch.Tensor | None = None,  # (examples,3) ground planes of the present ego frames; None: z = 0
) -> torch.Tensor:  # (examples,frames*C,H,W) float32
    """Warps past fused maps by the runtime's op; slot 0 is the newest, and empty slots are 0."""
    grid, history = spec.grid, spec.history
    out = np.zeros((examples, history.frames, history.channels, grid.height(), grid.width()), np.float32)
    if fused is not None and slots is not None and motions is not None:
        maps = fused.float().cpu().contiguous().numpy()
        planes = np.zeros((examples, 3)) if grounds is None else grounds.cpu().numpy()
        for features, (example, slot), T_then_now in zip(maps, slots.tolist(), motions.cpu().numpy()):
            out[example, slot] = ops.warp_bev(grid, features, T_then_now, planes[example])
    return torch.from_numpy(out.reshape(examples, -1, grid.height(), grid.width()))
