"""A Detector whose engines expose inner tensors, for comparison and calibration."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imkd_edge._core import Engine, TensorInfo
from imkd_edge.bundle import PARTS
from imkd_edge.detector import Detector
from imkd_edge.engines.load import EngineFactory
from imkd_edge.engines.onnxruntime import OnnxRuntimeEngine
from imkd_edge.rig import SensorRig
from imkd_edge.spec import ModelSpec


class ObservingEngine(Engine):
    """An engine that also exposes inner tensors, as `tensors`.

    They are outputs of its graph that the Detector does not see.

    Args:
        inner: the engine that runs the graph.
        shapes: of the exposed tensors, by name.
        outputs: names of the part's own outputs.
    """

    def __init__(self, inner: Engine, shapes: Mapping[str, tuple[int, ...]], outputs: set[str]) -> None:
        super().__init__()
        self.tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        self._inner, self._outputs = inner, outputs

    def name(self) -> str:
        return self._inner.name()

    def load(self, onnx_path: str) -> None:
        self._inner.load(onnx_path)
        inputs = {info.name for info in self.inputs()}
        for name, array in self.tensors.items():
            if name not in inputs:
                self._inner.bind(name, array)

    def inputs(self) -> list[TensorInfo]:
        return self._inner.inputs()

    def outputs(self) -> list[TensorInfo]:
        return [info for info in self._inner.outputs() if info.name in self._outputs]

    def bind(self, tensor: str, array: np.ndarray) -> None:
        self._inner.bind(tensor, array)
        if tensor in self.tensors:
            self.tensors[tensor] = array  # an input, or an output that the Detector binds too

    def run(self) -> None:
        self._inner.run()


@dataclass(frozen=True)
class Observable:
    """A part with inner tensors among its outputs."""

    data: bytes  # ONNX
    outputs: set[str]  # names of the part's own outputs


def observe(
    spec: ModelSpec,
    rig: SensorRig,
    parts: Mapping[str, Observable],
    shapes: Mapping[str, Mapping[str, tuple[int, ...]]],
    threads: int = 0,
    engine: EngineFactory = OnnxRuntimeEngine,
    score_threshold: float | None = None,
) -> tuple[Detector, dict[str, ObservingEngine]]:
    """A Detector whose engines expose tensors.

    Args:
        parts: "camera" and "bev".
        shapes: of each part's exposed tensors, by name.
        engine: makes the engine that runs a part; it must be able to bind every output of the graph.
        score_threshold: replaces the spec's.
    """
    engines = {part: ObservingEngine(engine(threads), shapes[part], parts[part].outputs) for part in PARTS}
    order = iter(engines.values())  # the Detector makes its engines in the order of PARTS
    data = {part: parts[part].data for part in PARTS}
    return open_parts(spec, rig, data, lambda _: next(order), threads, score_threshold), engines


def open_parts(
    spec: ModelSpec,
    rig: SensorRig,
    parts: Mapping[str, bytes],
    engine: str | EngineFactory = "onnxruntime",
    threads: int = 0,
    score_threshold: float | None = None,
) -> Detector:
    """A Detector on two ONNX parts in memory."""
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            Path(folder, f"{part}.onnx").write_bytes(parts[part])
        camera, bev = (Path(folder, f"{part}.onnx") for part in PARTS)
        return Detector.from_onnx(
            spec, rig, camera, bev, engine=engine, threads=threads, score_threshold=score_threshold
        )
