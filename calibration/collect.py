"""The one pass over the calibration frames: a histogram of every watched tensor, under every weight; an interrupted one is gone on with."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from imkd_edge.bundle.files import npz_bytes, write_atomically
from imkd_edge.bundle.format import PARTS
from imkd_edge.calibration.frames import Track
from imkd_edge.calibration.histogram import ROWS, Histogram
from imkd_edge.calibration.weights import EMPTY, radar_maps, resample
from imkd_edge.checks.observe import Observable, ObservingEngine, observe
from imkd_edge.detector import Detector
from imkd_edge.errors import Code, Error
from imkd_edge.sources.base import Source
from imkd_edge.spec import ModelSpec

SAVE_EVERY = 16  # frames


@dataclass(frozen=True)
class Watched:
    """A tensor to be observed."""

    part: str
    name: str
    shape: tuple[int, ...]
    weighted: bool = False  # radar reaches it, and it lies over the ground
    radius: int = 0  # cells of its grid that its receptive field reaches from the radar grid

    @property
    def key(self) -> str:
        """A name that is unique over both parts, such as "bev/radar_grid"."""
        return f"{self.part}/{self.name}"


@dataclass
class Collection:
    """What the pass has seen so far."""

    key: str  # of everything that it depends on
    histograms: dict[str, Histogram]  # by Watched.key
    done: list[str] = field(default_factory=list)  # names of frames
    before: np.ndarray | None = None  # (2, H, W) maps of the last frame, the placebo of the next


def collect(
    spec: ModelSpec,
    parts: Mapping[str, Observable],
    watched: Sequence[Watched],
    source: Source,
    names: Sequence[str],
    state: Path | None = None,
    threads: int = 0,
    track: Track | None = None,
) -> Collection:
    """Runs the float model over the frames, in their order, and counts.

    Args:
        parts: "camera" and "bev".
        names: of the frames.
        state: file that is written every few frames and at the end; one of the same model and frames is gone on with.
        track: wraps the names that are left, for a progress bar.

    Raises:
        Error: train_diverged where the model's values are not finite.
    """
    collection = _open(state, _key(parts, watched, names), watched)
    left = list(names[len(collection.done) :])
    if not left:
        return collection
    shapes = {part: {w.name: w.shape for w in watched if w.part == part} for part in PARTS}
    detector, engines = observe(spec, source[left[0]].rig, parts, shapes, threads)
    with detector:
        for name in left if track is None else track(left):
            run_alone(detector, spec, source, name)
            _count(collection, watched, engines, radar_maps(detector.tensors()["radar_grid"], spec), name)
            collection.done.append(name)
            if state is not None and (len(collection.done) % SAVE_EVERY == 0 or len(collection.done) == len(names)):
                write_atomically(state, _pack(collection))
    return collection


def run_alone(detector: Detector, spec: ModelSpec, source: Source, name: str) -> None:
    """One frame by itself; a model with past frames sees those before it first, for the order of calibration is not that of time."""
    detector.reset()
    here = source.names.index(name) if spec.history.frames else 0
    for earlier in source.names[max(0, here - 4 * spec.history.frames) : here]:
        detector.infer_sample(source[earlier])
    detector.infer_sample(source[name])


def _count(
    collection: Collection,
    watched: Sequence[Watched],
    engines: Mapping[str, ObservingEngine],
    maps: np.ndarray,
    name: str,
) -> None:
    placebo = collection.before
    if placebo is None:
        placebo = np.stack([np.full(maps.shape[1:], 1 - EMPTY), np.zeros(maps.shape[1:])]).astype(np.float32)
    both, grids = np.concatenate([maps, placebo]), {}
    for item in watched:
        values = engines[item.part].tensors[item.name]
        if not np.isfinite(values).all():
            raise Error(Code.train_diverged, f"{item.key} is not finite", name, "check the model on this frame")
        place = (*item.shape[-2:], item.radius)
        if item.weighted and place not in grids:
            grids[place] = resample(both, *place)
        collection.histograms[item.key].add(values, grids[place] if item.weighted else None)
    collection.before = maps


def _key(parts: Mapping[str, Observable], watched: Sequence[Watched], names: Sequence[str]) -> str:
    what = [
        ROWS,
        EMPTY,
        [hashlib.sha256(parts[part].data).hexdigest() for part in PARTS],
        [repr(w) for w in watched],
        list(names),
    ]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _pack(collection: Collection) -> bytes:
    histograms = collection.histograms.values()
    before = np.zeros((0, 0, 0), np.float32) if collection.before is None else collection.before
    return npz_bytes(
        {
            "key": np.array(collection.key),
            "done": np.array(collection.done),
            "before": before,
            "counts": np.stack([h.counts for h in histograms]),
            "numbers": np.array([[h.top, h.largest, h.zeros] for h in histograms]),
        }
    )


def _open(state: Path | None, key: str, watched: Sequence[Watched]) -> Collection:
    """The state in the file where it is of this very pass, else an empty one."""
    fresh = Collection(key, {w.key: Histogram(w.weighted) for w in watched})
    if state is None or not os.path.isfile(state):
        return fresh
    try:
        with np.load(state, allow_pickle=False) as file:
            if str(file["key"]) != key:
                return fresh
            counts, numbers = file["counts"], file["numbers"]
            fresh.done, fresh.before = file["done"].tolist(), file["before"]
    except (OSError, ValueError, KeyError, EOFError):
        return Collection(key, {w.key: Histogram(w.weighted) for w in watched})
    for histogram, count, number in zip(fresh.histograms.values(), counts, numbers, strict=True):
        histogram.counts, (histogram.top, histogram.largest, histogram.zeros) = count, number.tolist()
    return fresh
