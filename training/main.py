"""The program around the epochs: data, checkpoints, resume, log."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from imkd_edge.errors import Code, Error
from imkd_edge.sources import open_source
from imkd_edge.training.config import Config, from_dict, load_config
from imkd_edge.training.data import FrameDataset, cache_features, collate
from imkd_edge.training.engine import make_optimizer, train_one_epoch
from imkd_edge.training.models.student import Student

Progress = Callable[[Iterable], Iterable]


def train(
    config: str | Path,
    data: str | None = None,
    out: Path | str = "runs/train",
    seed: int = 0,
    resume: bool = False,
    epochs: int | None = None,
    split: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Trains the student of a config and leaves checkpoint.pt and log.jsonl (one line per epoch) in `out`.

    Args:
        config: TOML file or the name of a shipped one.
        data: folder or name of the source, else the config's.
        out: folder to write to.
        seed: of the weights and of every random draw.
        resume: go on from out/checkpoint.pt, bit-equal to a run that was never interrupted.
        epochs, split: override the config's.
        progress: wraps the batches of an epoch, for a progress bar.

    Returns:
        The last line of the log, with "checkpoint" and "frames".

    Raises:
        Error: train_config, train_checkpoint, train_no_data, train_diverged; those of the spec and the source.
    """
    settings = load_config(config)
    if epochs is not None:
        settings = replace(settings, train=replace(settings.train, epochs=epochs))
    source, split = data or settings.data.source, split or settings.data.split
    settings = replace(settings, data=replace(settings.data, source=source, split=split))
    run = Run(settings, seed, Path(out))
    if resume:
        run.restore()
    return run.epochs(progress)


class Run:
    """One training run: the networks, the data, and the folder that they are kept in."""

    def __init__(self, settings: Config, seed: int, folder: Path):
        self.settings, self.seed, self.folder, self.epoch = settings, seed, folder, 0
        self.dataset = _dataset(settings, seed)
        torch.manual_seed(seed)
        self.student = Student(settings.spec, settings.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.optimizer = make_optimizer(self.student, settings.train)

    def epochs(self, progress: Progress | None) -> dict[str, Any]:
        self.folder.mkdir(parents=True, exist_ok=True)
        last = self.settings.train.epochs
        if self.epoch < last:
            self.dataset.load(progress)
        if self.settings.model.frozen_backbone and self.settings.augment.variants and self.epoch < last:
            cache_features(self.dataset, self.student.camera.backbone, progress)
        line: dict[str, Any] = {}
        with open(self.folder / "log.jsonl", "a" if self.epoch else "w") as log:
            while self.epoch < last:
                line = self.one_epoch(progress)
                log.write(json.dumps(line) + "\n")
                log.flush()
                self.save()
        return {"checkpoint": str(self.folder / "checkpoint.pt"), "frames": len(self.dataset), **line}

    def one_epoch(self, progress: Progress | None) -> dict[str, Any]:
        started, config = time.monotonic(), self.settings.train
        self.dataset.epoch = self.epoch
        order = np.random.default_rng([self.seed, 0, self.epoch]).permutation(len(self.dataset)).tolist()
        usable = len(order) - len(order) % config.batch or len(order)  # a lone last example would upset batch norm
        loader = DataLoader(self.dataset, config.batch, sampler=order[:usable], collate_fn=lambda items: collate(items, self.settings.spec))
        steps = len(loader)
        batches = progress(loader) if progress else loader
        first, total = self.epoch * steps, config.epochs * steps
        means = train_one_epoch(self.student, self.ema, self.optimizer, batches, config, first, total)
        self.epoch += 1
        losses = {k: round(v, 5) for k, v in means.items()}
        return {"epoch": self.epoch, "losses": losses, "seconds": round(time.monotonic() - started, 1)}

    def save(self) -> None:
        """Written beside and renamed, so that a kill leaves the old checkpoint whole."""
        state = {
            "config": self.settings.to_dict(),
            "seed": self.seed,
            "epoch": self.epoch,
            "commit": commit(),
            "student": self.student.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        beside = self.folder / "checkpoint.tmp"
        torch.save(state, beside)
        os.replace(beside, self.folder / "checkpoint.pt")

    def restore(self) -> None:
        """Goes on where the checkpoint of the folder stands. Raises Error train_checkpoint where that was another run."""
        path = self.folder / "checkpoint.pt"
        state = load_checkpoint(path)
        ours = self.settings.to_dict()
        changed = [k for k in ours if ours[k] != state["config"].get(k)] + ["seed"] * (self.seed != state["seed"])
        if changed:
            problem = f"{', '.join(changed)} differ from the checkpoint's"
            raise Error(Code.train_checkpoint, problem, str(path), "resume with the same config and seed")
        self.student.load_state_dict(state["student"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch = state["epoch"]


def _dataset(settings: Config, seed: int) -> FrameDataset:
    source = open_source(settings.data.source, **settings.data.options)
    splits = getattr(source, "splits", {})
    where, split = settings.data.source, settings.data.split
    if not splits.get(split):
        have = ", ".join(sorted(splits)) or "none"
        raise Error(Code.train_no_data, f"no split '{split}', or nothing in it", where, f"splits here: {have}")
    return FrameDataset(source, list(splits[split]), settings, seed)


def commit() -> str:
    """Commit of the code that trains, for the model card; "unknown" outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        run = subprocess.run(command, cwd=Path(__file__).resolve().parent, capture_output=True, text=True)
    except OSError:  # no git
        return "unknown"
    return run.stdout.strip() if run.returncode == 0 else "unknown"


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The dictionary that Run.save wrote. Raises Error train_checkpoint."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise Error(Code.train_checkpoint, "no checkpoint", str(path), "train first, or name the right folder") from error
    except Exception as error:  # whatever unpickling damaged bytes can raise
        raise Error(Code.train_checkpoint, f"unreadable checkpoint: {error}", str(path), "train anew") from error
    missing = {"config", "seed", "epoch", "student", "ema", "optimizer"} - set(state)
    if missing:
        raise Error(Code.train_checkpoint, f"checkpoint lacks {sorted(missing)}", str(path), "train anew")
    return state


def load_student(path: Path) -> tuple[Student, Config, dict[str, Any]]:
    """The averaged student of a checkpoint, ready for inference; its config; the checkpoint."""
    state = load_checkpoint(path)
    settings = from_dict(state["config"], str(path))
    student = Student(settings.spec, replace(settings.model, pretrained=False))
    student.load_state_dict(state["ema"])
    return student.eval(), settings, state
