"""BEV part: camera BEV and radar grid -> gates -> fusion -> trunk -> CenterPoint head."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from imkd_edge.spec import BOX_CHANNELS, ModelSpec
from imkd_edge.training.models.blocks import Residual, conv_bn
from imkd_edge.training.models.radar import GridEncoder
from imkd_edge.training.sections import ModelConfig

INTENSITY = ("log_count", "intensity_max", "intensity_mean")  # inputs of the radar gate besides F_rad
PRIOR = -math.log(99)  # logit of a score of 1 %, with which heat maps start


class Gate(nn.Module):
    """I = sigmoid(g([F; evidence])), (B,1,H,W); starts open at sigmoid(2) = 0.88."""

    def __init__(self, channels: int, evidence: int):
        super().__init__()
        self.net = nn.Sequential(conv_bn(channels + evidence, 16, 1), nn.Conv2d(16, 1, 1))
        nn.init.zeros_(self.net[1].weight)
        nn.init.constant_(self.net[1].bias, 2.0)

    def forward(self, feature: torch.Tensor, evidence: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.net(torch.cat([feature, evidence], 1)))


class Trunk(nn.Module):
    """Three scales, merged at the finest."""

    def __init__(self, channels: int):
        super().__init__()
        wide, deep = channels * 2, channels * 4
        self.fine = Residual(channels)
        self.middle = nn.Sequential(conv_bn(channels, wide, 3, 2), Residual(wide))
        self.coarse = nn.Sequential(conv_bn(wide, deep, 3, 2), Residual(deep))
        self.from_coarse = conv_bn(deep, wide, 1)
        self.join_middle = conv_bn(wide, wide)
        self.from_middle = conv_bn(wide, channels, 1)
        self.join_fine = conv_bn(channels, channels)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B,C,H,W) -> f_head (B,C,H,W), before it is merged f_middle (B,2C,H/2,W/2) and f_coarse (B,4C,H/4,W/4)."""
        fine = self.fine(x)
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        wide = F.interpolate(self.from_coarse(coarse), size=middle.shape[-2:], mode="nearest")
        wide = self.from_middle(self.join_middle(middle + wide))
        head = self.join_fine(fine + F.interpolate(wide, size=fine.shape[-2:], mode="nearest"))
        return {"f_middle": middle, "f_coarse": coarse, "f_head": head}


class Head(nn.Module):
    """Trunk and CenterPoint head behind the fused map, of teacher and student alike."""

    def __init__(self, spec: ModelSpec, channels: int):
        super().__init__()
        classes, groups = len(spec.head.classes), spec.head.groups()
        self.register_buffer("positions", _positions(spec), persistent=False)
        self.position_weight = nn.Conv2d(2, channels, 1)
        self.trunk = Trunk(channels)
        inner = max(32, channels // 2)
        self.heatmap = nn.Sequential(conv_bn(channels, inner), nn.Conv2d(inner, classes, 1))
        self.box = nn.Sequential(conv_bn(channels, inner), nn.Conv2d(inner, groups * BOX_CHANNELS, 1))
        nn.init.constant_(self.heatmap[1].bias, PRIOR)

    def add_position(self, fused: torch.Tensor) -> torch.Tensor:
        """Adds an embedding of each cell's coordinates."""
        return fused + self.position_weight(self.positions)

    def inherit(self, other: Head) -> None:
        """Copies the weights of another trunk and head of the same size."""
        for name in ("position_weight", "trunk", "heatmap", "box"):
            getattr(self, name).load_state_dict(getattr(other, name).state_dict())

    def predict(self, fused: torch.Tensor) -> dict[str, torch.Tensor]:
        """F_fused (B,C,H,W) -> heatmap (B,K,H,W) logits, box (B,groups*10,H,W), and the maps of the trunk."""
        maps = self.trunk(fused)
        return {**maps, "heatmap": self.heatmap(maps["f_head"]), "box": self.box(maps["f_head"])}


class BevNet(Head):
    """Camera BEV and radar grid, with a history also past maps -> the tensors of `outputs`.

    camera_bev (B,C+1,H,W), radar_grid (B,F,Hr,Wr), history (B,frames*C,H,W).
    """

    def __init__(self, spec: ModelSpec, model: ModelConfig):
        channels, sensor_channels = model.bev_channels, model.sensor_channels
        super().__init__(spec, channels)
        names = [f.statistic for f in spec.radar.features]
        intensity = torch.tensor([names.index(n) for n in INTENSITY if n in names])
        self.register_buffer("intensity", intensity, persistent=False)
        ratio = round(spec.grid.cell / spec.radar.cell)
        self.pool = nn.MaxPool2d(ratio) if ratio > 1 else nn.Identity()
        self.camera = conv_bn(spec.context_channels + 1, sensor_channels)
        self.radar = GridEncoder(len(names), ratio, sensor_channels, model.densify)
        self.gates, self.concat = model.gates, model.fusion == "concat"
        if self.gates:
            self.camera_gate = Gate(sensor_channels, 1)
            self.radar_gate = Gate(sensor_channels, len(self.intensity))
        self.fuse = conv_bn((1 + self.concat) * sensor_channels, channels)
        self.remember = conv_bn((1 + spec.history.frames) * channels, channels) if spec.history.frames else None
        self.segmentation = nn.Conv2d(channels, 1, 1) if spec.segmentation else None

    def features(self, camera_bev: torch.Tensor, radar_grid: torch.Tensor) -> dict[str, torch.Tensor]:
        """F_rad and F_fused (B,C,H,W) of the present, without history; with gates also i_cam and i_rad (B,1,H,W)."""
        f_cam, f_rad = self.camera(camera_bev), self.radar(radar_grid)
        maps = {"f_rad": f_rad}
        if self.gates:
            maps["i_cam"] = self.camera_gate(f_cam, camera_bev[:, -1:])
            maps["i_rad"] = self.radar_gate(f_rad, self.pool(radar_grid.index_select(1, self.intensity)))
            f_cam, f_rad = maps["i_cam"] * f_cam, maps["i_rad"] * f_rad
        joined = torch.cat([f_cam, f_rad], 1) if self.concat else f_cam + f_rad
        return {**maps, "f_fused": self.add_position(self.fuse(joined))}

    def detect(self, fused: torch.Tensor, history: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """F_fused and the past maps, warped to the present -> the tensors of `predict`, and segmentation logits."""
        if self.remember is not None:
            fused = self.remember(torch.cat([fused, history], 1))
        out = self.predict(fused)
        return out if self.segmentation is None else {**out, "segmentation": self.segmentation(out["f_head"])}

    def inherit(self, other: Head) -> None:
        """Also copies radar encoder and fusion, where the other has them in the same sizes.

        A teacher that reads radar has them; the camera then replaces only its LiDAR. A fusion by sum takes the weights
        of the radar's channels, which come last.
        """
        super().inherit(other)
        radar = getattr(other, "radar", None)
        if radar is None or radar.net[-1].second[0].weight.shape != self.radar.net[-1].second[0].weight.shape:
            return
        self.radar.net.load_state_dict(radar.net.state_dict())
        join = other.join.state_dict()
        join["0.weight"] = join["0.weight"][:, -self.fuse[0].in_channels :]
        self.fuse.load_state_dict(join)

    @property
    def outputs(self) -> list[str]:
        """Names of the tensors that forward returns, in its order."""
        names = ["heatmap", "box"]
        names += [] if self.remember is None else ["fused"]
        names += [] if self.segmentation is None else ["segmentation"]
        return names + (["i_cam", "i_rad"] if self.gates else [])

    def forward(
        self, camera_bev: torch.Tensor, radar_grid: torch.Tensor, history: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        maps = self.features(camera_bev, radar_grid)
        out = {**maps, "fused": maps["f_fused"], **self.detect(maps["f_fused"], history)}
        return tuple(out[name] for name in self.outputs)


def _positions(spec: ModelSpec) -> torch.Tensor:
    """Coordinates of the cells in [-1, 1], (1,2,H,W): the radar's height bias and the ground depend on the position."""
    rows, columns = torch.linspace(-1, 1, spec.grid.height()), torch.linspace(-1, 1, spec.grid.width())
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y])[None]
