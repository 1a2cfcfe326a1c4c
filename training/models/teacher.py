"""LiDAR teacher and label encoder, used only in training: neither may appear in an exported graph."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from imkd_edge.spec import BOX_CHANNELS, ModelSpec
from imkd_edge.training import lidar
from imkd_edge.training.models.bev import Head
from imkd_edge.training.models.blocks import conv_bn
from imkd_edge.training.models.radar import GridEncoder
from imkd_edge.training.sections import TeacherConfig


class Teacher(Head):
    """Pillar CenterPoint (Yin et al. 2021) on the student's BEV grid: pillar statistics -> F_lidar -> trunk -> head.

    With `radar` it fuses LiDAR and radar, so that it has the student's information where the LiDAR has no returns.
    """

    def __init__(self, spec: ModelSpec, config: TeacherConfig):
        super().__init__(spec, config.channels)
        ratio = round(spec.grid.cell / spec.radar.cell)
        self.encoder = GridEncoder(lidar.CHANNELS, ratio, config.channels)
        self.radar = GridEncoder(len(spec.radar.features), ratio, config.channels) if config.radar else None
        self.join = conv_bn((1 + config.radar) * config.channels, config.channels)
        # 99th percentile of log reflectance over the training set
        self.register_buffer("reflectance_scale", torch.ones(()))

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """lidar_grid (B,F,Hr,Wr), and radar_grid with `radar` -> f_lidar (B,C,H,W) and the tensors of `predict`."""
        maps = [self.encoder(batch["lidar_grid"])]
        maps += [] if self.radar is None else [self.radar(batch["radar_grid"])]
        f_lidar = self.add_position(self.join(torch.cat(maps, 1)))
        return {"f_lidar": f_lidar, **self.predict(f_lidar)}


class LabelEncoder(nn.Module):
    """Labels -> F_label (B,C,H,W), trained to decode through the frozen teacher's head (LabelDistill, ECCV 2024)."""

    def __init__(self, spec: ModelSpec, config: TeacherConfig):
        super().__init__()
        self.classes = len(spec.head.classes)
        c = config.channels
        self.net = nn.Sequential(
            conv_bn(BOX_CHANNELS + self.classes, c, 1), conv_bn(c, c, 1), conv_bn(c, c), conv_bn(c, c)
        )

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.net(self.raster(batch))

    def raster(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B,10+K,H,W): box (unknown channels 0) and one-hot class of each cell's object; 0 in cells without one."""
        occupied = batch["label"] >= 0
        one_hot = F.one_hot(batch["label"].clamp(min=0), self.classes).permute(0, 3, 1, 2)
        values = torch.cat([torch.nan_to_num(batch["box"]), one_hot.to(batch["box"].dtype)], 1)
        return values * occupied[:, None]
