"""Quantization-aware training from a bundle alone: each INT8 part learns to say what the float part says, camera first, BEV behind it."""

from __future__ import annotations

import hashlib
import io
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch.nn import functional as F

from imkd_edge.bundle.files import write_atomically
from imkd_edge.bundle.format import PARTS
from imkd_edge.calibration.collect import run_alone
from imkd_edge.calibration.solvers import Method
from imkd_edge.checks.observe import open_parts
from imkd_edge.detector import Detector
from imkd_edge.engines.onnxruntime import cores
from imkd_edge.errors import Code, Error
from imkd_edge.quantization.insert import quantized_tensors
from imkd_edge.quantization.learnt import LearntPart
from imkd_edge.quantization.ptq import Quantized, quantize_part, solve_all
from imkd_edge.quantization.quantize import Bar, Calibrated, Training
from imkd_edge.quantization.sensitivity import exact_session

SAVE_EVERY = 25  # steps
STEP_RATE = 10  # times the weights' rate: a quantizer's step may move by some per cent in all
Tensors = dict[str, np.ndarray]  # name -> (frames, *shape), in files


def learn(
    seen: Calibrated,
    method: Method,
    kept: Mapping[str, tuple[str, ...]],
    training: Training,
    state: Path,
    threads: int = 0,
    bar: Bar | None = None,
) -> dict[str, Quantized]:
    """Both parts in INT8, trained on the calibration frames, or their scales alone; no label is read.

    Args:
        method: whose scales it starts from.
        kept: names of each part's layers that stay float.
        state: file that is written every few steps; one of the same model, frames and settings is gone on with.

    Raises:
        Error: train_diverged.
    """
    saved = _State.open(state, seen, method, kept, training)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or cores())
    try:
        made: dict[str, Quantized] = {}
        for name in PARTS:
            made[name] = _learn_part(seen, method, kept[name], name, made, training, saved, threads, bar)
        return made
    finally:
        torch.set_num_threads(before)


def _learn_part(
    seen: Calibrated,
    method: Method,
    kept: tuple[str, ...],
    name: str,
    made: Mapping[str, Quantized],
    training: Training,
    saved: _State,
    threads: int,
    bar: Bar | None,
) -> Quantized:
    part = seen.parts[name]
    groups = part.groups(kept)
    tensors = quantized_tensors(part, groups)
    if not tensors:
        return quantize_part(part, seen.collection, method, kept)  # nothing in INT8: nothing to learn
    learnt = LearntPart(
        part, groups, solve_all(part, tensors, seen.collection, method), method.levels, training.weights
    )
    optimizer = make_optimizer(learnt)
    first = saved.resume(name, learnt, optimizer)
    if first < training.steps:
        with tempfile.TemporaryDirectory(dir=saved.path.parent) as folder:
            lesson = Lesson.read(seen, name, made, Path(folder), threads, bar and bar(f"frames for {name}"))
            steps = list(range(first, training.steps))
            for step in steps if bar is None else bar(f"train {name}")(steps):
                _advance(learnt, lesson, optimizer, training, step)
                if (step + 1) % SAVE_EVERY == 0 or step + 1 == training.steps:
                    saved.save(name, step + 1, learnt, optimizer)
    return learnt.quantized()


@dataclass(frozen=True)
class Lesson:
    """What a part reads behind INT8 parts, and what the float part makes of float inputs, on every frame."""

    inputs: Tensors
    targets: Tensors
    frames: int

    @classmethod
    def read(
        cls,
        seen: Calibrated,
        name: str,
        made: Mapping[str, Quantized],
        folder: Path,
        threads: int,
        track: Callable[[Any], Any] | None,
    ) -> Lesson:
        """Runs the frames through the float bundle, and through the INT8 parts made so far with the rest in float."""
        part, spec, names = seen.parts[name], seen.bundle.spec, seen.frames.names
        rig = seen.source[names[0]].rig
        behind = {key: (made[key].model if key in made else seen.parts[key].model).SerializeToString() for key in PARTS}
        teacher = exact_session(part.model, threads)
        inputs = {
            item.name: _file(folder, f"in_{i}", len(names), part.shapes[item.name])
            for i, item in enumerate(part.graph.input)
        }
        targets = {
            item.name: _file(folder, f"out_{i}", len(names), part.shapes[item.name])
            for i, item in enumerate(part.graph.output)
        }
        with Detector(seen.bundle, rig, threads=threads) as a, open_parts(spec, rig, behind, threads=threads) as b:
            for i, frame in enumerate(names if track is None else track(names)):
                for detector in (a, b) if made else (a,):
                    run_alone(detector, spec, seen.source, frame)
                given = {key: a.tensors()[key].reshape(file.shape[1:]) for key, file in inputs.items()}
                for key, file in inputs.items():
                    file[i] = b.tensors()[key].reshape(file.shape[1:]) if made else given[key]
                for (_, file), value in zip(targets.items(), teacher.run(list(targets), given), strict=True):
                    file[i] = value
        return cls(inputs, targets, len(names))


def _file(folder: Path, name: str, frames: int, shape: list[int]) -> np.ndarray:
    return open_memmap(folder / f"{name}.npy", "w+", np.float32, (frames, *shape))


def order(training: Training, frames: int, step: int) -> list[int]:
    """The frames of a step: each comes once before any comes again."""
    places = range(step * training.batch, (step + 1) * training.batch)
    return [
        int(np.random.default_rng((training.seed, place // frames)).permutation(frames)[place % frames])
        for place in places
    ]


def make_optimizer(learnt: LearntPart) -> torch.optim.Optimizer:
    """Adam on the weights, and on the steps in a group of their own; the rates are set at each step."""
    return torch.optim.Adam([{"params": list(learnt.weights.values())}, {"params": list(learnt.steps.values())}])


def _advance(
    learnt: LearntPart, lesson: Lesson, optimizer: torch.optim.Optimizer, training: Training, step: int
) -> None:
    for group, factor in zip(optimizer.param_groups, (1, STEP_RATE), strict=True):
        group["lr"] = factor * training.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / training.steps)))
    optimizer.zero_grad(set_to_none=True)
    for frame in order(training, lesson.frames, step):
        found = learnt.forward({name: torch.from_numpy(file[frame].copy()) for name, file in lesson.inputs.items()})
        terms = distillation(
            found, {name: torch.from_numpy(file[frame].copy()) for name, file in lesson.targets.items()}
        )
        total = sum(terms.values()) / training.batch
        if not torch.isfinite(total):
            says = {name: value.item() for name, value in terms.items()}
            raise Error(Code.train_diverged, f"the loss is not finite: {says}", f"step {step}", "lower the rate")
        total.backward()
    optimizer.step()


def distillation(found: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """How far outputs are from the float part's, term by term; 0 where they agree.

    depth (N,D,h,w): divergence of the distribution, mean over pixels. heatmap (1,K,H,W), logits: divergence over the sum of probabilities.
    box (1,C,H,W): L1, weighted by the float part's highest probability. Others: squared error over the target's square.
    """
    terms = {}
    for name, target in targets.items():
        value = found[name]
        if name == "depth":
            terms[name] = F.kl_div(value.clamp(min=1e-8).log(), target, reduction="none").sum(1).mean()
        elif name == "heatmap":
            t = torch.sigmoid(target)
            entropy = F.binary_cross_entropy_with_logits(target, t, reduction="sum")
            apart = F.binary_cross_entropy_with_logits(value, t, reduction="sum") - entropy
            terms[name] = apart / t.sum().clamp(min=1)
        elif name == "box":
            sure = torch.sigmoid(targets["heatmap"]).amax(1, keepdim=True)
            terms[name] = (sure * (value - target).abs()).sum() / sure.sum().clamp(min=1)
        else:
            terms[name] = (value - target).square().sum() / target.square().sum().clamp(min=1e-12)
    return terms


class _State:
    """The file that an interrupted training goes on from."""

    def __init__(self, path: Path, key: str, parts: dict[str, Any]) -> None:
        self.path, self._key, self._parts = path, key, parts

    @classmethod
    def open(
        cls, path: Path, seen: Calibrated, method: Method, kept: Mapping[str, tuple[str, ...]], training: Training
    ) -> _State:
        """What the file holds where it is of this very training, else nothing."""
        what = [
            seen.collection.key,
            asdict(method),
            {name: list(layers) for name, layers in kept.items()},
            asdict(training),
        ]
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        try:
            saved = torch.load(path, weights_only=True)
            return cls(path, key, saved["parts"] if saved["key"] == key else {})
        except Exception:  # no file, or whatever unpickling damaged bytes can raise: begin anew
            return cls(path, key, {})

    def resume(self, name: str, learnt: LearntPart, optimizer: torch.optim.Optimizer) -> int:
        """The step to go on with."""
        if name not in self._parts:
            return 0
        learnt.restore(self._parts[name]["learnt"])
        optimizer.load_state_dict(self._parts[name]["optimizer"])
        return int(self._parts[name]["step"])

    def save(self, name: str, step: int, learnt: LearntPart, optimizer: torch.optim.Optimizer) -> None:
        self._parts[name] = {"step": step, "learnt": learnt.state(), "optimizer": optimizer.state_dict()}
        buffer = io.BytesIO()
        torch.save({"key": self._key, "parts": self._parts}, buffer)
        write_atomically(self.path, buffer.getvalue())
