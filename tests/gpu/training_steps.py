"""Training steps on the GPU: training_steps.py FILE SECONDS STEPS MODELS... writes JSON; torchrun starts it for DDP.

One batch of synthetic frames, the same in every step: the time of a step is without reading data. Beside it the losses
of the first steps, in float32, on the CPU. With IMKD_PROVE_FAKE=1 the CPU takes the GPU's place.
"""

from __future__ import annotations

import copy
import os
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from entries import write_each

from imkd_edge.sources.synth import SynthSource
from imkd_edge.training import distributed
from imkd_edge.training.config import Config, load_config
from imkd_edge.training.data import FrameDataset, collate
from imkd_edge.training.engine import make_optimizer, train_one_epoch
from imkd_edge.training.stages import StudentStage

FAKE = os.environ.get("IMKD_PROVE_FAKE") == "1"
BATCH = 1 if FAKE else 4  # frames of a process
COMPARED = 5  # steps beside the CPU's
TOLERANCE = 0.02  # of the loss before the first step: bfloat16 has 8 bits; later ones drift apart


def settings_of(name: str, precision: str) -> Config:
    """A config on synthetic frames; its batch is the one of a process."""
    config = load_config(name, [f"train.precision={precision}"])
    train = replace(config.train, batch=BATCH, accumulate=1, epochs=1, workers=0)
    return replace(config, train=train, data=replace(config.data, source="synth", options={}, keep=True))


def make_batch(config: Config) -> dict:
    source = SynthSource(scenes=2, frames_per_scene=8)
    first = 8 * (distributed.rank() % 2)
    dataset = FrameDataset(source, source.names[first : first + 8], config, 0)
    return collate([dataset[i] for i in range(4, 4 + BATCH)], config.spec)


def take_steps(config: Config, batch: dict, device: torch.device, count: int, seconds: float) -> dict[str, Any]:
    """Losses and times of steps from the same random weights."""
    torch.manual_seed(0)
    stage = StudentStage(config).to(device).to(memory_format=torch.channels_last)
    stage = distributed.sync_batch_norms(stage)
    ema = copy.deepcopy(stage.network).eval().requires_grad_(False)
    scaler = torch.amp.GradScaler(device.type, enabled=False)
    losses, ends = [], [time.perf_counter()]
    stop = time.monotonic() + seconds

    def report(number: int, mean: float) -> None:
        losses.append(mean * number - sum(losses))
        ends.append(time.perf_counter())

    def batches() -> Any:
        for number in range(count):
            if number and distributed.from_first(time.monotonic() > stop):
                return
            yield batch

    model = distributed.wrap(stage)
    optimizer = make_optimizer(stage, config.train)
    train_one_epoch(model, ema, optimizer, scaler, batches(), config.train, 0, count, report)
    times = [1e3 * (b - a) for a, b in pairwise(ends)]
    return {"steps": len(losses), "losses": losses, "ms_per_step": median(times[len(times) // 4 :])}


def measure(name: str, count: int, seconds: float) -> dict[str, Any]:
    device = distributed.join("cpu" if FAKE else "cuda")
    if FAKE:
        torch.set_num_threads(1)
    begin = time.monotonic()
    config = settings_of(name, "bfloat16")
    batch = make_batch(config)
    found: dict[str, Any] = {"batch": BATCH, "processes": distributed.size(), "precision": "bfloat16"}
    if distributed.size() == 1:  # the CPU first, so that the GPU has what is left
        exact = settings_of(name, "float32")
        found["cpu"] = take_steps(exact, batch, torch.device("cpu"), min(COMPARED, count), seconds / 3)
    left = max(1.0, seconds - (time.monotonic() - begin))
    found |= take_steps(config, batch, device, count, left)
    if not FAKE:
        found["gpu_memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
        torch.cuda.reset_peak_memory_stats()
    first, on_cpu = found["losses"][0], found.get("cpu", {}).get("losses", found["losses"])[0]
    found["difference_of_the_first_loss"] = abs(first - on_cpu) / abs(on_cpu)
    fell = found["steps"] < 20 or found["losses"][-1] < first
    found["status"] = "passed" if fell and found["difference_of_the_first_loss"] <= TOLERANCE else "failed"
    return found


def main(file: str, seconds: str, steps: str, *models: str) -> None:
    process = os.environ.get("RANK", "0")  # of torchrun; every process writes a file, and the first one's is read
    path = Path(file) if process == "0" else Path(f"{file}.{process}")
    write_each(path, ((name, partial(measure, name, int(steps), float(seconds) / len(models))) for name in models))


if __name__ == "__main__":
    main(*sys.argv[1:])
