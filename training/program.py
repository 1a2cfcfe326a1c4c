"""`imkd-edge train`: config -> teacher and label encoder, where the config distils -> student."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w
import torch

from imkd_edge.bundle.files import strict_json, write_atomically
from imkd_edge.errors import Code, Error
from imkd_edge.options import TrainOptions
from imkd_edge.progress import Monitor, Track
from imkd_edge.sources.base import Source
from imkd_edge.sources.folder import is_folder
from imkd_edge.sources.open import is_synth
from imkd_edge.sources.select import open_with, source_name, split_names
from imkd_edge.training import distributed
from imkd_edge.training.cache import CachedSource
from imkd_edge.training.checkpoint import CHECKPOINT, LABELS, STUDENT, TEACHER, load_teacher
from imkd_edge.training.config import Config, from_dict, load_config
from imkd_edge.training.data import FrameDataset
from imkd_edge.training.label import FoundObjects
from imkd_edge.training.run import Run
from imkd_edge.training.sections import DataConfig
from imkd_edge.training.source_weights import SourceWeights, read_source
from imkd_edge.training.stages import LabelStage, StudentStage, TeacherStage
from imkd_edge.training.unlabelled import PREFIX, PartlyLabelled
from imkd_edge.training.validation import Validation

CONFIG, START = "config.toml", "start.json"  # files of a run


def train(
    config: str | Path,
    options: TrainOptions,
    *,
    source: Source | None = None,
    source_options: Mapping[str, Any] | None = None,
    progress: Track | None = None,
    monitor: Monitor | None = None,
) -> dict[str, Any]:
    """Trains the student of a config and writes checkpoint.pt and log.jsonl (one line per epoch) to options.out.

    A config that distils trains the LiDAR teacher first, in OUT/teacher, and for a label term the label encoder, in
    OUT/labels. Processes that torchrun starts share every batch. Their result equals that of one process, except for
    [augment] mix, which joins examples of one process. Only the first process writes. (CUDA is untested.)

    OUT also gets config.toml, the config with every option applied; start.json, what a start took from other weights;
    TensorBoard's events/; and where [train] val_split names a split, validation/ with pictures, and best.pt.

    Args:
        config: TOML file or the name of a shipped one.
        options: `resume` continues from the checkpoints in `out`, bit-equal to an uninterrupted run of as many epochs;
            `cache` replaces memory, and several processes share OUT/cache by default.
        source: what to train on, instead of the source that the options or the config name.
        source_options: of the source's reader, over those of the config.
        progress: wraps the frames that are read before the first epoch, for a progress bar.
        monitor: is told about every batch and epoch.

    Returns:
        The last line of the log, with "checkpoint" and "frames"; {} in all processes but the first.

    Raises:
        Error: train_config, train_checkpoint, train_no_data, train_diverged, device_unavailable; those of the spec and
            the source.
    """
    settings = load_config(config, options.changes)
    if options.epochs is not None:
        settings = replace(settings, train=replace(settings.train, epochs=options.epochs))
    if options.teacher is not None and not settings.distill.active:
        problem, fix = "a teacher for a config whose [distill] uses none", "leave --teacher out, or set [distill]"
        raise Error(Code.train_config, problem, str(options.teacher), fix)
    name = options.data or settings.data.source if source is None else source_name(source)
    reader_options = {} if source else {**_reader_options(settings.data, name), **(source_options or {})}
    data = replace(settings.data, source=name, split=options.split or settings.data.split, options=reader_options)
    data = replace(data, limit=options.limit or data.limit, unlabelled=options.unlabelled or data.unlabelled)
    distributed.use_threads(options.threads)
    settings = replace(settings, data=data)
    settings = from_dict(settings.to_dict(), str(config)) if options.unlabelled else settings  # it must have a term
    return train_stages(settings, options, source=source, progress=progress, monitor=monitor)


def _reader_options(data: DataConfig, name: str) -> dict[str, Any]:
    """The config's options of its source's reader; {}, with a warning, where another reader opens `name`."""
    same_kind = is_synth(data.source) == is_synth(name) and (name == data.source or not is_folder(Path(name)))
    if same_kind or not data.options:
        return data.options
    ignored = ", ".join(data.options)
    warnings.warn(f"[data.options] are for {data.source}, not for {name}: {ignored} left out", stacklevel=3)
    return {}


def train_stages(
    settings: Config,
    options: TrainOptions,
    *,
    source: Source | None = None,
    progress: Track | None = None,
    monitor: Monitor | None = None,
) -> dict[str, Any]:
    """Trains every stage of a config that already holds the options' data, split and epochs; see `train`."""
    _check_folder(options.out, options.resume)
    if options.teacher is not None:
        _check_teacher(options.teacher)
    weights = read_source(options.start) if options.start else None
    device = distributed.join(options.device)
    cache = options.cache
    if cache is None and distributed.size() > 1 and settings.data.keep:
        cache = options.out / "cache"
    dataset = open_dataset(settings, options.seed, cache, source)
    watch = Watch(monitor, source)
    validation = watch.validation(settings, STUDENT, options.out, dataset)  # its mistakes show before any training

    # The frozen networks that the student learns from, trained here or in an earlier run.
    networks: tuple = (None, None)
    if settings.distill.active:
        labels = settings.distill.label > 0
        if options.teacher is None:
            train_teacher(settings, options, dataset, labels=labels, progress=progress, watch=watch)
        networks = load_teacher(options.teacher or options.out, settings, labels)

    if settings.data.has_unlabelled:
        dataset = with_unlabelled(dataset, cache, (options.teacher or options.out) / TEACHER / CHECKPOINT)
    torch.manual_seed(options.seed)
    stage = StudentStage(settings, *networks).to(device)
    origin = {"name": weights.name, "licence": weights.licence} if weights else None
    run = Run(
        settings, options.seed, options.out, stage, dataset, validation=validation, origin=origin, monitor=monitor
    )
    if weights is not None and not run.checkpoint.is_file():
        _start(stage, weights, options.out, monitor)
    if distributed.rank() == 0:
        write_atomically(options.out / CONFIG, tomli_w.dumps(settings.to_dict()).encode())
    return run.train(options.resume, progress)


def _start(stage: StudentStage, weights: SourceWeights, out: Path, monitor: Monitor | None) -> None:
    """Takes the weights that fit, and says in the log and in OUT/start.json which."""
    result = stage.start(weights)
    if distributed.rank() == 0:
        write_atomically(out / START, (strict_json(result.to_dict(), indent=1) + "\n").encode())
        for line in result.lines() if monitor else []:
            monitor.log(line)  # type: ignore[union-attr]


@dataclass(frozen=True)
class Watch:
    """How the stages of a run are shown and validated."""

    monitor: Monitor | None = None
    source: Source | None = None  # instead of the config's

    def validation(self, settings: Config, stage: str, folder: Path, dataset: FrameDataset) -> Validation | None:
        """The validation of a stage; None without a split to validate on, and in all processes but the first."""
        if distributed.rank() or not settings.train.val_split or stage == LABELS:
            return None
        return Validation(settings, stage, folder, dataset.names, self.source)


def _check_folder(out: Path, resume: bool) -> None:
    """Raises Error train_checkpoint where a new run would overwrite one, or where there is none to resume.

    Raises Error write_failed for a file.
    """
    if out.exists() and not out.is_dir():
        raise Error(Code.write_failed, "it is a file, and a run is a folder", str(out), "name a new folder")
    present = any((out / stage / CHECKPOINT).is_file() for stage in (".", TEACHER, LABELS))
    if resume and not present:
        fix = "train first, or name the folder of the run"
        raise Error(Code.train_checkpoint, "no checkpoint to resume from", str(out), fix)
    if present and not resume:
        fix = "add --resume to continue it, or name another --out"
        raise Error(Code.train_checkpoint, "the folder already holds a run", str(out), fix)


def _check_teacher(run: Path) -> None:
    """Raises Error train_checkpoint where no teacher was trained in a folder."""
    if not (run / TEACHER / CHECKPOINT).is_file():
        fix = f"name the folder (--out) of a run that trained one: it holds {TEACHER}/{CHECKPOINT}"
        raise Error(Code.train_checkpoint, "there is no run with a teacher", str(run), fix)


def train_teacher(
    settings: Config,
    options: TrainOptions,
    dataset: FrameDataset,
    *,
    labels: bool = True,
    progress: Track | None = None,
    watch: Watch = Watch(),
) -> None:
    """Trains the LiDAR teacher in OUT/teacher and, with `labels`, the label encoder in OUT/labels."""
    device = distributed.join(options.device)
    config = settings.teacher
    settings = replace(settings, train=replace(settings.train, epochs=config.epochs, rate=config.rate))
    torch.manual_seed(options.seed)
    teacher = TeacherStage(settings).to(device)
    folder = options.out / TEACHER
    validation = watch.validation(settings, TEACHER, folder, dataset)
    run = Run(settings, options.seed, folder, teacher, dataset, validation=validation, monitor=watch.monitor)
    run.train(options.resume, progress)
    if not labels:
        return

    frozen, _ = load_teacher(options.out, settings, labels=False)
    settings = replace(settings, train=replace(settings.train, epochs=config.label_epochs))
    torch.manual_seed(options.seed)
    encoder = LabelStage(settings, frozen).to(device)
    run = Run(settings, options.seed, options.out / LABELS, encoder, dataset, monitor=watch.monitor)
    run.train(options.resume, progress)


def open_dataset(settings: Config, seed: int, cache: Path | None = None, source: Source | None = None) -> FrameDataset:
    """Opens the frames that a config trains on, of `source` or of the source that it names.

    Raises: Error train_no_data, those of the source; train_config for a cache of a source without files.
    """
    if source is not None and cache is not None and not hasattr(source, "path"):
        what, fix = "a cache is found again by the files of a source, and this one has no path", "leave out the cache"
        raise Error(Code.train_config, what, settings.data.source, fix)
    if source is None:
        source = open_with(settings.data.source, settings.data.options)
    names = split_names(source, settings.data.split, settings.data.source, Code.train_no_data)
    names = labelled_frames(source, names, settings.data.source)
    names = names[: settings.data.limit or None]
    return FrameDataset(CachedSource(source, settings.data, cache) if cache else source, names, settings, seed)


def with_unlabelled(dataset: FrameDataset, cache: Path | None = None, teacher: Path | None = None) -> FrameDataset:
    """The data set, and in every epoch the frames of [data] unlabelled too.

    `teacher` is the checkpoint that finds their objects, for unlabelled_truth = "teacher".

    Raises: Error train_no_data, those of the source.
    """
    settings, data = dataset.config, dataset.config.data
    where, other = data.unlabelled or data.source, dataset.source
    if data.unlabelled:
        other = open_with(where, _reader_options(data, where))
    elif isinstance(other, CachedSource):
        other = other.source
    names = split_names(other, data.unlabelled_split, where, Code.train_no_data)
    if cache:
        other = CachedSource(other, replace(data, source=where), cache)
    if data.unlabelled_truth == "teacher":
        assert teacher is not None
        other = FoundObjects(other, teacher, data.unlabelled_score, data.classes)
    joined = PartlyLabelled(dataset.source, other, names, truth=data.unlabelled_truth != "none")
    result = FrameDataset(joined, [*dataset.names, *(PREFIX + name for name in names)], settings, dataset.seed)
    result.memory = dataset.memory
    return result


def labelled_frames(source: Source, names: list[str], where: str) -> list[str]:
    """The frames that have labels, as far as the source knows without reading them; a warning counts the others.

    Raises: Error train_no_data where none has labels.
    """
    labelled = getattr(source, "labelled", None)
    result = [name for name in names if labelled(name)] if labelled else names
    if not result:
        fix = "train on a split whose frames have labels"
        raise Error(Code.train_no_data, f"{len(names)} frames, all without labels", where, fix)
    if len(result) < len(names):
        skipped = [name for name in names if name not in set(result)]
        first = ", ".join(skipped[:3])
        message = f"{where}: training leaves out {len(skipped)} of {len(names)} frames, which have no labels: {first}"
        warnings.warn(message + (", ..." if len(skipped) > 3 else ""), stacklevel=2)
    return result
