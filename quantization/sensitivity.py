"""Sensitivity of each layer to INT8, and the layers that stay float until a gate holds.

Layers go back to float in the order of error saved per modelled time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import onnx
import onnxruntime as ort

from imkd_edge.bundle import Bundle
from imkd_edge.calibration.collect import Collection
from imkd_edge.calibration.solvers import Method
from imkd_edge.detector import Detector
from imkd_edge.predict.layers import layers
from imkd_edge.predict.roofline import DEVICES, layer_time
from imkd_edge.progress import Bar, Track
from imkd_edge.quantization.graph import Group, Part
from imkd_edge.quantization.ptq import quantize_part
from imkd_edge.quantization.state import Calibration
from imkd_edge.sources.base import Source
from imkd_edge.sources.timeline import Timeline, infer_with_past

PROBE_FRAMES = 4  # frames on which layers are compared


class Latency(Protocol):
    """Seconds of a fusion group in either precision."""

    def __call__(self, group: Group, int8: bool) -> float: ...


def predicted_latency(part: Part, device: str = "orin-agx-64") -> Latency:
    """The latency model of `bench --predict`."""
    by_name = {layer.name: layer for layer in layers(part.model.SerializeToString())}
    return lambda group, int8: layer_time(replace(by_name[group.name], int8=int8, int8_out=int8), DEVICES[device])[0]


@dataclass(frozen=True)
class Probe:
    """A part's inputs on some frames, and the outputs of its float form."""

    inputs: list[dict[str, np.ndarray]]
    outputs: list[list[np.ndarray]]

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        part: Part,
        source: Source,
        names: Sequence[str],
        threads: int = 0,
        without: Iterable[str] = (),
    ) -> Probe:
        """Runs the float bundle on the frames, each after its past; `without`: names of frames that cannot be read."""
        inputs = []
        timeline = Timeline(source, bundle.spec.history, without)
        with Detector(bundle, source[names[0]].rig, threads=threads) as detector:
            for name in names:
                infer_with_past(detector, timeline.walk(name))
                tensors = detector.tensors()
                shapes = {item.name: part.shapes[item.name] for item in part.graph.input}
                inputs.append({name: tensors[name].reshape(shape).copy() for name, shape in shapes.items()})
        session = exact_session(part.model, threads)
        return cls(inputs, [session.run(None, frame) for frame in inputs])

    def error(self, model: onnx.ModelProto, threads: int = 0) -> float:
        """The largest NMSE of an output, over all frames; inf where an output is not a number."""
        session = exact_session(model, threads)
        outputs = [session.run(None, frame) for frame in self.inputs]
        errors = [0.0]
        for k in range(len(self.outputs[0])):
            squares = sum(float(((a[k] - b[k]) ** 2).sum()) for a, b in zip(outputs, self.outputs, strict=True))
            errors.append(squares / max(sum(float((b[k] ** 2).sum()) for b in self.outputs), 1e-30))
        return float(np.nan_to_num(np.max(errors), nan=np.inf))


def calibration_probe(calibration: Calibration, part: Part, threads: int) -> Probe:
    """A part on the first calibration frames."""
    names = calibration.frames.names[:PROBE_FRAMES]
    unusable = calibration.frames.unusable
    return Probe.of(calibration.bundle, part, calibration.source, names, threads, unusable)


def sensitivities(
    part: Part, collection: Collection, method: Method, probe: Probe, threads: int = 0, track: Track | None = None
) -> dict[str, float]:
    """Of each group that may be INT8: the part's error where this group alone is INT8."""
    candidates = [group for group in part.groups() if not group.float_because]
    errors = {}
    for group in candidates if track is None else track(candidates):
        others = tuple(other.name for other in candidates if other != group)
        errors[group.name] = probe.error(quantize_part(part, collection, method, others).model, threads)
    return errors


def mixed_precision(
    part: Part,
    collection: Collection,
    method: Method,
    probe: Probe,
    sensitivity: Mapping[str, float],
    gate: float,
    latency: Latency | None = None,
    threads: int = 0,
) -> tuple[str, ...]:
    """Names of groups to keep float so that the part's error is at most `gate`; every group where that is not enough.

    Args:
        sensitivity: group -> error, of `sensitivities`.
        gate: largest NMSE of an output.
        latency: a group's time in either precision; None: `predicted_latency`.
    """
    latency = latency or predicted_latency(part)
    cost = {group.name: latency(group, False) - latency(group, True) for group in part.groups()}
    order = sorted(sensitivity, key=lambda name: (-sensitivity[name] / max(cost[name], 1e-12), name))

    def error(count: int) -> float:
        return probe.error(quantize_part(part, collection, method, tuple(order[:count])).model, threads)

    count = 0
    while error(count) > gate and count < len(order):
        count += 1
    return tuple(order[:count])


def float_layers_for_gate(
    calibration: Calibration, method: Method, gate: float, threads: int, bar: Bar | None
) -> dict[str, tuple[str, ...]]:
    """Layers of each part that stay float so that its error on the first calibration frames is at most the gate."""
    float_layers, collection = {}, calibration.collection
    for name, part in calibration.parts.items():
        probe, track = calibration_probe(calibration, part, threads), bar and bar(f"layers of {name}")
        sensitivity = sensitivities(part, collection, method, probe, threads, track)
        float_layers[name] = mixed_precision(part, collection, method, probe, sensitivity, gate, threads=threads)
    return float_layers


def exact_session(model: onnx.ModelProto, threads: int) -> ort.InferenceSession:
    """A CPU session that computes Q/DQ pairs as written, in float; with 0 threads ONNX Runtime chooses the number."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
