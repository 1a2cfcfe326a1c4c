"""The networks that `imkd-edge init --size` offers."""

from __future__ import annotations

from dataclasses import dataclass

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # mean and std, RGB


@dataclass(frozen=True)
class Size:
    """The networks of a size."""

    backbone: str
    width: int  # px of the network's images, at most
    stride: int
    bins: int
    context: int
    channels: tuple[int, int, int]  # [model] camera_channels, bev_channels, sensor_channels
    cells: int  # of a side of the grid, about
    rate: float
    pixels: float  # of all images of a step
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pretrained: bool = False


_GREY = (127.0, 127.0, 127.0)
SIZES = {
    "tiny": Size("small", 256, 8, 32, 31, (32, 32, 16), 160, 3e-3, 0.8e6, _GREY, (64.0, 64.0, 64.0)),
    "lite": Size(
        "tf_efficientnet_lite0", 640, 8, 48, 31, (64, 32, 32), 160, 3e-3, 1.5e6, _GREY, (128.0, 128.0, 128.0), True
    ),
    "r18": Size("resnet18", 704, 16, 70, 80, (256, 128, 80), 160, 2e-4, 4.4e6, *IMAGENET),
    "r50": Size("resnet50", 704, 16, 70, 80, (256, 128, 80), 160, 2e-4, 4.4e6, *IMAGENET),
}
