"""One run: a stage, its folder, its log, and the loop over epochs."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from imkd_edge.bundle.files import strict_json
from imkd_edge.errors import Code, Error
from imkd_edge.options import BEST
from imkd_edge.progress import Monitor, Silent, Track, clock
from imkd_edge.training import distributed
from imkd_edge.training.cache import cache_features
from imkd_edge.training.checkpoint import CHECKPOINT, LOG, STUDENT, code_version, load_checkpoint, save_checkpoint
from imkd_edge.training.config import Config, from_dict
from imkd_edge.training.data import ORDER, FrameDataset, collate, measure_contract
from imkd_edge.training.engine import make_optimizer, train_one_epoch
from imkd_edge.training.events import Events
from imkd_edge.training.pace import Pace
from imkd_edge.training.sampling import class_shares, epoch_order, with_labelled_share
from imkd_edge.training.sections import TrainConfig
from imkd_edge.training.stages import Stage
from imkd_edge.training.unlabelled import is_labelled
from imkd_edge.training.validation import Best, Validation


class Run:
    """Trains one stage on one data set and stores checkpoint and log in a folder."""

    def __init__(
        self,
        settings: Config,
        seed: int,
        folder: Path,
        stage: Stage,
        dataset: FrameDataset,
        *,
        validation: Validation | None = None,
        origin: dict[str, str] | None = None,
        monitor: Monitor | None = None,
    ):
        """Prepares a run.

        Args:
            settings, seed: all that its result depends on, with the data.
            folder: of the stage.
            stage: the network to train, with its loss.
            dataset: the frames.
            validation: measures the network every few epochs; in the first process only.
            origin: name and licence of the weights that the stage starts from.
            monitor: shows the run.
        """
        self.settings, self.seed, self.folder, self.epoch = settings, seed, folder, 0
        self.validation, self.monitor, self.best = validation, monitor or Silent(), Best()
        self.origin = origin or {}
        stage = stage.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.stage: Stage = distributed.sync_batch_norms(stage)  # type: ignore[assignment]
        self.dataset, self.commit = dataset, code_version()
        self.ema = copy.deepcopy(stage.network).eval().requires_grad_(False)
        self.optimizer = make_optimizer(stage, settings.train)
        self.scaler = torch.amp.GradScaler(stage.device.type, enabled=settings.train.precision == "float16")
        self.model = distributed.wrap(stage)
        self.contract: str | None = None  # JSON of what a student is trained on
        self.shares: np.ndarray | None = None  # of the frames in an epoch; None: each once
        self.batches: list[list[int]] = []  # of the current epoch; the loader, whose workers persist, reads this list

    @property
    def checkpoint(self) -> Path:
        """File of the checkpoint."""
        return self.folder / CHECKPOINT

    def train(self, resume: bool, progress: Track | None) -> dict[str, Any]:
        """Trains the remaining epochs and returns the last line of the log; only the first process logs and saves."""
        if resume and self.checkpoint.is_file():
            self.restore()
        first, epochs = distributed.rank() == 0, self.settings.train.epochs
        progress = progress if first else None
        self.folder.mkdir(parents=True, exist_ok=True)
        line = self.trim_log() if first else {}
        if self.epoch < epochs and not self.exhausted:
            line = self.train_epochs(self.make_loader(progress))
        distributed.barrier()  # every process may read the checkpoint afterwards
        return {"checkpoint": str(self.checkpoint), "frames": len(self.dataset), **line} if first else {}

    def train_epochs(self, loader: DataLoader) -> dict[str, Any]:
        """Trains, validates, logs and saves epoch by epoch; returns the last line of the log."""
        first, train = distributed.rank() == 0, self.settings.train
        line: dict[str, Any] = {}
        batches = len(micro_batches(list(range(len(self.dataset))), train))
        pace = Pace(self.stage.name, train.epochs, self.epoch, batches, train.batch / train.accumulate)
        events = Events(self.folder, self.epoch + 1, first and train.tensorboard)
        with open(self.folder / LOG if first else os.devnull, "a") as log:
            while self.epoch < train.epochs and not line.get("stopped"):
                line = self.train_epoch(loader, pace)
                if self.validation is not None and self.validation.due(self.epoch):
                    line |= self.validate(self.validation)
                log.write(strict_json(line) + "\n")
                log.flush()
                events.write(line)
                if first:
                    self.save()
                    self.monitor.log(self.summary(line, pace.left(self.epoch, 0)))
                line = distributed.from_first(line)
        events.close()
        return line

    def validate(self, validation: Validation) -> dict[str, Any]:
        """Validates the averaged network, writes best.pt where it is the best one, and returns what the log line says.

        "best" is whether it is; "stopped" whether [train] patience ends the run.
        """
        result = validation.run(self.state())
        line: dict[str, Any] = {"validation": result}
        name = validation.main_metric(result["metrics"])
        if not name:
            return line
        line["best"] = self.best.update(name, result["metrics"][name], self.epoch)
        if line["best"]:
            save_checkpoint(self.state(), self.folder / BEST)
        return line | {"stopped": True} if self.exhausted else line

    @property
    def exhausted(self) -> bool:
        """Whether [train] patience ends the run; more patience continues it."""
        return 0 < self.settings.train.patience <= self.best.since

    def summary(self, line: dict[str, Any], left: float) -> str:
        """A line of the log in words, with the seconds that are left."""
        losses, rate = line["losses"], line["frames_per_second"]
        text = f"{self.stage.name} epoch {self.epoch}/{self.settings.train.epochs}: loss {losses['total']:.4g}, "
        text += f"{rate:.1f} frames/s, {clock(line['seconds'])}, {clock(left)} left"
        if "validation" in line:
            result = line["validation"]
            name = self.best.metric
            value = f"{name} {result['metrics'][name]:.4g}" if name else "no metric that chooses best.pt"
            text += f"; {value} on {result['frames']} frames of '{result['split']}'"
            text += f", the best: {BEST}" if line.get("best") else ""
        if line.get("stopped"):
            text += f"; stops, as {self.best.since} validations are no better than that of epoch {self.best.epoch}"
        return text

    def trim_log(self) -> dict[str, Any]:
        """Discards lines of epochs that the checkpoint lacks, after a kill between both; returns the last line."""
        path = self.folder / LOG
        lines = path.read_text().splitlines()[: self.epoch] if path.is_file() else []
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(line + "\n" for line in lines))
        os.replace(temporary, path)
        return json.loads(lines[-1]) if lines else {}

    def make_loader(self, progress: Track | None) -> DataLoader:
        """Reads the data once, in the source's order, prepares a new stage and returns the loader of batches."""
        # Samples, then the features of a frozen backbone, go to memory or to the cache.
        self.dataset.load(progress)
        self.shares = self._shares()
        if self.contract is None and self.stage.name == STUDENT and distributed.rank() == 0:
            self.contract = measure_contract(self.dataset).to_json()
        self.dataset.sensors, self.dataset.radar = self.stage.sensors, self.stage.radar
        self.dataset.lidar = self.stage.lidar
        if self.stage.sensors and self.settings.model.frozen_backbone and self.settings.augment.variants:
            cache_features(self.dataset, self.stage.network.camera.backbone, progress)
        distributed.barrier()  # the other processes fill the cache too

        # A new run starts its average from the prepared weights.
        if not self.epoch:
            self.stage.prepare(self.dataset)
            self.ema.load_state_dict(self.stage.network.state_dict())

        workers, spec = self.settings.train.workers, self.settings.spec
        return DataLoader(
            self.dataset,
            batch_sampler=self.batches,
            collate_fn=lambda examples: collate(examples, spec),
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context="fork" if workers else None,  # workers inherit the samples and features in memory
            pin_memory=self.stage.device.type == "cuda",
        )

    def train_epoch(self, loader: DataLoader, pace: Pace) -> dict[str, Any]:
        """Trains one epoch and returns its log line: "epoch" (number of finished ones), mean "losses", and the pace."""
        config, epoch = self.settings.train, self.epoch
        self.dataset.epoch = epoch
        order = epoch_order(len(self.dataset), np.random.default_rng([self.seed, ORDER, epoch]), self.shares)
        self.batches[:] = micro_batches(order, config)
        steps = len(self.batches) // config.accumulate
        pace.begin_epoch()
        means = train_one_epoch(
            self.model, self.ema, self.optimizer, self.scaler, pace.timed(loader), config,
            first_step=epoch * steps,
            steps=config.epochs * steps,
            report=lambda batch, loss: self.monitor.step(pace.step(epoch, batch, loss)),
        )  # fmt: skip
        self.epoch += 1
        losses = {k: round(v, 5) for k, v in means.items()}
        return {"epoch": self.epoch, "losses": losses, **pace.line(len(self.batches))}

    def _shares(self) -> np.ndarray | None:
        """Of each frame in an epoch, as [data] says; None: each once."""
        data, count = self.settings.data, len(self.dataset)
        shares = class_shares(self.dataset.class_names()) if data.balance else None
        labelled = np.array([is_labelled(name) for name in self.dataset.names])
        if not data.labelled_share or labelled.all():  # a teacher's stage has labelled frames alone
            return shares
        even = np.full(count, 1 / count)
        return with_labelled_share(even if shares is None else shares, labelled, data.labelled_share)

    def save(self) -> None:
        """Writes the checkpoint of the folder."""
        save_checkpoint(self.state(), self.checkpoint)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "stage": self.stage.name,
            "config": self.settings.to_dict(),
            "seed": self.seed,
            "epoch": self.epoch,
            "commit": self.commit,
            "trained": self.stage.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "contract": self.contract,
            "best": asdict(self.best),
            "finished": self.exhausted or self.epoch >= self.settings.train.epochs,
            "from": self.origin,
        }

    def check_prolonged(self, state: dict[str, Any]) -> None:
        """Raises Error train_checkpoint for fewer epochs than are trained, or for weights of another origin."""
        epochs, trained = self.settings.train.epochs, state["epoch"]
        planned = state["config"]["train"]["epochs"]
        if epochs < trained:
            problem = f"{epochs} epochs, and {trained} are trained"
            raise Error(Code.train_checkpoint, problem, str(self.checkpoint), f"choose --epochs above {trained}")
        if epochs != planned and distributed.rank() == 0:
            what = f"{trained} of {planned} epochs are trained, {epochs} are wanted"
            self.monitor.log(f"{what}: the learning rate goes on as in a run of {epochs} epochs")
        stored = state.get("from", {}).get("name", "")
        if self.origin and self.origin["name"] != stored:
            problem = f"--from {self.origin['name']}, and the run started from {stored or 'initial weights'}"
            raise Error(Code.train_checkpoint, problem, str(self.checkpoint), "leave --from out, or name another --out")

    def restore(self) -> None:
        """Loads the checkpoint of the folder. Raises Error train_checkpoint where it belongs to another run."""
        state = load_checkpoint(self.checkpoint)
        expected = {**_run_identity(self.settings), "seed": self.seed, "stage": self.stage.name}
        stored = _run_identity(from_dict(state["config"], str(self.checkpoint)))
        stored |= {"seed": state["seed"], "stage": state["stage"]}
        changed = list(_differences(expected, stored))
        if changed:
            problem = "; ".join(changed[:4]) + (f"; {len(changed) - 4} more" if len(changed) > 4 else "")
            fix = "resume with the same config and seed, or name another --out"
            raise Error(Code.train_checkpoint, problem, str(self.checkpoint), fix)
        self.check_prolonged(state)
        self.contract, self.origin = state.get("contract"), state.get("from", {})
        self.best = Best(**state.get("best", {}))
        self.stage.load_state_dict(state["trained"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state.get("scaler", {}))
        self.epoch = state["epoch"]


# Keys of [train] that change how long a run is and what is said about it, but no step of it.
FREE = ("workers", "tensorboard", "patience", "val_split", "val_every", "val_limit", "val_metric", "val_pictures")


def _run_identity(settings: Config) -> dict[str, Any]:
    """Everything that a result depends on: neither the number of epochs, nor validation, nor the path of the data."""
    defaults = TrainConfig()
    free = {name: getattr(defaults, name) for name in ("epochs", *FREE)}
    return replace(settings, train=replace(settings.train, **free), data=settings.data.without_paths()).to_dict()


def _differences(wanted: Any, stored: Any, key: str = "") -> Iterator[str]:
    """Where two trees differ, in words, key by key."""
    if not (isinstance(wanted, dict) and isinstance(stored, dict)):
        if wanted != stored:
            yield f"{key} is {wanted!r}, and the checkpoint has {stored!r}"
        return
    for name in [*wanted, *(name for name in stored if name not in wanted)]:
        yield from _differences(wanted.get(name), stored.get(name), f"{key}.{name}" if key else name)


def micro_batches(order: list[int], config: TrainConfig) -> list[list[int]]:
    """This process's share of the micro-batches of an epoch, in the order of a single process.

    Raises:
        Error: train_config where a batch does not divide into processes times micro-batches.
    """
    usable = len(order) - len(order) % config.batch or len(order)  # batch norm cannot take an incomplete last batch
    parts = config.accumulate * distributed.size()
    if config.batch % parts or usable < parts:
        batch = min(config.batch, usable)
        problem = f"a batch of {batch} for {distributed.size()} processes with {config.accumulate} micro-batches each"
        fix = f"make batch a multiple of {parts}, and no larger than the data"
        raise Error(Code.train_config, problem, "[train] batch", fix)
    batches = [order[i : i + config.batch] for i in range(0, usable, config.batch)]
    return [distributed.share(part.tolist()) for batch in batches for part in np.array_split(batch, config.accumulate)]
