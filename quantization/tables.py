"""Scales for tools that take no Q/DQ: TensorRT's calibration cache (up to 10.x) and ONNX Runtime's overrides."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

CACHE_HEADER = "TRT-{version}-EntropyCalibration2"


def calibration_cache(scales: Mapping[str, float], version: int = 100300) -> bytes:
    """A TensorRT calibration cache: `TENSOR: SCALE` a line, the scale as big-endian float32 in hexadecimal.

    Args:
        scales: step of each tensor of the float part, in the graph's order.
        version: TensorRT's, as major * 10000 + minor * 100 + patch; TensorRT ignores the cache of another one.
    """
    header = CACHE_HEADER.format(version=version)
    lines = [f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in scales.items()]
    return ("\n".join([header, *lines]) + "\n").encode()


def overrides(parts: Mapping[str, Mapping[str, float]]) -> bytes:
    """JSON for onnxruntime.quantization's extra option TensorQuantOverrides, of activations of the float bundle.

    {part: {tensor: [{"quant_type", "scale", "zero_point"}]}}. Weights are left out: the tool uses the scale of their
    largest value by itself.

    Args:
        parts: name -> step of each quantized tensor.
    """

    def entry(scale: float) -> list[dict]:
        return [{"quant_type": "QInt8", "scale": scale, "zero_point": 0}]

    table = {part: {name: entry(scale) for name, scale in scales.items()} for part, scales in parts.items()}
    return (json.dumps(table, indent=1, sort_keys=True) + "\n").encode()
