"""Encoder of a dense grid of radar or LiDAR returns onto the BEV grid."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from imkd_edge.training.models.blocks import Residual, batch_norm, conv_bn


class DownUp(nn.Module):
    """Fills cells without a return from those around: down to half the resolution and up; the identity at first."""

    def __init__(self, channels: int):
        super().__init__()
        self.down = nn.Sequential(conv_bn(channels, channels, 3, 2), Residual(channels))
        self.up = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), batch_norm(channels))
        nn.init.zeros_(self.up[1].weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = F.interpolate(self.down(x), size=x.shape[-2:], mode="nearest")
        return torch.relu(x + self.up(wide))


class GridEncoder(nn.Module):
    """grid (B,F,H*ratio,W*ratio) -> (B,C,H,W), ratio 1, 2 or 4 (config.py), by strided convolutions.

    `densify` blocks then spread the sparse returns, as those of RadarDistill (Bang et al., CVPR 2024) do.
    """

    def __init__(self, features: int, ratio: int, channels: int, densify: int = 0):
        super().__init__()
        layers = [conv_bn(features, channels, 3, 1 if ratio == 1 else 2)]
        if ratio == 4:
            layers.append(conv_bn(channels, channels, 3, 2))
        self.net = nn.Sequential(*layers, Residual(channels))
        self.densify = nn.Sequential(*(DownUp(channels) for _ in range(densify)))

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        return self.densify(self.net(grid))
