"""One run: a stage, its folder, its log, and the loop over epochs."""

from __future__ import annotations

import copy
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from imkd_edge.errors import Code, Error
from imkd_edge.progress import Track
from imkd_edge.training import distributed
from imkd_edge.training.checkpoint import CHECKPOINT, LOG, STUDENT, code_version, load_checkpoint, save_checkpoint
from imkd_edge.training.config import Config, TrainConfig, from_dict
from imkd_edge.training.data import ORDER, FrameDataset, cache_features, collate, measure_contract
from imkd_edge.training.engine import make_optimizer, train_one_epoch
from imkd_edge.training.stages import Stage


class Run:
    """Trains one stage on one data set and stores checkpoint and log in a folder."""

    def __init__(self, settings: Config, seed: int, folder: Path, stage: Stage, dataset: FrameDataset):
        self.settings, self.seed, self.folder, self.epoch = settings, seed, folder, 0
        stage = stage.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.stage: Stage = distributed.sync_batch_norms(stage)  # type: ignore[assignment]
        self.dataset, self.commit = dataset, code_version()
        self.ema = copy.deepcopy(stage.network).eval().requires_grad_(False)
        self.optimizer = make_optimizer(stage, settings.train)
        self.scaler = torch.amp.GradScaler(stage.device.type, enabled=settings.train.precision == "float16")
        self.model = distributed.wrap(stage)
        self.contract: str | None = None  # JSON of what a student is trained on
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
        if self.epoch < epochs:
            loader = self.make_loader(progress)
        with open(self.folder / LOG if first else os.devnull, "a") as log:
            while self.epoch < epochs:
                line = self.train_epoch(loader, progress)
                log.write(json.dumps(line) + "\n")
                log.flush()
                if first:
                    self.save()
        distributed.barrier()  # every process may read the checkpoint afterwards
        return {"checkpoint": str(self.checkpoint), "frames": len(self.dataset), **line} if first else {}

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

    def train_epoch(self, loader: DataLoader, progress: Track | None) -> dict[str, Any]:
        """Trains one epoch and returns its log line: "epoch" (number of finished ones), mean "losses", "seconds"."""
        start, config = time.monotonic(), self.settings.train
        self.dataset.epoch = self.epoch
        order = np.random.default_rng([self.seed, ORDER, self.epoch]).permutation(len(self.dataset)).tolist()
        self.batches[:] = micro_batches(order, config)
        steps = len(self.batches) // config.accumulate
        batches = progress(loader) if progress else loader
        first, total = self.epoch * steps, config.epochs * steps
        means = train_one_epoch(self.model, self.ema, self.optimizer, self.scaler, batches, config, first, total)
        self.epoch += 1
        losses = {k: round(v, 5) for k, v in means.items()}
        return {"epoch": self.epoch, "losses": losses, "seconds": round(time.monotonic() - start, 1)}

    def save(self) -> None:
        """Writes the checkpoint of the folder."""
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
            "contract": self.contract,
        }
        save_checkpoint(state, self.checkpoint)

    def restore(self) -> None:
        """Loads the checkpoint of the folder. Raises Error train_checkpoint where it belongs to another run."""
        state = load_checkpoint(self.checkpoint)
        expected = {**_run_identity(self.settings), "seed": self.seed, "stage": self.stage.name}
        stored = _run_identity(from_dict(state["config"], str(self.checkpoint)))
        stored |= {"seed": state["seed"], "stage": state["stage"]}
        changed = [key for key in expected if expected[key] != stored.get(key)]
        if changed:
            problem = f"{', '.join(changed)} differ from the checkpoint's"
            raise Error(Code.train_checkpoint, problem, str(self.checkpoint), "resume with the same config and seed")
        self.contract = state.get("contract")
        self.stage.load_state_dict(state["trained"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state.get("scaler", {}))
        self.epoch = state["epoch"]


def _run_identity(settings: Config) -> dict[str, Any]:
    """Everything that a result depends on: neither the number of workers nor the path of the data."""
    return replace(settings, train=replace(settings.train, workers=0), data=replace(settings.data, source="")).to_dict()


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
