"""Programs of the proof that run the Detector on the GPU: on_frames.py PROGRAM FILE SECONDS WORDS... writes JSON.

detector BUNDLES...: the golden drives against the exporter's results; replayed frames against frames without a graph.
data FOLDER: real frames against device "cpu".
end_to_end MODELS...: times of frames in FP16. streams: images that a producer's stream still writes.
faults: what a failing engine, a bad image and a fault of the GPU do.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from entries import Entries, Record, write_each
from gpu_engines import FAKE, Idle, IdleWithoutGraph, Program, WithoutGraph, frame_times, open_model, use_gpu
from gpu_producers import producers

from imkd_edge import Bundle, Detector, _core
from imkd_edge.bundle.golden import read_golden
from imkd_edge.checks.selftest import beyond_tolerance, check_golden
from imkd_edge.engines.torch import TorchEngine
from imkd_edge.errors import Code, Error
from imkd_edge.sources import open_source

VARIANTS = {"graph": TorchEngine, "no graph": WithoutGraph, "ops, graph": Idle, "ops, no graph": IdleWithoutGraph}
REAL_FRAMES = 20


def detector(out: Path, seconds: float, bundles: list[str]) -> Entries:
    for name in bundles:
        yield name, partial(golden_drive, name)


def golden_drive(name: str) -> Record:
    """A bundle's golden drive: differences from the exporter's CPU, and whether a graph changes a bit."""
    bundle = Bundle.load(name)
    differences = check_golden(bundle, engine="torch", device="cuda", threads=1)
    excess = beyond_tolerance(differences)
    runs = {engine.__name__: drive(bundle, engine) for engine in (TorchEngine, WithoutGraph)}
    replayed, plain = runs["TorchEngine"], runs["WithoutGraph"]
    equal = len(replayed) == len(plain) and all(
        np.array_equal(a[key], b[key], equal_nan=True) for a, b in zip(replayed, plain) for key in ("boxes", "scores")
    )
    count = sum(result["replayed"] for result in replayed)
    passed = not excess and equal and count > 0 and not any(result["replayed"] for result in plain)
    return {
        "status": "passed" if passed else "failed",
        "differences": differences,
        "beyond_tolerance": excess,
        "boxes": sum(len(result["boxes"]) for result in replayed),
        "replayed": count,
        "frames": len(replayed),
        "graph_changes_no_bit": equal,
    }


def drive(bundle: Bundle, engine: Any) -> list[dict[str, Any]]:
    """Results of the golden drive, repeated, so that most frames can be replayed."""
    golden = read_golden(bundle)
    results = []
    with Detector(bundle, golden[0].rig, device="cuda", engine=engine, threads=1) as on_gpu:
        for _ in range(1 if FAKE else 3):
            on_gpu.reset()
            for frame in golden:
                if frame.rig != on_gpu.rig:
                    on_gpu.set_rig(frame.rig)
                result = on_gpu.infer(*frame.arguments())
                results.append({"boxes": result.boxes, "scores": result.scores, "replayed": result.replayed})
    return results


def data(out: Path, seconds: float, folders: list[str]) -> Entries:
    for folder in folders:
        yield folder, partial(real_frames, folder, seconds / len(folders))


def real_frames(folder: str, seconds: float) -> Record:
    """The frames of a source on device "cuda" and "cpu": the same objects, and how far apart."""
    source, end = open_source(folder), time.monotonic() + seconds
    bundle = Bundle.load("astyx-taught")
    frames, boxes, worst, different = 0, 0, {"position_m": 0.0, "score": 0.0}, []
    first = source[source.names[0]].rig
    with (
        Detector(bundle, first, device="cuda", engine="torch", threads=1) as on_gpu,
        Detector(bundle, first, device="cpu", threads=1) as on_cpu,
    ):
        for name in source.names[:REAL_FRAMES]:
            if frames and time.monotonic() > end:
                break
            sample = source[name]
            a, b = (detector.infer_sample(sample) for detector in (on_gpu, on_cpu))
            frames, boxes = frames + 1, boxes + len(b.boxes)
            i, j = np.argsort(a.boxes[:, 0]), np.argsort(b.boxes[:, 0])
            if len(i) != len(j) or not np.array_equal(a.labels[i], b.labels[j]):
                different.append(name)
            elif len(i):
                apart = np.abs(a.boxes[i, :3] - b.boxes[j, :3]).max()
                worst["position_m"] = max(worst["position_m"], float(apart))
                worst["score"] = max(worst["score"], float(np.abs(a.scores[i] - b.scores[j]).max()))
    passed = boxes > 0 and not different and worst["position_m"] <= 0.05 and worst["score"] <= 0.01
    found = {"frames": frames, "boxes": boxes, "worst": worst, "different": different}
    return {"status": "passed" if passed else "failed", **found}


def end_to_end(out: Path, seconds: float, models: list[str]) -> Entries:
    for name in models:
        yield name, partial(variants_of, name, out / "parts", seconds / len(models) / len(VARIANTS) / 2)


def variants_of(name: str, folder: Path, seconds: float) -> Record:
    """p50 and p99 of a model, with and without a graph, and of the frame without its networks."""
    model, count = open_model(name, folder), 1 if FAKE else 500
    found: Record = {"status": "passed", "variants": {}}
    for variant, engine in VARIANTS.items():
        with model.detector(engine) as on_gpu:
            times = frame_times(on_gpu, model.frames, count, seconds)
        found["variants"][variant] = times
        should = "no graph" not in variant
        if (times["replayed"] == times["frames"]) != should:
            reason = f"{variant}: {times['replayed']} frames were replayed {times['why_not_replayed']}".rstrip()
            found |= {"status": "failed", "reason": reason}
    if not FAKE:
        found["gpu_memory_mib"] = torch.cuda.max_memory_reserved() / 2**20
        torch.cuda.reset_peak_memory_stats()
    return found


def tensorrt(out: Path, seconds: float, bundles: list[str]) -> Entries:
    if "tensorrt" not in _core.native_engines():
        reason = "CMake found no NvInfer.h: the core has no engine for TensorRT (TENSORRT_ROOT names its folder)"
        yield "tensorrt", lambda: {"status": "skipped", "reason": reason}
        return
    for name in bundles:
        yield name, partial(built_engines, name, out / f"{name}.imkd", seconds / len(bundles) / 3)


def built_engines(name: str, folder: Path, seconds: float) -> Record:
    """Engines of TensorRT, built here from a bundle: the golden drive, and times of frames."""
    from imkd_edge.checks.built_engines import check_engines
    from imkd_edge.engines.build import build_engines
    from imkd_edge.options import BuildOptions

    shutil.copytree(Bundle.load(name).path, folder, dirs_exist_ok=True)  # its engines are written beside it
    said = check_engines(build_engines(folder, BuildOptions()))
    frames = [frame.arguments() for frame in read_golden(Bundle.load(folder))]
    with Detector(folder, device="cuda", engine="tensorrt", threads=1) as on_gpu:
        times = frame_times(on_gpu, frames[:1], 500, seconds)
    return {
        "status": "passed" if said.startswith("passed") else "failed",
        "golden": said,
        "variants": {"graph": times},
    }


def streams(out: Path, seconds: float, _: list[str]) -> Entries:
    bundle = Bundle.load("tiny")
    golden = read_golden(bundle)[:3]
    with Detector(bundle, golden[0].rig, device="cuda", engine="torch", threads=1) as on_gpu:
        frames = [frame.arguments() for frame in golden]
        expected = [on_gpu.infer(*arguments).boxes for arguments in frames]
        for name, (produce, why_not) in producers().items():
            yield name, partial(late_images, on_gpu, frames, expected, produce, why_not)


def late_images(on_gpu: Detector, frames: list, expected: list[np.ndarray], produce: Any, why_not: str) -> Record:
    """Images that a producer's stream writes late: the boxes of the same images on the host."""
    if produce is None:
        return {"status": "skipped", "reason": why_not}
    on_gpu.reset()
    boxes = [on_gpu.infer(late(images, produce), *others).boxes for images, *others in frames]
    equal = sum(np.array_equal(a, b, equal_nan=True) for a, b in zip(boxes, expected))
    passed = equal == len(frames) and sum(map(len, boxes)) > 0
    return {"status": "passed" if passed else "failed", "frames": len(frames), "equal": equal}


def late(images: Any, produce: Any) -> Any:
    """The images, in their order or by their names, as a producer makes them."""
    if isinstance(images, dict):
        return {name: None if image is None else produce(np.ascontiguousarray(image)) for name, image in images.items()}
    return [None if image is None else produce(np.ascontiguousarray(image)) for image in images]


class Failing(TorchEngine):
    """Fails on request."""

    fails = False

    def run(self) -> None:
        if self.fails:
            raise Error(Code.engine_run, "fails on request", "the proof")
        super().run()


def faults(out: Path, seconds: float, _: list[str]) -> Entries:
    """A failing engine and a bad image cost one frame; after a fault of the GPU every call has its code."""
    bundle = Bundle.load("tiny")
    frame = read_golden(bundle)[0]
    with Detector(bundle, frame.rig, device="cuda", engine=Failing, threads=1) as on_gpu:

        def boxes() -> np.ndarray:
            return on_gpu.infer(*frame.arguments()).boxes

        expected = boxes()

        def unchanged() -> Record:
            same = len(expected) > 0 and np.array_equal(boxes(), expected, equal_nan=True)
            return {"status": "passed" if same else "failed", "code": "no error"}

        Failing.fails = True
        yield "an engine fails", partial(said, Code.engine_run, boxes)
        Failing.fails = False
        yield "an image without an address", partial(said, Code.frame_bad_shape, partial(bad_image, on_gpu))
        yield "the frame after both", unchanged
        break_gpu()
        for name in ("a frame after a fault of the GPU", "the next frame"):
            yield name, partial(said, Code.device_failed, boxes)


def said(code: Code, call: Callable[[], Any]) -> Record:
    """Whether the call raises an Error of this code."""
    actual, expected = "no error", f"E{code.value:04d}"
    try:
        call()
    except Error as error:
        actual = error.code
    return {"status": "passed" if actual == expected else "failed", "code": actual, "expected": expected}


def bad_image(on_gpu: Detector) -> None:
    camera = on_gpu.rig.cameras[0]

    class Nowhere:
        __cuda_array_interface__ = {
            "shape": (camera.height, camera.width, 3),
            "typestr": "|u1",
            "data": (0, True),
            "version": 3,
        }

    on_gpu.infer({camera.name: Nowhere()}, {})


def break_gpu() -> None:
    """An assertion of a kernel, after which CUDA refuses every call of this process."""
    if FAKE:
        import gpu_engines

        gpu_engines.fake.break_device()
        return
    try:
        torch.zeros(1, device="cuda")[torch.tensor([1 << 20], device="cuda")].cpu()
    except Exception as error:  # torch's class for it differs between versions
        print(f"as meant: {error}", file=sys.stderr)


PROGRAMS: dict[str, Program] = {
    "detector": detector,
    "data": data,
    "end_to_end": end_to_end,
    "streams": streams,
    "faults": faults,
    "tensorrt": tensorrt,
}


def main(program: str, file: str, seconds: str, *words: str) -> None:
    use_gpu()
    write_each(Path(file), PROGRAMS[program](Path(file).parent, float(seconds), list(words)))
    os._exit(0)  # after a fault, what PyTorch frees at the end would end the process by a signal


if __name__ == "__main__":
    main(*sys.argv[1:])
