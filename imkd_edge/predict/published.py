"""Public networks, layer by layer from their configurations, and the stage times published for them on AGX Orin.

`python -m imkd_edge.predict.published` fits the predictor's constants to two of them and prints the errors on the
others.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from imkd_edge.predict.layers import Layer, in_int8
from imkd_edge.predict.roofline import DEVICES, Constants, time_of


@dataclass(frozen=True)
class Stage:
    """A network with its published time."""

    name: str
    layers: list[Layer]
    ms: float
    source: str


def conv(
    n: int, inputs: int, outputs: int, height: int, width: int, kernel: int = 3, stride: int = 1, residual: bool = False
) -> Layer:
    """A convolution with output (n, outputs, height, width), its activation and, where `residual`, the addition."""
    out = n * outputs * height * width
    read = n * inputs * height * width * stride**2 + (out if residual else 0)
    taps = inputs * kernel**2
    return Layer(f"{inputs}-{outputs} {kernel}x{kernel}", "Conv", out * taps, inputs, read, out, taps * outputs)


def resnet50(n: int, height: int, width: int) -> list[Layer]:
    """He et al. 2016, stages 1 to 4 of 3, 4, 6, 3 bottlenecks, stride in the 3x3."""
    h, w = height // 2, width // 2
    pool = Layer("max pool", "MaxPool", read=n * 64 * h * w, written=n * 64 * h * w // 4)
    layers = [conv(n, 3, 64, h, w, 7, 2), pool]
    h, w, inputs = h // 2, w // 2, 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = 64 * 2**stage
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(conv(n, inputs, inner, h, w, 1))
            h, w = h // stride, w // stride
            layers.append(conv(n, inner, inner, h, w, 3, stride))
            if block == 0:
                layers.append(conv(n, inputs, 4 * inner, h, w, 1, stride))
            layers.append(conv(n, inner, 4 * inner, h, w, 1, residual=True))
            inputs = 4 * inner
    return layers


def bevdet_image() -> list[Layer]:
    """BEVDet4D-longterm R50: six 256x704 images.

    CustomFPN to 256 channels at 1/16, depth net of three blocks and ASPP, 80 + 118 maps.
    """
    n, h, w = 6, 16, 44
    neck = [conv(n, 1024, 256, h, w, 1), conv(n, 2048, 256, h // 2, w // 2, 1), conv(n, 256, 256, h, w)]
    depth = [conv(n, 256, 256, h, w), *(conv(n, 256, 256, h, w, residual=bool(i % 2)) for i in range(6))]
    aspp = [conv(n, 256, 96, h, w, 1), *(conv(n, 256, 96, h, w) for _ in range(3)), conv(n, 480, 256, h, w, 1)]
    heads = [conv(n, 256, 256, h, w), conv(n, 256, 118, h, w, 1), conv(n, 256, 80, h, w, 1)]
    return [*resnet50(n, 256, 704), *neck, *depth, *aspp, *heads]


def bevdet_bev() -> list[Layer]:
    """BEVDet4D's BEV encoder on nine frames of 80 channels at 128x128.

    ResNet stages of 160, 320, 640, FPN-LSS to 256, a CenterPoint head.
    """
    layers, inputs = [], 720
    for outputs, size in ((160, 64), (320, 32), (640, 16)):
        layers += [conv(1, inputs, outputs, size, size, 3, 2), conv(1, inputs, outputs, size, size, 3, 2)]
        layers += [conv(1, outputs, outputs, size, size, residual=i != 1) for i in range(3)]
        inputs = outputs
    layers += [conv(1, 800, 512, 64, 64), conv(1, 512, 512, 64, 64)]
    layers += [conv(1, 512, 256, 128, 128), conv(1, 256, 256, 128, 128, 1)]
    layers += [conv(1, 256, 64, 128, 128)]
    for outputs in (2, 1, 3, 2, 2, 10):  # reg, height, dim, rot, vel, heatmap
        layers += [conv(1, 64, 64, 128, 128), conv(1, 64, outputs, 128, 128)]
    return layers


def pointpillars() -> list[Layer]:
    """CUDA-PointPillars, KITTI: a 432x496 canvas of 64 channels.

    Blocks of 4, 6, 6 convolutions, deconvolutions to 128, the anchor head.
    """
    layers, inputs = [], 64
    for outputs, (h, w), count in ((64, (248, 216), 4), (128, (124, 108), 6), (256, (62, 54), 6)):
        layers.append(conv(1, inputs, outputs, h, w, 3, 2))
        layers += [conv(1, outputs, outputs, h, w) for _ in range(count - 1)]
        read, written = outputs * h * w, 128 * 248 * 216
        taps = 128 * (248 // h) ** 2
        layers.append(Layer("deconvolution", "ConvTranspose", read * taps, outputs, read, written, outputs * taps))
        inputs = outputs
    return [*layers, *(conv(1, 384, outputs, 248, 216, 1) for outputs in (18, 42, 12))]


def bevfusion_camera() -> list[Layer]:
    """CUDA-BEVFusion's camera part: R50, GeneralizedLSSFPN to 1/8.

    Depth net on 32x88 with 64 channels of LiDAR depth, 118 + 80 maps.
    """
    n = 6
    neck = [conv(n, 3072, 256, 16, 44, 1), conv(n, 256, 256, 16, 44)]
    neck += [conv(n, 768, 256, 32, 88, 1), conv(n, 256, 256, 32, 88)]
    depth = [conv(n, 320, 256, 32, 88), conv(n, 256, 256, 32, 88), conv(n, 256, 198, 32, 88, 1)]
    return [*resnet50(n, 256, 704), *neck, *depth]


def stages() -> tuple[list[Stage], list[Stage]]:
    """The stages that the constants are fitted to, and those that are held out."""
    bevdet, nvidia = "bevdet-tensorrt-cpp, README", "NVIDIA CUDA-PointPillars, README"
    fitted = [
        Stage("BEVDet R50, image, FP16", bevdet_image(), 17.03, bevdet),
        Stage("BEVDet R50, BEV, FP16", bevdet_bev(), 5.75, bevdet),
    ]
    held_out = [
        Stage("BEVDet R50, image, INT8", in_int8(bevdet_image()), 10.34, bevdet),
        Stage("BEVDet R50, BEV, INT8", in_int8(bevdet_bev()), 4.00, bevdet),
        Stage("PointPillars, network, FP16", pointpillars(), 4.87, nvidia),
        Stage("BEVFusion R50, camera, FP16", bevfusion_camera(), 13.5, "users of CUDA-BEVFusion, 13 to 14 ms"),
    ]
    return fitted, held_out


def error(stage: Stage, constants: Constants) -> float:
    """Relative error of the predicted time: (predicted - published) / published."""
    return time_of(stage.layers, DEVICES["orin-agx-64"], constants) * 1e3 / stage.ms - 1


def fit() -> Constants:
    """The shares of peak and bandwidth, 0.2 to 0.95 by 0.01, with the least squared errors on the fitted stages."""
    grid = [i / 100 for i in range(20, 96)]
    choices = (Constants(compute, memory) for compute, memory in itertools.product(grid, grid))
    return min(choices, key=lambda c: sum(error(stage, c) ** 2 for stage in stages()[0]))


def main() -> None:
    """Prints the fit and the errors."""
    best, used = fit(), Constants()
    print(f"fitted: {best.compute:.2f} of the peak, {best.memory:.2f} of the bandwidth", end="; ")
    print(f"used: {used.compute}, {used.memory}")
    for kind, group in zip(("fitted to", "held out "), stages(), strict=True):
        for stage in group:
            predicted = time_of(stage.layers, DEVICES["orin-agx-64"], used) * 1e3
            times = f"published {stage.ms:6.2f} ms  predicted {predicted:6.2f} ms"
            print(f"{kind}  {stage.name:30} {times}  {error(stage, used):+.0%}")


if __name__ == "__main__":
    main()
