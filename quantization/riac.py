"""Radar-intensity-aware calibration: as much weight where the radar sees as the outputs' total error allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from imkd_edge.calibration.collect import Collection
from imkd_edge.calibration.solvers import Method
from imkd_edge.progress import Bar
from imkd_edge.quantization.accept import HeldOut, Solved
from imkd_edge.quantization.calibrate import radar_collection
from imkd_edge.quantization.radar_weight import OWN, blend
from imkd_edge.quantization.state import Calibration

SHARES = (1.0, 0.75, 0.5, 0.25)  # of the map in the weight, tried in this order
ALLOWED = 1.05  # the loss, by that without a map

Solve = Callable[[Calibration, Method], Solved]


def weigh_by_radar(
    calibration: Calibration,
    method: Method,
    state: Path,
    solve: Solve,
    threads: int = 0,
    bar: Bar | None = None,
) -> tuple[Calibration, Method]:
    """The calibration with the radar's map in its weights, and the method with the share that it has there.

    A share that is not given is found on every second of the held-out frames; the others are left for the gate.

    Args:
        method: riac.
        state: file of the plain pass's histograms; the weighted pass has STATE.radar.npz beside it.
        solve: the parts as they will be written, but for layers that the gate puts back to float.
    """
    radar = radar_collection(calibration, OWN, state.with_suffix(".radar.npz"), threads, bar)
    if method.share is not None:
        return _blended(calibration, radar, method.share), method
    held_out = calibration.frames.held_out
    judge = HeldOut(_held_out(calibration, held_out[::2]), threads, bar)

    def loss(share: float) -> float:
        weighted = _blended(calibration, radar, share)
        solved = solve(weighted, replace(method, share=share))
        return judge.fidelity({name: part.quantized() for name, part in solved.items()})["loss"] or 0.0

    allowed = ALLOWED * loss(0.0)
    share = next((share for share in SHARES if loss(share) <= allowed), 0.0)
    calibration = _held_out(calibration, held_out[1::2] or held_out)
    return _blended(calibration, radar, share), replace(method, share=share)


def _blended(calibration: Calibration, radar: Collection, share: float) -> Calibration:
    return replace(calibration, collection=blend(calibration.collection, radar, share))


def _held_out(calibration: Calibration, names: list[str]) -> Calibration:
    return replace(calibration, frames=replace(calibration.frames, held_out=names))
