"""Scales for tools that take no Q/DQ: TensorRT's calibration cache (up to 10.x) and ONNX Runtime's overrides."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from imkd_edge.quantization.insert import Scales

CACHE_HEADER = "TRT-{version}-EntropyCalibration2"


def calibration_cache(scales: Mapping[str, float], version: int = 100300) -> bytes:
    """A TensorRT calibration cache: one line per tensor of the float part, its scale as big-endian float32 in hexadecimal.

    Args:
        scales: step of each tensor, in the graph's order.
        version: TensorRT's, as major * 10000 + minor * 100 + patch; TensorRT ignores the cache of another one.
    """
    lines = [CACHE_HEADER.format(version=version), *(f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in scales.items())]
    return ("\n".join(lines) + "\n").encode()


def overrides(parts: Mapping[str, Scales]) -> bytes:
    """JSON of {part: {tensor: [{"quant_type", "scale", "zero_point"}]}}: onnxruntime.quantization's extra option TensorQuantOverrides.

    A weight has one entry per output channel.
    """

    def entry(scale: float) -> dict[str, Any]:
        return {"quant_type": "QInt8", "scale": float(scale), "zero_point": 0}

    table = {
        part: {
            **{name: [entry(scale)] for name, scale in scales.activations.items()},
            **{name: [entry(scale) for scale in steps] for name, steps in scales.weights.items()},
        }
        for part, scales in parts.items()
    }
    return (json.dumps(table, separators=(",", ":"), sort_keys=True) + "\n").encode()
