"""INT8 by onnxruntime.quantization, on the frames of a calibration and without its float layers: rows of the study."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from imkd_edge.bundle import Bundle, write_bundle
from imkd_edge.bundle.golden import read_golden
from imkd_edge.checks.observe import observe, open_parts
from imkd_edge.checks.selftest import with_results
from imkd_edge.quantization.graph import Part
from imkd_edge.quantization.state import Calibration
from imkd_edge.sources.timeline import Timeline, infer_with_past

# The histogram methods hold every tensor of every frame in memory.
FRAMES = {"MinMax": None, "Percentile": 24, "Entropy": 24}
# As TensorRT reads them: symmetric, biases in float.
OPTIONS = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}


class _Inputs(CalibrationDataReader):
    """A part's inputs in the float model, frame by frame."""

    def __init__(self, calibration: Calibration, part: str, count: int | None, threads: int) -> None:
        self._rest = self._inputs(calibration, part, count, threads)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rest, None)

    @staticmethod
    def _inputs(
        calibration: Calibration, part: str, count: int | None, threads: int
    ) -> Iterator[dict[str, np.ndarray]]:
        bundle, frames = calibration.bundle, calibration.frames
        names = {name: [item.name for item in own.graph.input] for name, own in calibration.parts.items()}
        shapes = {name: {i: tuple(own.shapes[i]) for i in names[name]} for name, own in calibration.parts.items()}
        parts = {name: own.with_outputs([]) for name, own in calibration.parts.items()}
        rig = calibration.source[frames.names[0]].rig
        detector, engines = observe(bundle.spec, rig, parts, shapes, threads)
        timeline = Timeline(calibration.source, bundle.spec.history, frames.unusable)
        with detector:
            for name in frames.names[:count]:
                infer_with_past(detector, timeline.walk(name))
                yield {item: array.copy() for item, array in engines[part].tensors.items()}


def onnxruntime_bundle(calibration: Calibration, method: str, out: Path, threads: int = 0) -> Bundle:
    """The bundle with both parts quantized by onnxruntime.quantization.

    Args:
        method: name of a CalibrationMethod.
        out: folder to write.
    """
    parts = {name: _quantized(calibration, part, method, threads) for name, part in calibration.parts.items()}
    bundle = calibration.bundle
    drive = read_golden(bundle)
    with open_parts(bundle.spec, drive[0].rig, parts) as detector:
        golden = with_results(drive, detector)
    provenance = {**bundle.manifest["provenance"], "rival": f"onnxruntime.quantization, {method}"}
    return write_bundle(
        out, bundle.spec, parts["camera"], parts["bev"], golden, {}, provenance, contract=bundle.contract
    )


def _quantized(calibration: Calibration, part: Part, method: str, threads: int) -> bytes:
    excluded = [node for group in part.groups() if group.float_because for node in group.nodes]
    with tempfile.TemporaryDirectory() as folder:
        source, path = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(part.model, source)
        quantize_static(
            source,
            path,
            _Inputs(calibration, part.name, FRAMES[method], threads),
            QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=excluded,
            calibrate_method=CalibrationMethod[method],
            extra_options=OPTIONS,
        )
        return onnx.load(path).SerializeToString()
