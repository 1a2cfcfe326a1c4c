"""A training that one can watch: validation, best.pt, early stop, pictures, events, pace, the config that was used."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch

from helpers import killed_after_the_first_save, without_package, write_toy_config
from imkd_edge import ops
from imkd_edge.errors import Error
from imkd_edge.evaluation import run as evaluation
from imkd_edge.options import EvalOptions, TrainOptions
from imkd_edge.progress import TrainingStep, clock
from imkd_edge.rig import SensorRig
from imkd_edge.sources.base import Sample
from imkd_edge.sources.synth import SynthSource, default_rig
from imkd_edge.training import program, validation
from imkd_edge.training.checkpoint import load_checkpoint
from imkd_edge.training.config import load_config
from imkd_edge.training.evaluate import evaluate_checkpoint
from imkd_edge.training.pace import Pace

SMALL = ("spec.cameras=1", "augment.flip=false")
WATCHED = (*SMALL, "train.val_split=val", "train.val_every=2", "train.val_pictures=1")


class OneCamera(SynthSource):
    """Seven frames to train on and one to validate on, of one camera; each is drawn once."""

    def __init__(self) -> None:
        rig = default_rig((240, 135))
        super().__init__(
            scenes=8, frames_per_scene=1, rig=SensorRig(cameras=list(rig.cameras)[:1], radars=list(rig.radars))
        )
        self.samples: dict[str, Sample] = {}

    def __getitem__(self, name: str) -> Sample:
        if name not in self.samples:
            self.samples[name] = super().__getitem__(name)
        return self.samples[name]


SOURCE = OneCamera()


def train(config: Path, options: TrainOptions, **more) -> dict:
    return program.train(config, options, source=SOURCE, **more)


class Notes:
    """A monitor that remembers."""

    def __init__(self) -> None:
        self.steps: list[TrainingStep] = []
        self.lines: list[str] = []

    def step(self, step: TrainingStep) -> None:
        self.steps.append(step)

    def log(self, text: str) -> None:
        self.lines.append(text)


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    return write_toy_config(tmp_path_factory.mktemp("config") / "toy.toml")


@pytest.fixture(scope="module")
def watched(config, tmp_path_factory) -> tuple[Path, Notes, dict]:
    folder, notes = tmp_path_factory.mktemp("watched"), Notes()
    return folder, notes, train(config, TrainOptions(out=folder, changes=WATCHED), monitor=notes)


def scripted(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Validations measure these mAPs, one after another, instead of the network."""
    script = iter(values)
    monkeypatch.setattr(validation, "predict", lambda *_: evaluation.Predictions(SOURCE, [], [], []))
    monkeypatch.setattr(validation, "measure", lambda *_: {"mAP": next(script)})


def test_validation_follows_every_nth_epoch_and_the_last_one(watched) -> None:
    lines = log_of(watched[0])
    assert [line["epoch"] for line in lines if "validation" in line] == [2, 3]
    assert lines[1]["validation"]["split"] == "val" and lines[1]["validation"]["frames"] == 1


def test_a_validation_measures_what_eval_measures_of_its_checkpoint(watched) -> None:
    folder = watched[0]
    result = evaluate_checkpoint(folder / "checkpoint.pt", SOURCE, EvalOptions(split="val"))
    metrics = log_of(folder)[-1]["validation"]["metrics"]
    finite = {name: value for name, value in result["metrics"].items() if math.isfinite(value)}
    assert metrics == pytest.approx(finite, abs=1e-5) and "mAP" in metrics


def test_validation_changes_no_weight_and_no_loss(config, watched, tmp_path) -> None:
    train(config, TrainOptions(out=tmp_path, changes=SMALL))
    for name in ("trained", "ema"):
        ours, theirs = (load_checkpoint(path / "checkpoint.pt")[name] for path in (tmp_path, watched[0]))
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert [line["losses"] for line in log_of(tmp_path)] == [line["losses"] for line in log_of(watched[0])]
    assert not (tmp_path / "best.pt").exists() and not (tmp_path / "validation").exists()


def test_validated_frames_are_drawn_with_their_boxes(watched) -> None:
    pictures = sorted((watched[0] / "validation").rglob("*.png"))
    assert [p.parent.name for p in pictures] == ["epoch-002", "epoch-003"]
    assert [p.name for p in pictures] == ["s007-f000.png"] * 2
    assert cv2.imread(str(pictures[0])).shape[1] > 900


def test_best_is_the_epoch_of_the_highest_metric_and_the_first_of_equal_ones(config, tmp_path, monkeypatch) -> None:
    scripted(monkeypatch, [0.2, 0.5, 0.5, 0.1])
    notes = Notes()
    changes = (*SMALL, "train.val_split=val", "train.val_every=1")
    train(config, TrainOptions(out=tmp_path, epochs=4, changes=changes), monitor=notes)
    assert load_checkpoint(tmp_path / "best.pt")["epoch"] == 2
    assert load_checkpoint(tmp_path / "checkpoint.pt")["epoch"] == 4
    assert [line["best"] for line in log_of(tmp_path)] == [True, True, False, False]
    assert "mAP 0.5 on 0 frames of 'val', the best: best.pt" in notes.lines[1]


def test_patience_ends_the_run_and_more_of_it_continues(config, tmp_path, monkeypatch) -> None:
    scripted(monkeypatch, [0.5, 0.4, 0.3, 0.2, 0.1])
    changes = (*SMALL, "train.val_split=val", "train.val_every=1")
    notes = Notes()
    options = TrainOptions(out=tmp_path, epochs=5, changes=(*changes, "train.patience=2"))
    assert train(config, options, monitor=notes)["epoch"] == 3
    assert log_of(tmp_path)[-1]["stopped"] and "no better than that of epoch 1" in notes.lines[-1]
    assert load_checkpoint(tmp_path / "checkpoint.pt")["finished"]
    assert train(config, replace(options, resume=True))["epoch"] == 3  # stays stopped
    more = replace(options, resume=True, changes=(*changes, "train.patience=4"))
    assert train(config, more)["epoch"] == 5
    assert load_checkpoint(tmp_path / "best.pt")["epoch"] == 1


def test_a_resumed_run_knows_its_best_epoch(config, watched, tmp_path) -> None:
    options = TrainOptions(out=tmp_path, changes=(*WATCHED, "train.val_every=1"))
    with killed_after_the_first_save():
        train(config, options)
    train(config, replace(options, resume=True))
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    values = {line["epoch"]: line["validation"]["metrics"]["mAP"] for line in log_of(tmp_path)}
    assert sorted(values) == [1, 2, 3]
    assert state["best"]["epoch"] == max(values, key=lambda epoch: (values[epoch], -epoch))
    assert values[3] == log_of(watched[0])[-1]["validation"]["metrics"]["mAP"]  # as in the run that was not killed


def test_a_metric_that_is_not_measured_is_refused(config, tmp_path) -> None:
    changes = (*SMALL, "train.val_split=val", "train.val_every=1", "train.val_metric=accuracy")
    with pytest.raises(Error, match="'accuracy' is not measured") as error:
        train(config, TrainOptions(out=tmp_path, changes=changes))
    assert error.value.code == "E0601" and "mAP" in error.value.fix


def test_a_split_that_is_not_there_is_refused_before_training(config, tmp_path) -> None:
    with pytest.raises(Error, match="no split 'night'"):
        train(config, TrainOptions(out=tmp_path, changes=(*SMALL, "train.val_split=night")))
    assert not (tmp_path / "log.jsonl").exists()


def test_validation_on_frames_that_are_trained_on_is_said(config, tmp_path, monkeypatch) -> None:
    scripted(monkeypatch, [0.5])
    options = TrainOptions(out=tmp_path, epochs=1, split="all", changes=(*SMALL, "train.val_split=val"))
    with pytest.warns(UserWarning, match="1 of 1 frames of the validation split .val. are trained on"):
        train(config, options)


def test_frames_of_a_limited_validation_are_evenly_spaced() -> None:
    assert validation.spread(list(range(10)), 4) == [0, 3, 6, 9]
    assert validation.spread([1, 2], 5) == validation.spread([1, 2], 0) == [1, 2]


def test_the_config_that_was_used_lies_in_the_folder_and_trains_the_same(config, watched, tmp_path) -> None:
    used = load_config(watched[0] / "config.toml")
    assert used.train.val_every == 2 and used.spec.cameras == 1
    train(watched[0] / "config.toml", TrainOptions(out=tmp_path, epochs=1))
    assert log_of(tmp_path)[0]["epoch"] == 1
    assert load_checkpoint(watched[0] / "checkpoint.pt")["config"] == used.to_dict()


def test_a_monitor_hears_of_every_batch_and_epoch(watched) -> None:
    _, notes, result = watched
    assert [(s.epoch, s.epochs, s.batch, s.batches) for s in notes.steps] == [(e, 3, 1, 1) for e in (1, 2, 3)]
    assert notes.steps[0].loss == pytest.approx(log_of(watched[0])[0]["losses"]["total"], abs=1e-5)
    assert all(step.frames_per_second > 0 and step.seconds_left >= 0 for step in notes.steps)
    assert notes.steps[-1].seconds_left == 0 and len(notes.lines) == 3
    assert notes.lines[2].startswith("student epoch 3/3: loss ") and "0:00 left; mAP" in notes.lines[2]
    assert result["validation"]["metrics"] and 0 <= result["wait"] <= 1


def test_the_pace_counts_frames_waiting_and_what_is_left(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr("imkd_edge.training.pace.time.monotonic", lambda: now[0])
    pace = Pace("student", epochs=3, epoch=1, batches=2, frames=4)

    def loader():
        for _ in range(2):
            now[0] += 1.0  # s until a batch is there
            yield {}

    pace.begin_epoch()
    for number, _ in enumerate(pace.timed(loader()), 1):
        now[0] += 3.0  # s of a step
        step = pace.step(1, number, 0.5)
    assert step.frames_per_second == 1.0 and step.seconds_left == 8.0
    assert pace.line(2) == {"seconds": 8.0, "frames_per_second": 1.0, "wait": 0.25}
    assert str(step) == "student epoch 2/3  batch 2/2  loss 0.5  1.0 frames/s  0:08 left"
    assert clock(3671) == "1:01:11" and clock(59.6) == "1:00"


def test_events_hold_what_the_log_holds(watched) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(watched[0] / "events"))
    events.Reload()
    totals = [(event.step, event.value) for event in events.Scalars("loss/total")]
    lines = log_of(watched[0])
    assert totals == [(line["epoch"], pytest.approx(line["losses"]["total"], rel=1e-5)) for line in lines]
    assert [event.step for event in events.Scalars("validation/mAP")] == [2, 3]


def test_without_tensorboard_a_warning_says_once_what_is_missing(config, tmp_path, monkeypatch) -> None:
    without_package(monkeypatch, "tensorboard")
    monkeypatch.delitem(__import__("sys").modules, "torch.utils.tensorboard", raising=False)
    with pytest.warns(UserWarning, match="no TensorBoard events: pip install") as warnings:
        train(config, TrainOptions(out=tmp_path, epochs=2, changes=SMALL))
    assert len([w for w in warnings if "TensorBoard" in str(w.message)]) == 1
    assert not (tmp_path / "events").exists()


def test_options_of_the_source_limit_and_threads_reach_the_training(config, tmp_path, monkeypatch) -> None:
    threads: list[int] = []
    monkeypatch.setattr(ops, "set_threads", threads.append)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    options = TrainOptions(out=tmp_path, epochs=1, limit=5, threads=2, changes=("train.tensorboard=false",))
    result = program.train(config, options, source_options={"frames_per_scene": 3, "image": [240, 135]})
    assert result["frames"] == 5 and threads == [2, 2]
    data = load_config(tmp_path / "config.toml").data
    assert data.limit == 5 and data.options == {"scenes": 2, "frames_per_scene": 3, "image": [240, 135]}
    assert not (tmp_path / "events").exists()
