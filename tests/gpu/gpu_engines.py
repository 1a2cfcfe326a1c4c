"""What the proof's programs have in common: PyTorch's engine on the GPU in some variants, and its networks in FP16.

With IMKD_PROVE_FAKE=1 in the environment the fake CUDA runtime and PyTorch on the CPU take the GPU's place.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cuda_budget import frame_rig, load
from entries import Entries
from op_cases import random_points

import imkd_edge.detector
import imkd_edge.engines.torch as torch_engine
from imkd_edge import Bundle, Detector
from imkd_edge.bundle.golden import read_golden
from imkd_edge.engines.float16 import half_bytes
from imkd_edge.engines.torch import TorchEngine
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import SensorRig
from imkd_edge.spec import ModelSpec

FAKE = os.environ.get("IMKD_PROVE_FAKE") == "1"
UNTRAINED = "r50-nuscenes"  # has no bundle: random weights, random frames
fake: Any = None  # the module of the fake runtime


def use_gpu() -> None:
    """Prepares this process: under the fake, the core and PyTorch get a GPU."""
    global fake
    if not FAKE:
        why_not = torch_engine.why_not_on_gpu()
        if why_not:
            raise SystemExit(f"the engine torch cannot run on the GPU: {why_not}")
        return
    import fake_gpu

    fake = load("cuda_on_host")
    fake_gpu.use_core(fake, setattr)
    fake_gpu.use_torch(fake, setattr)
    imkd_edge.detector._core = fake


class WithoutGraph(TorchEngine):
    """The same, and its frames are not replayed."""

    def why_not_captured(self) -> str:
        return "measured without a graph"


class Idle(TorchEngine):
    """Runs once, so that later frames have its outputs, then enqueues nothing: what is left of a frame is ours."""

    ran = False

    def run(self) -> None:
        if not self.ran:
            super().run()
        self.ran = True


class IdleWithoutGraph(Idle, WithoutGraph):
    pass


@dataclass(frozen=True)
class Model:
    """Two ONNX parts in FP16, and frames for them: the arguments of Detector.infer."""

    spec: ModelSpec
    rig: SensorRig
    parts: tuple[Path, Path]
    frames: list[tuple]

    def detector(self, engine: Any, device: str = "cuda") -> Detector:
        return Detector.from_onnx(self.spec, self.rig, *self.parts, device=device, engine=engine, threads=1)


def half_parts(parts: tuple[bytes, bytes], folder: Path) -> tuple[Path, Path]:
    """The parts with float16 between inputs and outputs, as TensorRT would get them, written into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "camera.onnx", folder / "bev.onnx"
    for part, path in zip(parts, paths, strict=True):
        path.write_bytes(part if FAKE else half_bytes(part))  # float16 takes a CPU minutes
    return paths


def open_model(name: str, folder: Path) -> Model:
    if name == UNTRAINED:
        return untrained(folder)
    bundle = Bundle.load(name)
    golden = read_golden(bundle)
    parts = tuple(Path(bundle.file(f"{part}.onnx")).read_bytes() for part in ("camera", "bev"))
    frames = [frame.arguments() for frame in golden if frame.rig == golden[0].rig]
    return Model(bundle.spec, golden[0].rig, half_parts(parts, folder / name), frames)


def untrained(folder: Path) -> Model:
    """r50-nuscenes with random weights; six random images of 1600x900 and 3,750 random radar points."""
    from imkd_edge.training.config import load_config
    from imkd_edge.training.export import to_onnx
    from imkd_edge.training.models.student import Student

    config, rng = load_config(UNTRAINED), np.random.default_rng(0)
    torch.manual_seed(0)
    parts = half_parts(to_onnx(Student(config.spec, config.model), config.spec), folder / UNTRAINED)
    rig = frame_rig(config.spec)
    frames = []
    for i in range(4):
        at = i * 500_000_000
        images = [rng.integers(0, 256, (900, 1600, 3), dtype=np.uint8) for _ in rig.cameras]  # equal ones are frozen
        sweeps = [RadarSweep(f"r{k % 5}", random_points(rng, 125, 30), at - k // 5 * 70_000_000) for k in range(30)]
        frames.append((images, sweeps, Ego(twist=(7, 0, 0)), at))
    return Model(config.spec, rig, parts, frames)


def frame_times(detector: Detector, frames: list[tuple], count: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of calls of infer, after a warm-up; at most `count` calls, and none after the seconds."""
    feed = cycle(frames)
    end = time.monotonic() + seconds
    for _ in range(min(10, count)):
        detector.infer(*next(feed))
    times, replayed = [], 0
    while len(times) < count and (not times or time.monotonic() < end):
        arguments = next(feed)
        begin = time.perf_counter()
        result = detector.infer(*arguments)
        times.append(1e3 * (time.perf_counter() - begin))
        replayed += result.replayed
    p50, p99 = np.percentile(times, (50, 99))
    return {
        "frames": len(times),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "replayed": replayed,
        "why_not_replayed": detector.why_not_replayed,
    }


def cycle(frames: list[tuple]) -> Iterator[tuple]:
    """The frames again and again; a list that begins again has later times."""
    while True:
        yield from frames


Program = Callable[[Path, float, list[str]], Entries]
