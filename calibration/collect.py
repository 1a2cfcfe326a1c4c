"""The pass over the calibration frames: histograms of every observed tensor; an interrupted pass can be resumed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.bundle import PARTS, npz_bytes, write_atomically
from imkd_edge.calibration.histogram import ROWS, Histogram
from imkd_edge.calibration.weights import EMPTY, radar_maps, resample
from imkd_edge.checks.observe import Observable, ObservingEngine, observe
from imkd_edge.errors import Code, Error
from imkd_edge.progress import Track
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
    weighted: bool = False  # it depends on radar and lies over the ground
    radius: int = 0  # of its receptive field in the radar grid, in cells of its own grid

    @property
    def key(self) -> str:
        """A name that is unique over both parts, such as "bev/radar_grid"."""
        return f"{self.part}/{self.name}"


@dataclass
class Collection:
    """Histograms of the frames that were observed so far."""

    key: str  # hash of everything that the pass depends on
    histograms: dict[str, Histogram]  # by ObservedTensor.key
    frames: list[str] = field(default_factory=list)  # names, in the order of the pass
    last_maps: np.ndarray | None = None  # (2, H, W) of the last frame, the placebo of the next


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
) -> Collection:
    """Runs the float model over the frames, each after its past, and counts the values of its tensors.

    Args:
        parts: "camera" and "bev".
        names: of the frames.
        state: file that is written every few frames and at the end; a pass over the same model and frames resumes
            from it.
        track: makes a progress bar of the remaining names.
        without: names of frames that cannot be read; as past frames they are left out.

    Raises:
        Error: train_diverged where a value of the model is not finite.
    """
    collection = _open(state, _key(spec, parts, tensors, names), tensors)
    remaining = list(names[len(collection.frames) :])
    if not remaining:
        return collection
    shapes = {part: {t.name: t.shape for t in tensors if t.part == part} for part in PARTS}
    detector, engines = observe(spec, source[remaining[0]].rig, parts, shapes, threads)
    timeline = Timeline(source, spec.history, without)
    with detector:
        for name in remaining if track is None else track(remaining):
            infer_with_past(detector, timeline.walk(name))
            _count(collection, tensors, engines, radar_maps(detector.tensors()["radar_grid"], spec), name)
            collection.frames.append(name)
            count = len(collection.frames)
            if state is not None and (count % SAVE_EVERY == 0 or count == len(names)):
                write_atomically(state, _pack(collection))
    return collection


def _count(
    collection: Collection,
    tensors: Sequence[ObservedTensor],
    engines: Mapping[str, ObservingEngine],
    maps: np.ndarray,
    name: str,
) -> None:
    """Adds a frame's tensors to the histograms; maps: `radar_maps` of the frame."""
    placebo = collection.last_maps
    if placebo is None:
        placebo = np.stack([np.full(maps.shape[1:], 1 - EMPTY), np.zeros(maps.shape[1:])]).astype(np.float32)
    both, resampled = np.concatenate([maps, placebo]), {}
    for item in tensors:
        values = engines[item.part].tensors[item.name]
        if not np.isfinite(values).all():
            raise Error(Code.train_diverged, f"{item.key} is not finite", name, "check the model on this frame")
        grid = (*item.shape[-2:], item.radius)
        if item.weighted and grid not in resampled:
            resampled[grid] = resample(both, *grid)
        collection.histograms[item.key].add(values, resampled[grid] if item.weighted else None)
    collection.last_maps = maps


def _key(
    spec: ModelSpec, parts: Mapping[str, Observable], tensors: Sequence[ObservedTensor], names: Sequence[str]
) -> str:
    inputs: list[Any] = [
        ROWS,
        EMPTY,
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
    last_maps = np.zeros((0, 0, 0), np.float32) if collection.last_maps is None else collection.last_maps
    return npz_bytes(
        {
            "key": np.array(collection.key),
            "done": np.array(collection.frames),
            "before": last_maps,
            "counts": np.stack([h.counts for h in histograms]),
            "numbers": np.array([[h.top, h.largest, h.zeros] for h in histograms]),
        }
    )


def _open(state: Path | None, key: str, tensors: Sequence[ObservedTensor]) -> Collection:
    """The content of the state file where it is of the same pass, else an empty collection."""
    fresh = Collection(key, {item.key: Histogram(item.weighted) for item in tensors})
    if state is None or not os.path.isfile(state):
        return fresh
    try:
        with np.load(state, allow_pickle=False) as file:
            if str(file["key"]) != key:
                return fresh
            counts, numbers = file["counts"], file["numbers"]
            fresh.frames, fresh.last_maps = file["done"].tolist(), file["before"]
    except (OSError, ValueError, KeyError, EOFError):
        return Collection(key, {item.key: Histogram(item.weighted) for item in tensors})
    for histogram, count, number in zip(fresh.histograms.values(), counts, numbers, strict=True):
        histogram.counts, (histogram.top, histogram.largest, histogram.zeros) = count, number.tolist()
    return fresh
