"""The student: camera part, lift, BEV part. The lift's table comes from the runtime's C++; only its sum is torch."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from imkd_edge import ModelSpec
from imkd_edge.training.config import ModelConfig
from imkd_edge.training.models.bev import BevNet
from imkd_edge.training.models.camera import CameraNet

warnings.filterwarnings("ignore", message="Sparse CSR tensor support")


class LiftSum(torch.autograd.Function):
    """The sum of `ops.lift` as a sparse product: BEV = S @ features with S (cells, pixels) holding the depth of every frustum point."""

    @staticmethod
    def forward(ctx, depth, features, points, pixels, rows):
        """depth (N*D*h*w,), features (N*h*w, C), points and pixels (P,), rows (cells+1,) interval of each cell -> (cells, C)."""
        weight = depth[points]
        ctx.save_for_backward(weight, features, points, pixels, rows)
        ctx.size = len(depth)
        return _sparse(rows, pixels, weight, len(features)) @ features

    @staticmethod
    def backward(ctx, grad):
        weight, features, points, pixels, rows = ctx.saved_tensors
        grad = grad.contiguous()
        S = _sparse(rows, pixels, torch.zeros_like(weight), len(features))
        by_point = torch.sparse.sampled_addmm(S, grad, features.t(), beta=0.0).values()
        d_depth = grad.new_zeros(ctx.size).index_put((points,), by_point)  # a frustum point is in one cell at most
        d_features = _sparse(rows, pixels, weight, len(features)).t() @ grad
        return d_depth, d_features, None, None, None


def _sparse(rows: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, width: int) -> torch.Tensor:
    return torch.sparse_csr_tensor(rows, columns, values, (len(rows) - 1, width), check_invariants=False)


def lift_sum(
    depth: torch.Tensor,  # (N,D,h,w)
    context: torch.Tensor,  # (N,C,h,w)
    batch: dict[str, torch.Tensor],  # points, pixels (P,), rows (cells+1,): the lift's table over the whole batch
) -> torch.Tensor:  # (cells, C+1)
    """Sum of depth times context over the frustum points of each cell; the last channel sums depth alone."""
    features = context.permute(0, 2, 3, 1).reshape(-1, context.shape[1])
    features = torch.cat([features, features.new_ones(len(features), 1)], 1)
    with torch.autocast("cpu", enabled=False):
        return LiftSum.apply(depth.reshape(-1).float(), features.float(), batch["points"], batch["pixels"], batch["rows"])


class Student(nn.Module):
    """Everything that is deployed; `camera` and `bev` become camera.onnx and bev.onnx."""

    def __init__(self, spec: ModelSpec, model: ModelConfig):
        super().__init__()
        self.grid = (spec.grid.height(), spec.grid.width())
        self.frozen = model.frozen_backbone
        self.camera = CameraNet(spec, model.backbone, model.camera_channels, model.pretrained)
        self.bev = BevNet(spec, model.bev_channels, model.sensor_channels, model.gates)
        if self.frozen:
            self.camera.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> Student:
        super().train(mode)
        if self.frozen:
            self.camera.backbone.eval()
        return self

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """batch: see data.collate. Returns depth, heatmap (logits), box, and what BevNet.features names."""
        if "features" in batch:
            depth, context = self.camera.head(batch["features"])
        else:
            depth, context = self.camera(batch["images"])
        depth = depth * batch["present"].view(-1, 1, 1, 1)
        lifted = lift_sum(depth, context, batch)
        camera_bev = lifted.view(-1, *self.grid, lifted.shape[1]).permute(0, 3, 1, 2).contiguous()
        features = self.bev.features(camera_bev, batch["radar_grid"])
        heatmap, box = self.bev.decide(features["f_fused"])
        return {"depth": depth, "heatmap": heatmap, "box": box, **features}
