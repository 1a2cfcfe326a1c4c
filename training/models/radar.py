"""Encoder of a dense grid of radar or LiDAR returns onto the BEV grid."""

from __future__ import annotations

import torch
from torch import nn

from imkd_edge.training.models.blocks import Residual, conv_bn


class GridEncoder(nn.Module):
    """grid (B,F,H*ratio,W*ratio) -> (B,C,H,W), ratio 1, 2 or 4 (config.py), by strided convolutions."""

    def __init__(self, features: int, ratio: int, channels: int):
        super().__init__()
        layers = [conv_bn(features, channels, 3, 1 if ratio == 1 else 2)]
        if ratio == 4:
            layers.append(conv_bn(channels, channels, 3, 2))
        self.net = nn.Sequential(*layers, Residual(channels))

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        return self.net(grid)
