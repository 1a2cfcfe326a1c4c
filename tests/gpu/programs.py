"""The parts of the proof that run frames and training steps, each in a process of its own.

A part without PyTorch or another library is skipped, and its record says why.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

from machine import gpu_count
from parts import Context, OutOfTime, Record, execute, failed, skipped, tail, worst

FRAMES = Path(__file__).with_name("on_frames.py")
STEPS = Path(__file__).with_name("training_steps.py")
NETWORKS = ("torch", "onnx")  # of the engine torch
TRAINING = ("torch", "torchvision", "timm", "onnx")
RESERVE = 0.8  # of a part's time is its program's; the rest is for starting and ending


def lacking(names: tuple[str, ...]) -> str:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return f"the Python package {', '.join(missing)} is not installed" if missing else ""


def run_program(context: Context, name: str, command: list[str]) -> Record:
    """The JSON that a program writes to OUT/name.json, as the record's "results"; also of one that ended too early."""
    path = context.out / f"{name}.json"
    path.unlink(missing_ok=True)
    fake = {"IMKD_PROVE_FAKE": "1", "OMP_NUM_THREADS": "1"} if context.fake else {}
    words = [str(path) if word == "FILE" else word for word in command]
    try:
        status = execute(context, words, f"{name}.log", context.environment(**fake))
        reason = f"it ended with exit status {status}, see {name}.log" if status != 0 or not path.is_file() else ""
    except OutOfTime as error:
        reason = str(error)
    results = json.loads(path.read_text()) if path.is_file() else {}
    if reason:
        return failed(reason, tail=tail(context, f"{name}.log"), results=results)
    ran = {key: record for key, record in results.items() if record["status"] != "skipped"}
    if not ran:
        return skipped("; ".join(record["reason"] for record in results.values())) | {"results": results}
    return {"status": worst(ran), "results": results}


def frames(context: Context, program: str, *words: str) -> Record:
    if reason := lacking(NETWORKS):
        return skipped(reason)
    seconds = f"{RESERVE * context.remaining():.1f}"
    return run_program(context, program, [sys.executable, str(FRAMES), program, "FILE", seconds, *words])


def detector(context: Context) -> Record:
    """Golden drives on CUDA ops and PyTorch, and what a graph changes."""
    return frames(context, "detector", *context.bundles)


def data(context: Context) -> Record:
    """Real frames on the GPU and on the CPU."""
    if not context.data:
        return skipped("no real frames were named: give --data FOLDER")
    return frames(context, "data", context.data)


def streams(context: Context) -> Record:
    """Images of PyTorch, CuPy and cuda.core that their streams still write."""
    return frames(context, "streams")


def faults(context: Context) -> Record:
    """An engine, an image and the GPU itself fail."""
    return frames(context, "faults")


def end_to_end(context: Context) -> Record:
    """Times of whole frames in FP16, with and without a graph."""
    return frames(context, "end_to_end", *context.models)


def training(context: Context) -> Record:
    """Training steps in bfloat16 on one GPU."""
    return train(context, "training", [sys.executable])


def several_gpus(context: Context) -> Record:
    """The same steps by as many processes as there are GPUs."""
    processes = 2 if context.fake else gpu_count()
    if processes < 2:
        return skipped("one GPU: DistributedDataParallel needs two")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return train(context, "several_gpus", [sys.executable, *launcher])


def train(context: Context, name: str, python: list[str]) -> Record:
    if reason := lacking(TRAINING):
        return skipped(reason)
    seconds = f"{RESERVE * context.remaining():.1f}"
    models = [model for model in context.models if model not in ("astyx-taught",)]
    return run_program(context, name, [*python, str(STEPS), "FILE", seconds, str(context.steps), *models])


def tensorrt(context: Context) -> Record:
    """Engines of TensorRT, built here, and their times."""
    if reason := lacking(("tensorrt",)):
        return skipped(reason)
    if context.fake:
        return skipped("TensorRT needs a GPU")
    command = [sys.executable, str(FRAMES), "tensorrt", "FILE", f"{RESERVE * context.remaining():.1f}"]
    return run_program(context, "tensorrt", [*command, *context.bundles])
