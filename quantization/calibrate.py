"""What comes before quantization: the choice of frames, and the pass over them with the outputs' sensitivity."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from imkd_edge.bundle import PARTS, Bundle, golden_rig
from imkd_edge.calibration.collect import Collection, Sensitivity, collect
from imkd_edge.calibration.frames import Frames, choose_frames
from imkd_edge.calibration.solvers import Method
from imkd_edge.checks.contract import warn_of_source
from imkd_edge.progress import Bar, Track
from imkd_edge.quantization.graph import Part
from imkd_edge.quantization.ptq import tensors_to_observe
from imkd_edge.quantization.radar_weight import RadarWeight
from imkd_edge.quantization.state import Calibration
from imkd_edge.sources.base import Source
from imkd_edge.sources.select import Selection, select


def calibrate(
    bundle: str | os.PathLike[str] | Bundle,
    data: str | Source,
    split: str | None,
    source_options: Mapping[str, Any],
    frames: int,
    state: Path | None,
    threads: int = 0,
    bar: Bar | None = None,
    every: slice = slice(None),
) -> Calibration:
    """Chooses the calibration frames and observes the float bundle on them.

    Args:
        split: of the source; None: "train" where it has one, else every frame; "all": every frame.
        frames: how many to choose.
        state: file of the histograms, written on the way; an interrupted pass resumes from it.
        every: of the split's frames that may be chosen, such as slice(1, None, 3) for the second of three subsets.
    """
    bundle = Bundle.load(bundle)
    parts = parts_of(bundle)
    selection = _select(data, split, source_options)
    selection = Selection(selection.source, selection.names[every])
    warn_of_source(bundle, selection.source)
    # After `export --cameras` the golden drive still has the rig of the training.
    rig = None if "cameras" in bundle.manifest["provenance"] else golden_rig(bundle)
    calibration_frames = choose_frames(selection, rig, frames, bar and bar("choose frames"))
    sensitivity, track = sensitivity_of(bundle, parts, threads), bar and bar("observe")
    collection = _observe(bundle, parts, selection.source, calibration_frames, state, threads, track, sensitivity)
    return Calibration(bundle, parts, selection.source, calibration_frames, collection)


def radar_collection(
    calibration: Calibration, kind: str, state: Path | None, threads: int = 0, bar: Bar | None = None
) -> Collection:
    """A second pass over the same frames, with the outputs' errors weighted by the radar; kind: of RadarWeight."""
    from imkd_edge.quantization.chain import Chain  # PyTorch only here

    bundle, parts = calibration.bundle, calibration.parts
    chain = Chain(bundle.spec, parts, threads, RadarWeight(bundle.spec, kind))
    track = bar and bar("observe, weighted by radar")
    return _observe(bundle, parts, calibration.source, calibration.frames, state, threads, track, chain)


def _observe(
    bundle: Bundle,
    parts: dict[str, Part],
    source: Source,
    frames: Frames,
    state: Path | None,
    threads: int,
    track: Track | None,
    sensitivity: Sensitivity | None,
) -> Collection:
    tensors = [item for part in parts.values() for item in tensors_to_observe(part)]
    observable = {name: part.with_outputs([t.name for t in tensors if t.part == name]) for name, part in parts.items()}
    names, without = frames.names, frames.unusable
    return collect(bundle.spec, observable, tensors, source, names, state, threads, track, without, sensitivity)


def sensitivity_of(bundle: Bundle, parts: Mapping[str, Part], threads: int = 0) -> Sensitivity | None:
    """The gradients of the model in PyTorch; None, with a warning, where that is impossible."""
    try:
        from imkd_edge.quantization.chain import Chain, unknown_operators
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("imkd_edge"):
            raise
        warnings.warn(f'no sensitivity without {error.name}: pip install "imkd-edge[train]"', stacklevel=3)
        return None
    if unknown := unknown_operators(parts):
        warnings.warn(f"no sensitivity: the torch engine has no operator {', '.join(unknown)}", stacklevel=3)
        return None
    return Chain(bundle.spec, parts, threads)


def usable(method: Method, calibration: Calibration) -> Method:
    """The method, or the percentile, with a warning, where the outputs' sensitivity is not known."""
    if not method.sensitive or calibration.collection.layers:
        return method
    warnings.warn(
        f"ranges are the percentile {method.percentile:g} instead of {method.name}'s, of less fidelity", stacklevel=3
    )
    return replace(method, name="percentile")


def parts_of(bundle: Bundle) -> dict[str, Part]:
    """Both float parts; raises as Part."""
    return {name: Part(bundle.read(f"{name}.onnx"), name) for name in PARTS}


def _select(data: str | Source, split: str | None, options: Mapping[str, Any]) -> Selection:
    if split is None:
        every = select(data, options=options)
        has_train = "train" in (getattr(every.source, "splits", None) or {})
        return select(data, split="train", options=options) if has_train else every
    return select(data, split=None if split == "all" else split, options=options)
