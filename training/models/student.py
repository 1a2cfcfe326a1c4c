"""The student: camera part, lift, BEV part. C++ makes the lift's table; torch computes only its sum."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from imkd_edge.spec import ModelSpec
from imkd_edge.training.mix import mix_maps
from imkd_edge.training.models.bev import BevNet
from imkd_edge.training.models.camera import CameraNet
from imkd_edge.training.sections import ModelConfig
from imkd_edge.training.temporal import warp_history

warnings.filterwarnings("ignore", message="Sparse CSR tensor support")


class LiftSum(torch.autograd.Function):
    """The sum of `ops.lift` as a sparse product: BEV = S @ features, S (cells, pixels) of frustum points' depth."""

    @staticmethod
    def forward(ctx, depth, features, points, pixels, rows):
        """depth (N*D*h*w,), features (N*h*w, C), points, pixels (P,), rows (cells+1,): intervals -> (cells, C)."""
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
        d_depth = grad.new_zeros(ctx.size).index_put((points,), by_point)  # a frustum point lies in one cell at most
        d_features = _sparse(rows, pixels, weight, len(features)).t() @ grad
        return d_depth, d_features, None, None, None


def _sparse(rows: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, width: int) -> torch.Tensor:
    return torch.sparse_csr_tensor(rows, columns, values, (len(rows) - 1, width), check_invariants=False)


def lift_sum(
    depth: torch.Tensor,  # (N,D,h,w)
    context: torch.Tensor,  # (N,C,h,w)
    batch: dict[str, torch.Tensor],  # points, pixels (P,), rows (cells+1,): the lift's table of the batch
) -> torch.Tensor:  # (cells, C+1)
    """Sums depth times context over the frustum points of each cell; the last channel is the sum of depth."""
    features = context.permute(0, 2, 3, 1).reshape(-1, context.shape[1])
    features = torch.cat([features, features.new_ones(len(features), 1)], 1)
    table = batch["points"], batch["pixels"], batch["rows"]
    with torch.autocast(depth.device.type, enabled=False):
        return LiftSum.apply(depth.reshape(-1).float(), features.float(), *table)


class Student(nn.Module):
    """All deployed networks; `camera` and `bev` become camera.onnx and bev.onnx."""

    def __init__(self, spec: ModelSpec, model: ModelConfig):
        super().__init__()
        self.spec = spec
        self.grid = (spec.grid.height(), spec.grid.width())
        self.frozen = model.frozen_backbone
        self.camera = CameraNet(spec, model.backbone, model.camera_channels, model.pretrained, model.weights)
        self.bev = BevNet(spec, model)
        if self.frozen:
            self.camera.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> Student:
        super().train(mode)
        if self.frozen:
            self.camera.backbone.eval()
        return self

    def encode(self, batch: dict) -> dict[str, torch.Tensor]:
        """Encodes the present frames of a batch of data.collate: "depth" (N,D,h,w), and the maps of BevNet.features."""
        if "features" in batch:
            depth, context = self.camera.head(batch["features"])
        else:
            depth, context = self.camera(batch["images"])
        depth = depth * batch["present"].view(-1, 1, 1, 1)
        lifted = lift_sum(depth, context, batch)
        camera_bev = lifted.view(-1, *self.grid, lifted.shape[1]).permute(0, 3, 1, 2).contiguous()
        if "sector" in batch:
            camera_bev = mix_maps(camera_bev, batch["sector"])
        return {"depth": depth, **self.bev.features(camera_bev, batch["radar_grid"])}

    @torch.no_grad()
    def history(self, batch: dict) -> torch.Tensor | None:
        """Past F_fused in the present ego frame (B,frames*C,H,W), newest first, 0 in empty slots; None without history.

        Past frames run in evaluation mode, as on the device: with the running statistics of the batch norms, which
        frames without a loss must not update.
        """
        spec = self.spec
        if not spec.history.frames:
            return None
        fused = None
        if "past" in batch:
            mode = self.training
            fused = self.eval().encode(batch["past"])["f_fused"]
            self.train(mode)
        radar_grid = batch["radar_grid"]
        slots, motions = batch.get("past_slot"), batch.get("past_motion")
        maps = warp_history(spec, len(radar_grid), fused, slots, motions, batch["ground"])
        return maps.to(radar_grid)

    def forward(self, batch: dict) -> dict[str, torch.Tensor]:
        """Maps a batch of data.collate to depth, the maps of BevNet.features and the outputs of BevNet.detect."""
        history = self.history(batch)
        maps = self.encode(batch)
        return {**maps, **self.bev.detect(maps["f_fused"], history)}
