"""The pass over the calibration frames: histograms of every observed tensor; an interrupted pass can be resumed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from imkd_edge.bundle import PARTS, npz_bytes, read_npz, write_atomically
from imkd_edge.calibration.histogram import BINS, MOST, ROWS, Histogram
from imkd_edge.checks.observe import Observable, ObservingEngine, observe
from imkd_edge.errors import Code, Error
from imkd_edge.progress import Track
from imkd_edge.rig import SensorRig
from imkd_edge.sources.base import Source
from imkd_edge.sources.timeline import Timeline, infer_with_past
from imkd_edge.spec import ModelSpec

SAVE_EVERY = 16  # frames
PAST = "slots by time"  # how the past of a frame is found; a state file of another way is not resumed


@dataclass(frozen=True)
class ObservedTensor:
    """A tensor to be observed."""

    part: str
    name: str
    shape: tuple[int, ...]

    @property
    def key(self) -> str:
        """A name that is unique over both parts, such as "bev/radar_grid"."""
        return f"{self.part}/{self.name}"


@dataclass
class Gradients:
    """Of the probed outputs of one frame."""

    tensors: dict[str, np.ndarray]  # by ObservedTensor.key, of its shape
    layers: dict[str, np.ndarray]  # PART/TENSOR of each convolution -> (channels,) squares, summed over the places
    objects: float  # sum of the heat map's probabilities


class Sensitivity(Protocol):
    """Gradients of a frame by a Detector's tensors after it; the probe's signs are drawn by the seed.

    `kind` tells apart what the outputs' errors are weighted by; "" weighs all places alike.
    """

    kind: str

    def __call__(self, tensors: Mapping[str, np.ndarray], rig: SensorRig, seed: int) -> Gradients: ...


@dataclass
class Collection:
    """Histograms of the frames that were observed so far."""

    key: str  # hash of everything that the pass depends on
    histograms: dict[str, Histogram]  # by ObservedTensor.key
    layers: dict[str, np.ndarray] = field(default_factory=dict)  # of Gradients, summed; empty without sensitivity
    objects: float = 0.0  # of Gradients, summed
    frames: list[str] = field(default_factory=list)  # names, in the order of the pass


def collect(
    spec: ModelSpec,
    parts: Mapping[str, Observable],
    tensors: Sequence[ObservedTensor],
    source: Source,
    names: Sequence[str],
    state: Path | None = None,
    threads: int = 0,
    track: Track | None = None,
    without: Iterable[str] = (),
    sensitivity: Sensitivity | None = None,
) -> Collection:
    """Runs the float model over the frames, each after its past, and counts the values of its tensors.

    Args:
        parts: "camera" and "bev".
        names: of the frames.
        state: file that is written every few frames and at the end; a pass over the same model and frames resumes
            from it.
        track: makes a progress bar of the remaining names.
        without: names of frames that cannot be read; as past frames they are left out.
        sensitivity: weighs the values; None: they are counted plainly only.

    Raises:
        Error: train_diverged where a value of the model is not finite.
    """
    collection = _open(state, _key(spec, parts, tensors, names, sensitivity), tensors)
    remaining = list(names[len(collection.frames) :])
    if not remaining:
        return collection
    shapes = {part: {t.name: t.shape for t in tensors if t.part == part} for part in PARTS}
    detector, engines = observe(spec, source[remaining[0]].rig, parts, shapes, threads)
    timeline = Timeline(source, spec.history, without)
    with detector:
        for name in remaining if track is None else track(remaining):
            infer_with_past(detector, timeline.walk(name))
            number = len(collection.frames)
            gradients = None if sensitivity is None else sensitivity(detector.tensors(), detector.rig, number)
            _count(collection, tensors, engines, gradients, np.random.default_rng(number), name)
            collection.frames.append(name)
            count = len(collection.frames)
            if state is not None and (count % SAVE_EVERY == 0 or count == len(names)):
                write_atomically(state, _pack(collection))
    return collection


def _count(
    collection: Collection,
    tensors: Sequence[ObservedTensor],
    engines: Mapping[str, ObservingEngine],
    gradients: Gradients | None,
    random: np.random.Generator,
    name: str,
) -> None:
    """Adds a frame's tensors to the histograms.

    Of a camera part's large tensors a sample is enough; over the ground the values that count are rare.
    """
    for item in tensors:
        values = engines[item.part].tensors[item.name]
        if not np.isfinite(values).all():
            raise Error(Code.train_diverged, f"{item.key} is not finite", name, "check the model on this frame")
        gradient = None if gradients is None else gradients.tensors[item.key]
        collection.histograms[item.key].add(values, gradient, random if item.part == "camera" else None)
    if gradients is not None:
        collection.objects += gradients.objects
        for layer, squares in gradients.layers.items():
            collection.layers[layer] = collection.layers.get(layer, 0) + squares


def _key(
    spec: ModelSpec,
    parts: Mapping[str, Observable],
    tensors: Sequence[ObservedTensor],
    names: Sequence[str],
    sensitivity: Sensitivity | None,
) -> str:
    kind = [sensitivity.kind] if sensitivity and sensitivity.kind else []
    inputs: list[Any] = [
        [BINS, MOST, sensitivity is not None, *kind],
        [hashlib.sha256(parts[part].data).hexdigest() for part in PARTS],
        [repr(item) for item in tensors],
        list(names),
    ]
    if spec.history.frames:
        inputs.append(PAST)
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()


def _pack(collection: Collection) -> bytes:
    """The state file, an .npz archive."""
    histograms = collection.histograms.values()
    return npz_bytes(
        {
            "key": np.array(collection.key),
            "done": np.array(collection.frames),
            "counts": np.concatenate([h.counts for h in histograms], 1),
            "highest": np.concatenate([h.highest for h in histograms]),
            "numbers": np.array([[h.top, h.zeros] for h in histograms]),
            "objects": np.array(collection.objects),
            **{f"layer {name}": squares for name, squares in collection.layers.items()},
        }
    )


def _open(state: Path | None, key: str, tensors: Sequence[ObservedTensor]) -> Collection:
    """The content of the state file where it is of the same pass, else an empty collection.

    Raises: Error write_failed for a file that is no collection, which would be replaced.
    """

    def fresh() -> Collection:
        return Collection(key, {item.key: Histogram(item.shape[1]) for item in tensors})

    if state is None or not os.path.lexists(state):
        return fresh()
    try:
        file = read_npz(state) if os.path.isfile(state) else {}
    except ValueError:
        file = {}
    if not {"key", "done", "counts"} <= file.keys():
        fix = "name another file with --collection, or delete this one"
        raise Error(Code.write_failed, "the file is no collection of calibration, or is damaged", str(state), fix)
    try:
        return _unpack(fresh(), file) if str(file["key"]) == key else fresh()
    except (ValueError, KeyError):
        return fresh()


def _unpack(collection: Collection, file: Mapping[str, np.ndarray]) -> Collection:
    _check_form(collection, file)
    counts, highest, numbers = (file[name] for name in ("counts", "highest", "numbers"))
    first = 0
    for histogram, (top, zeros) in zip(collection.histograms.values(), numbers.tolist(), strict=True):
        own = slice(first, first := first + histogram.channels)
        histogram.counts, histogram.highest = counts[:, own].copy(), highest[own].copy()
        histogram.top, histogram.zeros = top, zeros
    collection.frames, collection.objects = file["done"].tolist(), float(file["objects"])
    collection.layers = {name.removeprefix("layer "): file[name] for name in file if name.startswith("layer ")}
    return collection


def _check_form(collection: Collection, file: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError, or KeyError for a missing array, where the arrays are not those of `_pack`."""
    tensors = len(collection.histograms)
    channels = sum(histogram.channels for histogram in collection.histograms.values())
    shapes = {"counts": (ROWS, channels, BINS), "highest": (channels,), "numbers": (tensors, 2), "objects": ()}
    wrong = [name for name, shape in shapes.items() if file[name].shape != shape or file[name].dtype.kind != "f"]
    if wrong or file["done"].ndim != 1 or file["done"].dtype.kind != "U":
        raise ValueError(f"{', '.join([*wrong, 'done'])}: of another form")
