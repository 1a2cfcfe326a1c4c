"""`imkd-edge train`: config -> teacher and label encoder, where the config distils -> student."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from imkd_edge.errors import Code, Error
from imkd_edge.sources.nuscenes import GET_DEVKIT
from imkd_edge.sources.select import open_with
from imkd_edge.training import distributed
from imkd_edge.training.cache import CachedSource
from imkd_edge.training.checkpoint import CHECKPOINT, LABELS, TEACHER, load_teacher
from imkd_edge.training.config import Config, load_config
from imkd_edge.training.data import FrameDataset
from imkd_edge.training.run import Progress, Run
from imkd_edge.training.stages import LabelStage, StudentStage, TeacherStage


def train(
    config: str | Path,
    data: str | None = None,
    out: Path | str = "runs/train",
    seed: int = 0,
    resume: bool = False,
    epochs: int | None = None,
    split: str | None = None,
    teacher: Path | str | None = None,
    progress: Progress | None = None,
    cache: Path | str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Trains the student of a config and writes checkpoint.pt and log.jsonl (one line per epoch) to `out`.

    A config that distils trains the LiDAR teacher first, in out/teacher, and for a label term the label encoder, in
    out/labels. Processes that torchrun starts share every batch. Their result equals that of one process, except for
    [augment] mix, which joins examples of one process. Only the first process writes. (CUDA is untested.)

    Args:
        config: TOML file or the name of a shipped one.
        data: folder or name of the source, else the config's.
        out: folder to write to.
        seed: of the weights and of every random draw.
        resume: continue from the checkpoints in out; the result is bit-equal to that of an uninterrupted run.
        epochs, split: override the config's.
        teacher: folder of an earlier run whose teacher and label encoder are used again.
        progress: wraps the batches of an epoch, for a progress bar.
        cache: folder for decoded samples and frozen features, instead of memory; any number of runs may share it.
            Several processes share out/cache by default.
        device: "auto" (CUDA where available), "cpu" or "cuda".

    Returns:
        The last line of the log, with "checkpoint" and "frames"; {} in all processes but the first.

    Raises:
        Error: train_config, train_checkpoint, train_no_data, train_diverged, device_unavailable; those of the spec and
            the source.
    """
    settings = load_config(config)
    if epochs is not None:
        settings = replace(settings, train=replace(settings.train, epochs=epochs))
    if teacher is not None and not settings.distill.active:
        problem = "a teacher for a config whose [distill] uses none"
        raise Error(Code.train_config, problem, str(teacher), "leave --teacher out, or set [distill]")
    source, split = data or settings.data.source, split or settings.data.split
    settings = replace(settings, data=replace(settings.data, source=source, split=split))
    return train_stages(
        settings,
        seed,
        Path(out),
        resume,
        Path(teacher) if teacher else None,
        progress,
        Path(cache) if cache else None,
        device,
    )


def train_stages(
    settings: Config,
    seed: int,
    out: Path,
    resume: bool = False,
    teacher: Path | None = None,
    progress: Progress | None = None,
    cache: Path | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Trains every stage of a loaded config; see `train`."""
    _check_folder(out, resume)
    target = distributed.join(device)
    if cache is None and distributed.size() > 1 and settings.data.keep:
        cache = out / "cache"
    dataset = open_dataset(settings, seed, cache)

    networks: tuple = (None, None)
    if settings.distill.active:
        labels = settings.distill.label > 0
        if teacher is None:
            teacher = out
            train_teacher(settings, seed, out, resume, dataset, progress, device, labels)
        networks = load_teacher(teacher, settings, labels)

    torch.manual_seed(seed)
    return Run(settings, seed, out, StudentStage(settings, *networks).to(target), dataset).train(resume, progress)


def _check_folder(out: Path, resume: bool) -> None:
    """Raises Error train_checkpoint where a new run would overwrite one, or where there is none to resume."""
    present = any((out / stage / CHECKPOINT).is_file() for stage in (".", TEACHER, LABELS))
    if resume and not present:
        fix = "train first, or name the folder of the run"
        raise Error(Code.train_checkpoint, "no checkpoint to resume from", str(out), fix)
    if present and not resume:
        fix = "add --resume to continue it, or name another --out"
        raise Error(Code.train_checkpoint, "the folder already holds a run", str(out), fix)


def train_teacher(
    settings: Config,
    seed: int,
    out: Path,
    resume: bool,
    dataset: FrameDataset,
    progress: Progress | None = None,
    device: str = "auto",
    labels: bool = True,
) -> None:
    """Trains the LiDAR teacher in out/teacher and then, with `labels`, the label encoder through its head in out/labels."""
    target = distributed.join(device)
    config = settings.teacher
    stage_settings = replace(settings, train=replace(settings.train, epochs=config.epochs, rate=config.rate))
    torch.manual_seed(seed)
    stage = TeacherStage(stage_settings).to(target)
    Run(stage_settings, seed, out / TEACHER, stage, dataset).train(resume, progress)
    if not labels:
        return

    frozen, _ = load_teacher(out, settings, labels=False)
    stage_settings = replace(stage_settings, train=replace(stage_settings.train, epochs=config.label_epochs))
    torch.manual_seed(seed)
    label_stage = LabelStage(stage_settings, frozen).to(target)
    Run(stage_settings, seed, out / LABELS, label_stage, dataset).train(resume, progress)


def open_dataset(settings: Config, seed: int, cache: Path | None = None) -> FrameDataset:
    """Opens the frames that a config trains on. Raises Error train_no_data, those of the source."""
    source = open_with(settings.data.source, settings.data.options)
    splits, split = getattr(source, "splits", {}), settings.data.split
    if not splits.get(split):
        fix = f"splits of this source: {', '.join(sorted(splits)) or 'none'}"
        if source.kind == "nuscenes" and not splits:
            fix += f"; the official ones come with nuscenes-devkit: {GET_DEVKIT}"
        raise Error(Code.train_no_data, f"the split '{split}' is missing or empty", settings.data.source, fix)
    names = list(splits[split])
    return FrameDataset(CachedSource(source, settings.data, cache) if cache else source, names, settings, seed)
