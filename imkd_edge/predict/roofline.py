"""Predicted time of a frame on a Jetson: a roofline of each layer and kernel. Nothing here is a measurement.

A layer takes the longer of its arithmetic and its memory traffic, plus the gap between two kernels. COMPUTE and MEMORY
are fitted to published stage times of another network on AGX Orin (`python -m imkd_edge.predict.published` prints the
fit and the errors); GAP is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imkd_edge.bundle import PARTS, Bundle, golden_rig
from imkd_edge.errors import Code, Error
from imkd_edge.predict.layers import Layer, in_int8, layers
from imkd_edge.rig import SensorRig
from imkd_edge.spec import BOX_CHANNELS, ModelSpec


@dataclass(frozen=True)
class Device:
    """Dense peaks of a module in its highest power mode."""

    name: str
    fp16: float  # operations/s
    int8: float
    bandwidth: float  # bytes/s
    source: str


def _ampere(name: str, sms: int, clock: float, bandwidth: float) -> Device:
    """An SM of sm_87 does 2,048 INT8 or 1,024 FP16 multiply-adds per clock."""
    source = f"NVIDIA data sheet: {sms} SMs at {clock / 1e9:g} GHz"
    return Device(name, 2048 * sms * clock, 4096 * sms * clock, bandwidth, source)


DEVICES = {
    device.name: device
    for device in (
        _ampere("orin-agx-64", 16, 1.3e9, 204.8e9),
        _ampere("orin-nx-16", 8, 0.918e9, 102.4e9),
        _ampere("orin-nano-8", 8, 0.625e9, 68e9),
        Device(
            "thor", 259e12, 517e12, 273e9, "NVIDIA: 2,070 sparse FP4 TFLOPS, halved for dense, for 8 and for 16 bits"
        ),
    )
}

COMPUTE = 0.61  # share of the peak that a large convolution reaches
MEMORY = 0.50  # share of the bandwidth
GAP = 4e-6  # s from one kernel to the next
RADAR_POINTS = 4096  # of a nuScenes frame, rounded up
POINT_BYTES = 36  # of a point between our kernels; it is moved three times
STEP = {False: 16, True: 32}  # INT8 -> input channels that tensor cores process at once
PRECISIONS = ("auto", "fp16", "int8")
STAGES = ("preprocess", "camera", "lift", "radar", "warp", "bev", "decode")


@dataclass(frozen=True)
class Constants:
    """Constants of the model: the fitted shares of peak and bandwidth, and the gap between kernels."""

    compute: float = COMPUTE
    memory: float = MEMORY
    gap: float = GAP


def layer_time(layer: Layer, device: Device, constants: Constants = Constants()) -> tuple[float, str]:
    """Seconds of one layer, and its limit: "compute" or "memory"."""
    padded = math.ceil(layer.depth / STEP[layer.int8]) * STEP[layer.int8] / layer.depth if layer.depth else 1.0
    peak = device.int8 if layer.int8 else device.fp16
    size = 1 if layer.int8 else 2
    moved = size * (layer.read + layer.weights) + (1 if layer.int8_out else 2) * layer.written
    compute = 2 * layer.multiply_adds * padded / (peak * constants.compute)
    memory = moved / (device.bandwidth * constants.memory)
    return max(compute, memory) + constants.gap, "compute" if compute > memory else "memory"


def time_of(network: Sequence[Layer], device: Device, constants: Constants = Constants()) -> float:
    """Seconds of a network."""
    return sum(layer_time(layer, device, constants)[0] for layer in network)


def predict(bundle: str | Bundle, device: str, precision: str = "auto", rig: SensorRig | None = None) -> dict[str, Any]:
    """Predicted stage times of a bundle; see `predict_parts`.

    Args:
        bundle: a Bundle, its path or a shipped one's name.
        rig: whose images are resized; None: the golden drive's.
    """
    bundle = Bundle.load(bundle)
    parts = {part: bundle.read(f"{part}.onnx") for part in PARTS}
    prediction = predict_parts(parts, bundle.spec, rig or golden_rig(bundle), device, precision)
    return {"bundle": str(bundle.path), **prediction}


def predict_parts(
    parts: Mapping[str, bytes], spec: ModelSpec, rig: SensorRig, device: str, precision: str = "auto"
) -> dict[str, Any]:
    """Predicted stage times of two ONNX parts and of our kernels around them.

    Args:
        parts: "camera" and "bev" -> ONNX.
        device: a name in DEVICES.
        precision: "fp16"; "int8": every convolution but each part's first and last; "auto": INT8 where the graph has
            Q/DQ, FP16 elsewhere.

    Returns:
        {"predicted": True, "device", "precision", "stages_ms": {stage: {"ms", "limited_by", "kernels"}}, "total_ms",
        "fps", "int8_share" of the multiply-adds, "layers": {part: [{"name", "kind", "us", "limited_by", "int8"}]},
        "assumptions"}.

    Raises:
        Error: device_unavailable for another device, spec_bad_value for another precision.
    """
    if device not in DEVICES:
        what, fix = f'there is no model of the device "{device}"', f"choose one of: {', '.join(DEVICES)}"
        raise Error(Code.device_unavailable, what, "--predict", fix)
    if precision not in PRECISIONS:
        what, fix = f'there is no precision "{precision}"', f"choose one of: {', '.join(PRECISIONS)}"
        raise Error(Code.spec_bad_value, what, "--precision", fix)

    target, ours = DEVICES[device], kernels(spec, rig)
    networks = {part: layers(model) for part, model in parts.items()}
    if precision == "int8":
        networks = {part: in_int8(network) for part, network in networks.items()}
    stages = {
        name: _network(networks[name], target) if name in networks else _ours(*ours[name], target) for name in STAGES
    }
    total = sum(stage["ms"] for stage in stages.values())
    return {
        "predicted": True,
        "device": device,
        "precision": precision,
        "stages_ms": stages,
        "total_ms": total,
        "fps": 1000 / total,
        "int8_share": _int8_share(networks),
        "layers": {part: [_row(layer, target) for layer in network] for part, network in networks.items()},
        "assumptions": _assumptions(target),
    }


def _int8_share(networks: Mapping[str, list[Layer]]) -> float:
    every = [layer for network in networks.values() for layer in network]
    return sum(layer.multiply_adds for layer in every if layer.int8) / max(sum(x.multiply_adds for x in every), 1)


def _assumptions(device: Device) -> list[str]:
    peaks = f"{device.fp16 / 1e12:.1f} TFLOPS FP16, {device.int8 / 1e12:.0f} TOPS INT8, {device.bandwidth / 1e9:g} GB/s"
    shares = f"{COMPUTE:.0%} of the peak or {MEMORY:.0%} of the bandwidth"
    return [
        f"{device.source}; {peaks}",
        f"layers reach {shares}, with {GAP * 1e6:g} us between kernels",
        "stages run one after the other, nothing else uses the memory, clocks stay at their maximum",
    ]


def kernels(spec: ModelSpec, rig: SensorRig) -> dict[str, tuple[int, int]]:
    """Stage -> bytes moved by our kernels, and the number of kernels.

    As with `--io onnx`: tensors are float32, and the context is transposed to channels-last first.
    """
    image, cells = spec.image, spec.grid.width() * spec.grid.height()
    pixels = spec.cameras * image.feature_height() * image.feature_width()
    raw = sum(min(camera.width * camera.height, 4 * image.width * image.height) for camera in rig.cameras)
    inputs = 3 * spec.cameras * image.width * image.height
    frustum, context = pixels * spec.depth.bins, pixels * spec.context_channels
    radar = len(spec.radar.features) * spec.radar_width() * spec.radar_height()
    maps = spec.history.frames * spec.history.channels * cells
    heads = (len(spec.head.classes) + BOX_CHANNELS * spec.head.groups()) * cells
    return {
        "preprocess": (3 * raw + 4 * inputs, 1),
        "lift": (8 * frustum + 4 * (frustum + 3 * context + (spec.context_channels + 1) * cells), 4),
        "radar": (4 * radar + 3 * POINT_BYTES * RADAR_POINTS, 7),
        "warp": (8 * maps, 1 if maps else 0),
        "decode": (4 * heads, 2),
    }


def _network(network: list[Layer], device: Device) -> dict[str, Any]:
    """Time of a network, and the limit of most of it."""
    times = [layer_time(layer, device) for layer in network]
    by_limit = {limit: sum(seconds for seconds, by in times if by == limit) for limit in ("compute", "memory")}
    return {
        "ms": 1e3 * sum(by_limit.values()),
        "limited_by": max(by_limit, key=lambda by: by_limit[by]),
        "kernels": len(network),
    }


def _ours(moved: int, count: int, device: Device) -> dict[str, Any]:
    """Time of our kernels; moved: bytes."""
    seconds = moved / (device.bandwidth * MEMORY) + count * GAP if count else 0.0
    return {"ms": 1e3 * seconds, "limited_by": "memory" if seconds > 2 * count * GAP else "launches", "kernels": count}


def _row(layer: Layer, device: Device) -> dict[str, Any]:
    seconds, limit = layer_time(layer, device)
    return {"name": layer.name, "kind": layer.kind, "us": 1e6 * seconds, "limited_by": limit, "int8": layer.int8}
