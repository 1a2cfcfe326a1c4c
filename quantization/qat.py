"""Quantization-aware training from a bundle alone: each INT8 part is distilled from its float form.

The camera part first, then the BEV part on the INT8 camera part's outputs.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.lib.format import open_memmap
from torch.nn import functional as F

from imkd_edge.bundle import PARTS, write_atomically
from imkd_edge.checks.observe import open_parts
from imkd_edge.detector import Detector
from imkd_edge.errors import Code, Error
from imkd_edge.progress import Bar, Track
from imkd_edge.quantization.ptq import QuantizedPart, SolvedPart
from imkd_edge.quantization.radar_weight import normalised, radar_map
from imkd_edge.quantization.state import Calibration, Training
from imkd_edge.quantization.threads import torch_threads
from imkd_edge.quantization.trainable import TrainablePart
from imkd_edge.sources.timeline import Timeline, infer_with_past
from imkd_edge.spec import ModelSpec

SAVE_EVERY = 25  # steps
STEP_RATE = 10  # quantizers' learning rate over the weights': a quantizer's step may move by some per cent in all
Tensors = dict[str, np.ndarray]  # name -> (frames, *shape), in files


def train_parts(
    calibration: Calibration,
    solved: Mapping[str, SolvedPart],
    training: Training,
    state: Path,
    threads: int = 0,
    bar: Bar | None = None,
) -> dict[str, QuantizedPart]:
    """Both parts in INT8, trained on the calibration frames, or their scales alone; no label is read.

    Args:
        solved: the parts with their initial scales.
        state: file that is written every few steps; training resumes from one of the same model, frames and settings.

    Raises:
        Error: train_diverged.
    """
    saved = _State.open(state, calibration, solved, training)
    with torch_threads(threads):
        trainer = _Trainer(calibration, training, saved, threads, bar)
        parts: dict[str, QuantizedPart] = {}
        for name in PARTS:
            parts[name] = trainer.train(name, solved[name], parts)
        return parts


@dataclass(frozen=True)
class _Trainer:
    """Trains one part after the other."""

    calibration: Calibration
    training: Training
    state: _State
    threads: int
    bar: Bar | None

    def train(self, name: str, solved: SolvedPart, before: Mapping[str, QuantizedPart]) -> QuantizedPart:
        """One part in INT8; before: the parts that are INT8 already."""
        if not solved.amax:
            return solved.quantized()  # no parameter to train

        trainable = TrainablePart(solved.part, solved.groups, solved.amax, solved.method, self.training.weights)
        optimizer = make_optimizer(trainable)
        first = self.state.resume(name, trainable, optimizer)
        if first < self.training.steps:
            with tempfile.TemporaryDirectory(dir=self.state.path.parent) as folder:
                track = self.bar and self.bar(f"frames for {name}")
                data = DistillationData.record(self.calibration, name, before, Path(folder), self.threads, track)
                self._steps(name, first, trainable, data, optimizer)
        trained = trainable.quantized()
        if solved.factors:  # the float part's own ranges are other ones
            return replace(trained, shared=solved.shared(), factors=solved.factors)
        return trained

    def _steps(
        self,
        name: str,
        first: int,
        trainable: TrainablePart,
        data: DistillationData,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """The remaining steps of a part."""
        count = self.training.steps
        steps = list(range(first, count))
        for step in steps if self.bar is None else self.bar(f"train {name}")(steps):
            _advance(trainable, data, optimizer, self.training, self.calibration.bundle.spec, step)
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == count:
                self.state.save(name, step + 1, trainable, optimizer)


@dataclass(frozen=True)
class DistillationData:
    """On every frame: a part's inputs behind the INT8 parts before it, and the float part's outputs of float inputs."""

    inputs: Tensors
    targets: Tensors
    frames: int

    @classmethod
    def record(
        cls,
        calibration: Calibration,
        name: str,
        before: Mapping[str, QuantizedPart],
        folder: Path,
        threads: int,
        track: Track | None,
    ) -> DistillationData:
        """Runs the frames through the float bundle, and through the INT8 parts before this one with the rest float.

        Args:
            name: of the part.
            before: the parts that are INT8 already.
            folder: for the tensors.
        """
        part, spec, names = calibration.parts[name], calibration.bundle.spec, calibration.frames.names
        source, rig = calibration.source, calibration.source[names[0]].rig
        models = {key: (before[key] if key in before else calibration.parts[key]).model for key in PARTS}
        student = {key: model.SerializeToString() for key, model in models.items()}
        teacher = exact_session(part.model, threads)
        timeline = Timeline(source, spec.history, calibration.frames.unusable)

        def files(prefix: str, items: Any) -> Tensors:
            return {
                item.name: _file(folder, f"{prefix}_{i}", len(names), part.shapes[item.name])
                for i, item in enumerate(items)
            }

        inputs, targets = files("in", part.graph.input), files("out", part.graph.output)
        with (
            Detector(calibration.bundle, rig, threads=threads) as a,
            open_parts(spec, rig, student, threads=threads) as b,
        ):
            for i, frame in enumerate(names if track is None else track(names)):
                samples = list(timeline.walk(frame))
                for detector in (a, b) if before else (a,):
                    infer_with_past(detector, samples)
                exact = {key: a.tensors()[key].reshape(file.shape[1:]) for key, file in inputs.items()}
                for key, file in inputs.items():
                    file[i] = b.tensors()[key].reshape(file.shape[1:]) if before else exact[key]
                for (_, file), value in zip(targets.items(), teacher.run(list(targets), exact), strict=True):
                    file[i] = value
        return cls(inputs, targets, len(names))

    def frame(self, index: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Inputs and targets of one frame."""
        inputs = {name: torch.from_numpy(file[index].copy()) for name, file in self.inputs.items()}
        targets = {name: torch.from_numpy(file[index].copy()) for name, file in self.targets.items()}
        return inputs, targets


def _file(folder: Path, name: str, frames: int, shape: list[int]) -> np.ndarray:
    return open_memmap(folder / f"{name}.npy", "w+", np.float32, (frames, *shape))


def order(training: Training, frames: int, step: int) -> list[int]:
    """The frames of a step: a new permutation of all frames each time all were used."""
    draws = range(step * training.batch, (step + 1) * training.batch)
    return [
        int(np.random.default_rng((training.seed, draw // frames)).permutation(frames)[draw % frames]) for draw in draws
    ]


def make_optimizer(trainable: TrainablePart) -> torch.optim.Optimizer:
    """Adam on the weights, and on the steps as a second group; the rates are set at each step."""
    return torch.optim.Adam([{"params": list(trainable.weights.values())}, {"params": list(trainable.steps.values())}])


def _advance(
    trainable: TrainablePart,
    data: DistillationData,
    optimizer: torch.optim.Optimizer,
    training: Training,
    spec: ModelSpec,
    step: int,
) -> None:
    """One step of the optimizer."""
    for group, factor in zip(optimizer.param_groups, (1, STEP_RATE), strict=True):
        group["lr"] = factor * training.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / training.steps)))
    optimizer.zero_grad(set_to_none=True)
    for frame in order(training, data.frames, step):
        inputs, targets = data.frame(frame)
        weight = output_weight(spec, inputs, targets, training.radar)
        terms = distillation(trainable.forward(inputs), targets, weight)
        total = sum(terms.values()) / training.batch
        if not torch.isfinite(total):
            values = {name: value.item() for name, value in terms.items()}
            raise Error(Code.train_diverged, f"the loss is not finite: {values}", f"step {step}", "lower the rate")
        total.backward()
    optimizer.step()


def output_weight(
    spec: ModelSpec, inputs: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor], share: float
) -> torch.Tensor | None:
    """(1,1,H,W) weight of the BEV part's errors, with a share of the radar's map; None: all alike."""
    if not share or "heatmap" not in targets:
        return None
    highest = torch.sigmoid(targets["heatmap"])[0].amax(0).numpy()
    weight = normalised(radar_map(spec, inputs["radar_grid"].numpy()), highest)
    return torch.from_numpy(((1 - share) + share * weight).astype(np.float32))[None, None]


def distillation(
    outputs: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor], weight: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Distance of outputs from the float part's, term by term; 0 where they are equal. weight: of heatmap and box.

    depth (N,D,h,w): divergence of the distribution, mean over pixels. heatmap (1,K,H,W), logits: divergence over the
    sum of probabilities. box (1,C,H,W): L1, weighted by the float part's highest probability. Others: squared error
    over the target's square.
    """
    terms, cells = {}, torch.ones(1) if weight is None else weight
    for name, target in targets.items():
        value = outputs[name]
        if name == "depth":
            terms[name] = F.kl_div(value.clamp(min=1e-8).log(), target, reduction="none").sum(1).mean()
        elif name == "heatmap":
            t = torch.sigmoid(target)
            entropy = F.binary_cross_entropy_with_logits(target, t, cells, reduction="sum")
            divergence = F.binary_cross_entropy_with_logits(value, t, cells, reduction="sum") - entropy
            terms[name] = divergence / t.sum().clamp(min=1)
        elif name == "box":
            highest = torch.sigmoid(targets["heatmap"]).amax(1, keepdim=True)
            terms[name] = (cells * highest * (value - target).abs()).sum() / highest.sum().clamp(min=1)
        else:
            terms[name] = (value - target).square().sum() / target.square().sum().clamp(min=1e-12)
    return terms


def exact_session(model: onnx.ModelProto, threads: int) -> ort.InferenceSession:
    """A CPU session that computes Q/DQ pairs as written, in float; with 0 threads ONNX Runtime chooses the number."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class _State:
    """The file that an interrupted training resumes from.

    Args:
        key: hash of everything that the training depends on.
        parts: name -> step, parameters and optimizer.
    """

    def __init__(self, path: Path, key: str, parts: dict[str, Any]) -> None:
        self.path, self._key, self._parts = path, key, parts

    @classmethod
    def open(cls, path: Path, calibration: Calibration, solved: Mapping[str, SolvedPart], training: Training) -> _State:
        """The content of the file where it is of this training, else nothing."""
        inputs = [
            calibration.collection.key,
            {name: [asdict(part.method), repr(part.groups), part.amax] for name, part in solved.items()},
            asdict(training),
        ]
        key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        try:
            saved = torch.load(path, weights_only=True)
            return cls(path, key, saved["parts"] if saved["key"] == key else {})
        except Exception:  # no file, or damaged bytes, of which unpickling raises anything: start anew
            return cls(path, key, {})

    def resume(self, name: str, trainable: TrainablePart, optimizer: torch.optim.Optimizer) -> int:
        """Restores a part; returns its next step."""
        if name not in self._parts:
            return 0
        trainable.restore(self._parts[name]["learnt"])
        optimizer.load_state_dict(self._parts[name]["optimizer"])
        return int(self._parts[name]["step"])

    def save(self, name: str, step: int, trainable: TrainablePart, optimizer: torch.optim.Optimizer) -> None:
        """Writes the file; step: the part's next one."""
        self._parts[name] = {"step": step, "learnt": trainable.state(), "optimizer": optimizer.state_dict()}
        buffer = io.BytesIO()
        torch.save({"key": self._key, "parts": self._parts}, buffer)
        write_atomically(self.path, buffer.getvalue())
