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

    Args: config: TOML file or the name of a shipped one. data: folder or name of the source, else the config's. seed: of weights and of every
    random draw. resume: go on from out/checkpoint.pt, bit-equal to a run that was never interrupted. epochs, split: override the config's.
    Returns the last line of the log. Raises Error 6xx.
    """
    settings = load_config(config)
    if epochs is not None:
        settings = replace(settings, train=replace(settings.train, epochs=epochs))
    settings = replace(settings, data=replace(settings.data, source=data or settings.data.source, split=split or settings.data.split))
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    student = Student(settings.spec, settings.model).to(memory_format=torch.channels_last)  # a third faster on CPUs
    ema = copy.deepcopy(student).eval().requires_grad_(False)
    optimizer = make_optimizer(student, settings.train)
    state = {"epoch": 0, "seed": seed}
    if resume:
        state = _restore(folder / "checkpoint.pt", settings, seed, student, ema, optimizer)
    dataset = _dataset(settings, seed)
    if settings.model.frozen_backbone and settings.augment.variants and state["epoch"] < settings.train.epochs:
        cache_features(dataset, student.camera.backbone, progress)
    line: dict[str, Any] = {}
    with open(folder / "log.jsonl", "a" if resume else "w") as log:
        for epoch in range(state["epoch"], settings.train.epochs):
            line = _epoch(epoch, settings, seed, dataset, student, ema, optimizer, progress)
            log.write(json.dumps(line) + "\n")
            log.flush()
            save_checkpoint(folder / "checkpoint.pt", settings, seed, epoch + 1, student, ema, optimizer)
    return {"checkpoint": str(folder / "checkpoint.pt"), "epochs": settings.train.epochs, "frames": len(dataset), **line}


def _epoch(epoch, settings, seed, dataset, student, ema, optimizer, progress) -> dict[str, Any]:  # noqa: PLR0913
    started = time.monotonic()
    dataset.epoch = epoch
    order = np.random.default_rng([seed, 0, epoch]).permutation(len(dataset)).tolist()
    usable = len(order) - len(order) % settings.train.batch or len(order)  # a lone last example would upset batch norm
    loader = DataLoader(
        dataset, settings.train.batch, sampler=order[:usable], collate_fn=lambda items: collate(items, settings.spec)
    )
    steps = len(loader)
    batches = progress(loader) if progress else loader
    means = train_one_epoch(
        student, ema, optimizer, batches, settings.train, epoch * steps, settings.train.epochs * steps
    )
    losses = {k: round(v, 5) for k, v in means.items()}
    return {"epoch": epoch + 1, "losses": losses, "seconds": round(time.monotonic() - started, 1)}


def _dataset(settings: Config, seed: int) -> FrameDataset:
    source = open_source(settings.data.source, **settings.data.options)
    splits = getattr(source, "splits", {})
    if settings.data.split not in splits:
        raise Error(Code.train_no_data, f"no split '{settings.data.split}'", settings.data.source, f"it has {sorted(splits)}")
    names = list(splits[settings.data.split])
    if not names:
        raise Error(Code.train_no_data, f"split '{settings.data.split}' is empty", settings.data.source, "choose another split")
    return FrameDataset(source, names, settings, seed)


def commit() -> str:
    """Commit of the code that trains, for the model card; "unknown" outside a repository."""
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return run.stdout.strip() if run.returncode == 0 else "unknown"


def save_checkpoint(path: Path, settings: Config, seed: int, epoch: int, student, ema, optimizer) -> None:
    """Written beside and renamed, so that a kill leaves the old one whole."""
    state = {
        "config": settings.to_dict(), "seed": seed, "epoch": epoch, "commit": commit(),
        "student": student.state_dict(), "ema": ema.state_dict(), "optimizer": optimizer.state_dict(),
    }  # fmt: skip
    beside = path.with_suffix(".tmp")
    torch.save(state, beside)
    os.replace(beside, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The dictionary that save_checkpoint wrote. Raises Error train_checkpoint."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise Error(Code.train_checkpoint, "no checkpoint", str(path), "train first, or name the right folder") from error
    except Exception as error:
        raise Error(Code.train_checkpoint, f"unreadable checkpoint: {error}", str(path), "train anew") from error
    missing = {"config", "seed", "epoch", "student", "ema", "optimizer"} - set(state)
    if missing:
        raise Error(Code.train_checkpoint, f"checkpoint lacks {sorted(missing)}", str(path), "train anew")
    return state


def _restore(path: Path, settings: Config, seed: int, student, ema, optimizer) -> dict[str, Any]:
    state = load_checkpoint(path)
    ours, theirs = settings.to_dict(), state["config"]
    changed = [k for k in ours if ours[k] != theirs.get(k)] + (["seed"] if seed != state["seed"] else [])
    if changed:
        raise Error(Code.train_checkpoint, f"{', '.join(changed)} differ from the checkpoint's", str(path), "resume with the same config and seed")
    student.load_state_dict(state["student"])
    ema.load_state_dict(state["ema"])
    optimizer.load_state_dict(state["optimizer"])
    return state


def load_student(path: Path) -> tuple[Student, Config, dict[str, Any]]:
    """The averaged student of a checkpoint, ready for inference."""
    state = load_checkpoint(path)
    settings = from_dict(state["config"], str(path))
    student = Student(settings.spec, replace(settings.model, pretrained=False))
    student.load_state_dict(state["ema"])
    return student.eval(), settings, state
