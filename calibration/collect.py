"""The one pass over the calibration frames: a histogram of every watched tensor, under every weight; an interrupted one is gone on with."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from imkd_edge import Detector, ModelSpec, SensorRig
from imkd_edge.bundle import npz_bytes
from imkd_edge.calibration.frames import Track
from imkd_edge.calibration.histogram import ROWS, Histogram
from imkd_edge.calibration.weights import EMPTY, radar_maps, resample
from imkd_edge.engine_cache import write_atomically
from imkd_edge.engines import Engine, EngineFactory, OnnxRuntimeEngine, TensorInfo
from imkd_edge.errors import Code, Error
from imkd_edge.samples import infer_sample
from imkd_edge.sources.sample import Source

SAVE_EVERY = 16  # frames
PARTS = ("camera", "bev")


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


class ObservingEngine(Engine):
    """An engine that also keeps the tensors that it is told to, as `seen`; the graph must name them as outputs, which the Detector does
    not hear of.

    Args:
        inner: what runs the graph.
        shapes: of the tensors, by name.
        own: outputs that the part has anyway.
    """

    def __init__(self, inner: Engine, shapes: Mapping[str, tuple[int, ...]], own: set[str]) -> None:
        super().__init__()
        self.seen = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        self._inner, self._own = inner, own

    def name(self) -> str:
        return self._inner.name()

    def load(self, onnx_path: str) -> None:
        self._inner.load(onnx_path)
        inputs = {info.name for info in self.inputs()}
        for name, array in self.seen.items():
            if name not in inputs:
                self._inner.bind(name, array)

    def inputs(self) -> list[TensorInfo]:
        return self._inner.inputs()

    def outputs(self) -> list[TensorInfo]:
        return [info for info in self._inner.outputs() if info.name in self._own]

    def bind(self, tensor: str, array: np.ndarray) -> None:
        self._inner.bind(tensor, array)
        if tensor in self.seen:
            self.seen[tensor] = array  # an input, or an output that the Detector wants too

    def run(self) -> None:
        self._inner.run()


@dataclass(frozen=True)
class Observable:
    """A part that shows its inner tensors."""

    data: bytes  # ONNX, with the tensors among its outputs
    outputs: set[str]  # those that it has anyway


def observe(
    spec: ModelSpec,
    rig: SensorRig,
    parts: Mapping[str, Observable],
    shapes: Mapping[str, Mapping[str, tuple[int, ...]]],
    threads: int = 0,
    engine: EngineFactory = OnnxRuntimeEngine,
) -> tuple[Detector, dict[str, ObservingEngine]]:
    """A Detector whose engines keep tensors.

    Args:
        parts: "camera" and "bev".
        shapes: of each part's tensors to keep, by name.
        engine: makes what runs the parts; it must hand out every output that a graph names.
    """
    engines = {part: ObservingEngine(engine(threads), shapes[part], parts[part].outputs) for part in PARTS}
    order = iter(engines.values())  # as the Detector asks for them
    return open_parts(spec, rig, {part: parts[part].data for part in PARTS}, lambda _: next(order), threads), engines


def open_parts(
    spec: ModelSpec,
    rig: SensorRig,
    parts: Mapping[str, bytes],
    engine: str | EngineFactory = "onnxruntime",
    threads: int = 0,
) -> Detector:
    """A Detector on two ONNX parts in memory."""
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            Path(folder, f"{part}.onnx").write_bytes(parts[part])
        camera, bev = (Path(folder, f"{part}.onnx") for part in PARTS)
        return Detector.from_onnx(spec, rig, camera, bev, engine=engine, threads=threads)


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
        infer_sample(detector, source[earlier])
    infer_sample(detector, source[name])


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
        values = engines[item.part].seen[item.name]
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
