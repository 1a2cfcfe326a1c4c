"""Whether an INT8 form reproduces the float one on frames it was not calibrated on, and which layers stay float.

Layers go back to float in the order of their modelled error per predicted time, until the measured loss is at most the
gate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from imkd_edge.checks.observe import open_parts
from imkd_edge.detector import Detector
from imkd_edge.evaluation.fidelity import LOW_SCORE, Fidelity, Outputs
from imkd_edge.predict.layers import layers
from imkd_edge.predict.roofline import DEVICES, layer_time
from imkd_edge.progress import Bar, Track
from imkd_edge.quantization.graph import Group, Part
from imkd_edge.quantization.ptq import QuantizedPart, SolvedPart, modelled_errors
from imkd_edge.quantization.state import Calibration
from imkd_edge.rig import SensorRig
from imkd_edge.sources.timeline import Timeline, infer_with_past

Solved = Mapping[str, SolvedPart]  # by part


class Latency(Protocol):
    """Seconds of a fusion group in either precision."""

    def __call__(self, group: Group, int8: bool) -> float: ...


def predicted_latency(part: Part, device: str = "orin-agx-64") -> Latency:
    """The latency model of `bench --predict`."""
    by_name = {layer.name: layer for layer in layers(part.model.SerializeToString())}
    return lambda group, int8: layer_time(replace(by_name[group.name], int8=int8, int8_out=int8), DEVICES[device])[0]


class HeldOut:
    """The float model's outputs on the frames that are held out of the calibration."""

    def __init__(self, calibration: Calibration, threads: int = 0, bar: Bar | None = None) -> None:
        self._calibration, self._threads, self._bar = calibration, threads, bar
        with Detector(
            calibration.bundle, self._rig(), engine="onnxruntime", threads=threads, score_threshold=LOW_SCORE
        ) as detector:
            self._reference = self._run(detector, "float, held-out frames")

    def _rig(self) -> SensorRig:
        return self._calibration.source[self._calibration.frames.held_out[0]].rig

    def _run(self, detector: Detector, title: str) -> list[tuple[Outputs, Any]]:
        """Outputs and radar grid of each frame, after its past."""
        spec, frames = self._calibration.bundle.spec, self._calibration.frames
        timeline = Timeline(self._calibration.source, spec.history, frames.unusable)
        track: Track = self._bar(title) if self._bar else iter
        found = []
        for name in track(frames.held_out):
            r = infer_with_past(detector, timeline.walk(name))
            tensors = detector.tensors()
            found.append((Outputs.of(spec, tensors, (r.boxes, r.scores, r.names)), tensors["radar_grid"].copy()))
        return found

    def fidelity(self, parts: Mapping[str, QuantizedPart]) -> dict[str, Any]:
        """`Fidelity.row` of an INT8 form."""
        fidelity = Fidelity(self._calibration.bundle.spec)
        for _, reference, other, grid in self.compared(parts):
            fidelity.add(reference, other, grid)
        return fidelity.row()

    def compared(self, parts: Mapping[str, QuantizedPart]) -> list[tuple[str, Outputs, Outputs, Any]]:
        """Name, outputs of the float model and of an INT8 form, and radar grid of each frame."""
        spec = self._calibration.bundle.spec
        files = {name: part.model.SerializeToString() for name, part in parts.items()}
        with open_parts(spec, self._rig(), files, threads=self._threads, score_threshold=LOW_SCORE) as detector:
            found = self._run(detector, "INT8, held-out frames")
        pairs = zip(self._calibration.frames.held_out, self._reference, found, strict=True)
        return [(name, reference, other, grid) for name, (reference, grid), (other, _) in pairs]


@dataclass(frozen=True)
class Returned:
    """A layer that the gate put back to float."""

    part: str
    layer: str
    error: float  # that the model expects of it in INT8: of the loss, or without sensitivity of its input's power
    microseconds: float  # that it takes longer in float, predicted


@dataclass(frozen=True)
class Accepted:
    """Parts whose loss is at most the gate, or that are all float."""

    parts: dict[str, SolvedPart]
    fidelity: dict[str, Any]
    returned: list[Returned]


def accept(
    calibration: Calibration,
    solved: Solved,
    gate: float,
    measure: Callable[[Mapping[str, QuantizedPart]], dict[str, Any]],
    latency: Callable[[Part], Latency] = predicted_latency,
) -> Accepted:
    """Puts layers back to float, as few as bisection finds, until the loss is at most the gate.

    Args:
        measure: fidelity of INT8 parts, as `HeldOut.fidelity`.
    """
    order = _candidates(calibration, solved, latency)

    def attempt(count: int) -> Accepted:
        parts = {name: _without(part, name, order[:count]) for name, part in solved.items()}
        return Accepted(parts, measure({name: p.quantized() for name, p in parts.items()}), order[:count])

    best, low, high = attempt(0), 0, len(order)
    if best.fidelity["loss"] is None or best.fidelity["loss"] <= gate or not order:
        return best
    best = attempt(high)
    while high - low > 1:
        middle = (low + high) // 2
        tried = attempt(middle)
        if tried.fidelity["loss"] <= gate:
            best, high = tried, middle
        else:
            low = middle
    return best


def _candidates(calibration: Calibration, solved: Solved, latency: Callable[[Part], Latency]) -> list[Returned]:
    """INT8 layers, those with the most error per time first."""
    found = []
    for name, part in solved.items():
        seconds, errors = latency(calibration.parts[name]), modelled_errors(part, calibration.collection)
        for group in part.groups:
            if not group.float_because:
                cost = max(seconds(group, False) - seconds(group, True), 1e-12)
                found.append(Returned(name, group.name, errors[group.name], 1e6 * cost))
    return sorted(found, key=lambda item: (-item.error / item.microseconds, item.part, item.layer))


def _without(solved: SolvedPart, name: str, returned: list[Returned]) -> SolvedPart:
    errors = {item.layer: item.error for item in returned if item.part == name}
    because = {layer: f"the gate, modelled error {error:.2g}" for layer, error in errors.items()}
    groups = [replace(g, float_because=g.float_because or because.get(g.name, "")) for g in solved.groups]
    return replace(solved, groups=groups)
