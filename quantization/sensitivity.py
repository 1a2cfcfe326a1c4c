"""Which layers suffer most from INT8, and which to put back to float until a gate holds, the most accuracy per modelled time first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from imkd_edge.quantization.graph import Group, Part
from imkd_edge.quantization.ptq import quantize_part
from imkd_edge.sources.base import Source

Track = Callable[[list[Group]], Iterable[Group]]


class Latency(Protocol):
    """Seconds of a fusion group in either precision."""

    def __call__(self, group: Group, int8: bool) -> float: ...


def predicted(part: Part, device: str = "orin-agx-64") -> Latency:
    """The latency model of `bench --predict`."""
    found = {layer.name: layer for layer in layers(part.model.SerializeToString())}
    return lambda group, int8: layer_time(replace(found[group.name], int8=int8, int8_out=int8), DEVICES[device])[0]


@dataclass(frozen=True)
class Probe:
    """A part's inputs on some frames, and what its float form makes of them."""

    inputs: list[dict[str, np.ndarray]]
    outputs: list[list[np.ndarray]]

    @classmethod
    def of(cls, bundle: Bundle, part: Part, source: Source, names: Sequence[str], threads: int = 0) -> Probe:
        """Runs the float bundle on the frames."""
        inputs = []
        with Detector(bundle, source[names[0]].rig, threads=threads) as detector:
            for name in names:
                detector.reset()
                detector.infer_sample(source[name])
                tensors = detector.tensors()
                inputs.append(
                    {item.name: tensors[item.name].reshape(part.shapes[item.name]).copy() for item in part.graph.input}
                )
        run = exact_session(part.model, threads)
        return cls(inputs, [run.run(None, given) for given in inputs])

    def error(self, model: onnx.ModelProto, threads: int = 0) -> float:
        """The largest NMSE of an output, over all frames; inf where an output is not a number."""
        run = exact_session(model, threads)
        found = [run.run(None, given) for given in self.inputs]
        errors = [0.0]
        for k in range(len(self.outputs[0])):
            apart = sum(float(((a[k] - b[k]) ** 2).sum()) for a, b in zip(found, self.outputs, strict=True))
            errors.append(apart / max(sum(float((b[k] ** 2).sum()) for b in self.outputs), 1e-30))
        return float(np.nan_to_num(np.max(errors), nan=np.inf))


def sensitivities(
    part: Part, collection: Collection, method: Method, probe: Probe, threads: int = 0, track: Track | None = None
) -> dict[str, float]:
    """For each group that may be INT8: the error where it alone is."""
    able = [group for group in part.groups() if not group.float_because]
    found = {}
    for group in able if track is None else track(able):
        others = tuple(other.name for other in able if other != group)
        found[group.name] = probe.error(quantize_part(part, collection, method, others).model, threads)
    return found


def mixed_precision(
    part: Part,
    collection: Collection,
    method: Method,
    probe: Probe,
    suffering: Mapping[str, float],
    gate: float,
    latency: Latency | None = None,
    threads: int = 0,
) -> tuple[str, ...]:
    """Names of groups to keep float so that the part's error is at most `gate`; all of them where even that is not enough.

    Args:
        suffering: of `sensitivities`.
        gate: largest NMSE of an output.
        latency: a group's time in either precision; None: `predicted`.
    """
    latency = latency or predicted(part)
    price = {group.name: latency(group, False) - latency(group, True) for group in part.groups()}
    order = sorted(suffering, key=lambda name: (-suffering[name] / max(price[name], 1e-12), name))
    kept: list[str] = []
    while probe.error(quantize_part(part, collection, method, tuple(kept)).model, threads) > gate and len(kept) < len(
        order
    ):
        kept.append(order[len(kept)])
    return tuple(kept)


def exact_session(model: onnx.ModelProto, threads: int) -> ort.InferenceSession:
    """A CPU session that computes Q/DQ pairs as written, in float; 0 threads leave the number to ONNX Runtime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
