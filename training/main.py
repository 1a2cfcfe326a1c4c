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
from imkd_edge.sources.nuscenes import GET_DEVKIT
from imkd_edge.sources.select import open_with
from imkd_edge.training import world
from imkd_edge.training.cache import CachedSource
from imkd_edge.training.config import Config, TrainConfig, from_dict, load_config
from imkd_edge.training.data import FrameDataset, cache_features, collate
from imkd_edge.training.engine import make_optimizer, train_one_epoch
from imkd_edge.training.models.student import Student
from imkd_edge.training.models.teacher import LabelEncoder, Teacher
from imkd_edge.training.stages import LabelStage, Stage, StudentStage, TeacherStage

Progress = Callable[[Iterable], Iterable]


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
    """Trains the student of a config and leaves checkpoint.pt and log.jsonl (one line per epoch) in `out`.

    A config that distils trains the LiDAR teacher first, in out/teacher, and for a label term the label encoder, in out/labels.
    Processes that torchrun started share every batch and do together what one would have done, but for [augment] mix, which joins
    examples of one process; only the first of them writes. (CUDA has not been tried.)

    Args:
        config: TOML file or the name of a shipped one.
        data: folder or name of the source, else the config's.
        out: folder to write to.
        seed: of the weights and of every random draw.
        resume: go on from the checkpoints in out, bit-equal to a run that was never interrupted.
        epochs, split: override the config's.
        teacher: folder of an earlier run whose teacher and label encoder serve again.
        progress: wraps the batches of an epoch, for a progress bar.
        cache: folder for decoded samples and frozen features, instead of memory; any number of runs may share it. Several processes
            share out/cache by default.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".

    Returns:
        The last line of the log, with "checkpoint" and "frames"; {} in all processes but the first.

    Raises:
        Error: train_config, train_checkpoint, train_no_data, train_diverged, device_unavailable; those of the spec and the source.
    """
    settings = load_config(config)
    if epochs is not None:
        settings = replace(settings, train=replace(settings.train, epochs=epochs))
    if teacher is not None and not settings.distill.active:
        raise Error(
            Code.train_config, "a teacher, but [distill] takes nothing from one", str(teacher), "leave --teacher out"
        )
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
    """As train, with the config already read."""
    kept = any((out / stage / "checkpoint.pt").is_file() for stage in (".", "teacher", "labels"))
    if resume and not kept:
        raise Error(
            Code.train_checkpoint, "no checkpoint to resume from", str(out), "train first, or name the right folder"
        )
    if kept and not resume:
        raise Error(
            Code.train_checkpoint,
            "holds a training already",
            str(out),
            "add --resume to go on with it, or name another --out",
        )
    place = world.join(device)
    if cache is None and world.size() > 1 and settings.data.keep:
        cache = out / "cache"
    dataset = open_dataset(settings, seed, cache)
    taught: tuple[Teacher | None, LabelEncoder | None] = (None, None)
    if settings.distill.active:
        labels = settings.distill.label > 0
        if teacher is None:
            teacher = out
            train_teacher(settings, seed, out, resume, dataset, progress, device, labels)
        taught = load_teacher(teacher, settings, labels)
    torch.manual_seed(seed)
    return Run(settings, seed, out, StudentStage(settings, *taught).to(place), dataset).go(resume, progress)


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
    """The LiDAR teacher, then the label encoder through its head where it is wanted: out/teacher, out/labels."""
    place = world.join(device)
    plan = settings.teacher
    own = replace(settings, train=replace(settings.train, epochs=plan.epochs, rate=plan.rate))
    torch.manual_seed(seed)
    Run(own, seed, out / "teacher", TeacherStage(own).to(place), dataset).go(resume, progress)
    if not labels:
        return
    frozen, _ = load_teacher(out, settings, labels=False)
    own = replace(own, train=replace(own.train, epochs=plan.label_epochs))
    torch.manual_seed(seed)
    Run(own, seed, out / "labels", LabelStage(own, frozen).to(place), dataset).go(resume, progress)


def load_teacher(folder: Path, settings: Config, labels: bool = True) -> tuple[Teacher, LabelEncoder | None]:
    """The averaged teacher and label encoder of a run. Raises Error train_checkpoint where they were made for another model."""
    networks = []
    for kind, name in ((Teacher, "teacher"), (LabelEncoder, "labels"))[: 1 + labels]:
        path = folder / name / "checkpoint.pt"
        state = load_checkpoint(path)
        made = from_dict(state["config"], str(path))
        if state["stage"] != name or _taught_by(made) != _taught_by(settings):
            fix = "use the same grid, classes, split and [teacher], or train it anew"
            raise Error(Code.train_checkpoint, f"no {name} of this model", str(path), fix)
        if state["epoch"] < made.train.epochs:
            problem = f"a {name} after {state['epoch']} of {made.train.epochs} epochs"
            raise Error(Code.train_checkpoint, problem, str(path), "finish its training with --resume")
        network = kind(settings.spec, settings.teacher)
        network.load_state_dict(state["ema"])
        networks.append(network.eval())
    return networks[0], networks[1] if labels else None


def _taught_by(settings: Config) -> list[Any]:
    """What a teacher and a label encoder are made for, and of; cameras and the past are the student's alone."""
    spec, teacher, data = json.loads(settings.spec.to_json()), settings.teacher, settings.data
    seen = spec["radar"] if teacher.radar else spec["radar"]["cell"]
    return [spec["grid"], seen, spec["ground_plane"], spec["head"], teacher.channels, data.split, data.classes]


class Run:
    """One stage of a training: the networks, the data, and the folder that they are kept in."""

    def __init__(self, settings: Config, seed: int, folder: Path, stage: Stage, dataset: FrameDataset):
        self.settings, self.seed, self.folder, self.epoch = settings, seed, folder, 0
        self.stage: Stage = world.synchronised(stage.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
        self.dataset, self.commit = dataset, commit()
        self.ema = copy.deepcopy(stage.network).eval().requires_grad_(False)
        self.optimizer = make_optimizer(stage, settings.train)
        self.scaler = torch.amp.GradScaler(stage.device.type, enabled=settings.train.precision == "float16")
        self.model = world.distributed(stage)
        self.batches: list[list[int]] = []  # of this epoch, read by the loader, whose workers outlive epochs

    def go(self, resume: bool, progress: Progress | None) -> dict[str, Any]:
        """Trains what is left and returns the last line of the log; only the first process shows, logs and saves."""
        if resume and (self.folder / "checkpoint.pt").is_file():
            self.restore()
        first, last = world.rank() == 0, self.settings.train.epochs
        progress = progress if first else None
        self.folder.mkdir(parents=True, exist_ok=True)
        line = self.trim_log() if first else {}
        if self.epoch < last:
            loader = self.load(progress)
        with open(self.folder / "log.jsonl" if first else os.devnull, "a") as log:
            while self.epoch < last:
                line = self.one_epoch(loader, progress)
                log.write(json.dumps(line) + "\n")
                log.flush()
                if first:
                    self.save()
        world.wait()  # for the checkpoint
        return {"checkpoint": str(self.folder / "checkpoint.pt"), "frames": len(self.dataset), **line} if first else {}

    def trim_log(self) -> dict[str, Any]:
        """Drops lines of epochs that the checkpoint does not hold, from a kill between the two; returns the last that is left."""
        path = self.folder / "log.jsonl"
        lines = path.read_text().splitlines()[: self.epoch] if path.is_file() else []
        beside = path.with_suffix(".tmp")
        beside.write_text("".join(line + "\n" for line in lines))
        os.replace(beside, path)
        return json.loads(lines[-1]) if lines else {}

    def load(self, progress: Progress | None) -> DataLoader:
        """Reads the data once, in the order that is quick for the source; then what makes batches of it."""
        self.dataset.load(progress)
        self.dataset.sensors, self.dataset.radar = self.stage.sensors, self.stage.radar
        self.dataset.lidar = self.stage.lidar
        if self.stage.sensors and self.settings.model.frozen_backbone and self.settings.augment.variants:
            cache_features(self.dataset, self.stage.network.camera.backbone, progress)
        world.wait()  # for what the others have put into the cache
        if not self.epoch:
            self.stage.prepare(self.dataset)
            self.ema.load_state_dict(self.stage.network.state_dict())
        workers, spec = self.settings.train.workers, self.settings.spec
        return DataLoader(
            self.dataset,
            batch_sampler=self.batches,
            collate_fn=lambda items: collate(items, spec),
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context="fork" if workers else None,  # they inherit samples and features that are in memory
            pin_memory=self.stage.device.type == "cuda",
        )

    def one_epoch(self, loader: DataLoader, progress: Progress | None) -> dict[str, Any]:
        """Trains one epoch and returns its line of the log: "epoch" (how many are done), the mean "losses" and "seconds"."""
        started, config = time.monotonic(), self.settings.train
        self.dataset.epoch = self.epoch
        order = np.random.default_rng([self.seed, 0, self.epoch]).permutation(len(self.dataset)).tolist()
        self.batches[:] = micro_batches(order, config)
        steps = len(self.batches) // config.accumulate
        batches = progress(loader) if progress else loader
        first, total = self.epoch * steps, config.epochs * steps
        means = train_one_epoch(self.model, self.ema, self.optimizer, self.scaler, batches, config, first, total)
        self.epoch += 1
        losses = {k: round(v, 5) for k, v in means.items()}
        return {"epoch": self.epoch, "losses": losses, "seconds": round(time.monotonic() - started, 1)}

    def save(self) -> None:
        """Written beside and renamed, so that a kill leaves the old checkpoint whole."""
        state = {
            "stage": self.stage.name,
            "config": self.settings.to_dict(),
            "seed": self.seed,
            "epoch": self.epoch,
            "commit": self.commit,
            "trained": self.stage.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        beside = self.folder / "checkpoint.tmp"
        torch.save(state, beside)
        os.replace(beside, self.folder / "checkpoint.pt")

    def restore(self) -> None:
        """Goes on where the checkpoint of the folder stands. Raises Error train_checkpoint where that was another run."""
        path = self.folder / "checkpoint.pt"
        state = load_checkpoint(path)
        ours = {**_decisive(self.settings), "seed": self.seed, "stage": self.stage.name}
        theirs = {**_decisive(from_dict(state["config"], str(path))), "seed": state["seed"], "stage": state["stage"]}
        changed = [k for k in ours if ours[k] != theirs.get(k)]
        if changed:
            problem = f"{', '.join(changed)} differ from the checkpoint's"
            raise Error(Code.train_checkpoint, problem, str(path), "resume with the same config and seed")
        self.stage.load_state_dict(state["trained"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state.get("scaler", {}))
        self.epoch = state["epoch"]


def _decisive(settings: Config) -> dict[str, Any]:
    """What a result depends on; the place of the data may have another name."""
    return replace(settings, train=replace(settings.train, workers=0), data=replace(settings.data, source="")).to_dict()


def micro_batches(order: list[int], config: TrainConfig) -> list[list[int]]:
    """This process's share of the micro-batches of an epoch, in the order of a single process.

    Raises: Error train_config where there are more processes and micro-batches than examples.
    """
    usable = len(order) - len(order) % config.batch or len(order)  # a lone last example would upset batch norm
    parts = config.accumulate * world.size()
    if config.batch % parts or usable < parts:
        problem = f"a batch of {min(config.batch, usable)} for {world.size()} processes with {config.accumulate} micro-batches each"
        raise Error(
            Code.train_config,
            problem,
            "[train] batch",
            f"make batch a multiple of {parts}, and no larger than the data",
        )
    batches = [order[i : i + config.batch] for i in range(0, usable, config.batch)]
    return [world.share(part.tolist()) for batch in batches for part in np.array_split(batch, config.accumulate)]


def open_dataset(settings: Config, seed: int, cache: Path | None = None) -> FrameDataset:
    """The frames that a config trains on. Raises Error train_no_data, those of the source."""
    source = open_with(settings.data.source, settings.data.options)
    splits = getattr(source, "splits", {})
    where, split = settings.data.source, settings.data.split
    if not splits.get(split):
        have = ", ".join(sorted(splits)) or "none"
        fix = f"splits here: {have}"
        if source.kind == "nuscenes" and not splits:
            fix += f"; the official ones come with nuscenes-devkit: {GET_DEVKIT}"
        raise Error(Code.train_no_data, f"no split '{split}', or nothing in it", where, fix)
    names = list(splits[split])
    return FrameDataset(CachedSource(source, settings.data, cache) if cache else source, names, settings, seed)


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
        raise Error(
            Code.train_checkpoint, "no checkpoint", str(path), "train first, or name the right folder"
        ) from error
    except Exception as error:  # whatever unpickling damaged bytes can raise
        raise Error(Code.train_checkpoint, f"unreadable checkpoint: {error}", str(path), "train anew") from error
    missing = {"stage", "config", "seed", "epoch", "trained", "ema", "optimizer"} - set(state)
    if missing:
        raise Error(Code.train_checkpoint, f"checkpoint lacks {sorted(missing)}", str(path), "train anew")
    return state


def load_student(path: Path) -> tuple[Student, Config, dict[str, Any]]:
    """The averaged student of a checkpoint, ready for inference; its config; the checkpoint."""
    state = load_checkpoint(path)
    if state["stage"] != "student":
        raise Error(
            Code.train_checkpoint,
            f"this is a {state['stage']}, not a student",
            str(path),
            "name the student's checkpoint",
        )
    settings = from_dict(state["config"], str(path))
    student = Student(settings.spec, replace(settings.model, pretrained=False, weights=""))
    try:
        student.load_state_dict(state["ema"])
    except RuntimeError as error:  # torch names every layer that differs
        problem = f"made by another version of the networks ({state['commit']})"
        raise Error(Code.train_checkpoint, problem, str(path), "train anew, or take that version") from error
    return student.eval(), settings, state
