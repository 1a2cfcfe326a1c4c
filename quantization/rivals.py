"""INT8 by other tools, on the frames of a calibration and without its float layers: rows of the study."""

from __future__ import annotations

import subprocess
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
from imkd_edge.errors import Code, Error
from imkd_edge.quantization.graph import Part
from imkd_edge.quantization.state import Calibration
from imkd_edge.quantization.study_options import RIVALS
from imkd_edge.sources.timeline import Timeline, infer_with_past

MODELOPT = "modelopt-"  # begins the names of nvidia-modelopt's methods
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


def rival_bundle(
    calibration: Calibration, method: str, out: Path, threads: int = 0, modelopt: Path | None = None
) -> Bundle:
    """The bundle with both parts quantized by onnxruntime.quantization or nvidia-modelopt.

    Args:
        method: one of RIVALS.
        out: folder to write.
        modelopt: Python of an environment with nvidia-modelopt[onnx], for its methods.
    """
    parts = {name: _quantized(calibration, part, method, threads, modelopt) for name, part in calibration.parts.items()}
    return unchecked_bundle(calibration, parts, out, rival=rival_name(method))


def rival_name(method: str) -> str:
    """The tool and its method, for people."""
    if method.startswith(MODELOPT):
        return f"nvidia-modelopt, {method.removeprefix(MODELOPT)}"
    return f"onnxruntime.quantization, {method}"


def unchecked_bundle(calibration: Calibration, parts: dict[str, bytes], out: Path, **provenance: object) -> Bundle:
    """A bundle of other graphs, with the boxes that they give for the golden drive."""
    bundle = calibration.bundle
    drive = read_golden(bundle)
    with open_parts(bundle.spec, drive[0].rig, parts) as detector:
        golden = with_results(drive, detector)
    provenance = {**bundle.manifest["provenance"], **provenance}
    return write_bundle(
        out, bundle.spec, parts["camera"], parts["bev"], golden, {}, provenance, contract=bundle.contract
    )


def _quantized(calibration: Calibration, part: Part, method: str, threads: int, modelopt: Path | None) -> bytes:
    excluded = [node for group in part.groups() if group.float_because for node in group.nodes]
    inputs = _Inputs(calibration, part.name, RIVALS[method], threads)
    with tempfile.TemporaryDirectory() as folder:
        source, path = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(part.model, source)
        if method.startswith(MODELOPT):
            _by_modelopt(modelopt, source, path, inputs, method.removeprefix(MODELOPT), excluded)
        else:
            quantize_static(
                source,
                path,
                inputs,
                QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=excluded,
                calibrate_method=CalibrationMethod[method],
                extra_options=OPTIONS,
            )
        return onnx.load(path).SerializeToString()


def _by_modelopt(
    python: Path | None, source: Path, out: Path, inputs: _Inputs, method: str, excluded: list[str]
) -> None:
    if python is None:
        fix = "name the Python of an environment with nvidia-modelopt[onnx]: --modelopt PYTHON"
        raise Error(Code.missing_extra, "nvidia-modelopt is in no environment that was named", "--rivals", fix)
    frames = list(iter(inputs.get_next, None))
    arrays = source.with_suffix(".npz")
    np.savez(
        arrays, allow_pickle=False, **{name: np.concatenate([frame[name] for frame in frames]) for name in frames[0]}
    )
    program = Path(__file__).with_name("modelopt_int8.py")
    subprocess.run([python, program, source, arrays, out, method, *excluded], check=True)
