"""Two processes train as one does: loss curves, normalisers, batch norms; and either resumes a run of the other."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import DISTIL, write_toy_config
from imkd_edge.errors import Error
from imkd_edge.options import TrainOptions
from imkd_edge.training import distributed
from imkd_edge.training.checkpoint import load_checkpoint
from imkd_edge.training.config import load_config
from imkd_edge.training.data import collate
from imkd_edge.training.engine import make_optimizer, train_one_epoch
from imkd_edge.training.program import open_dataset, train
from imkd_edge.training.run import Run, micro_batches
from imkd_edge.training.sections import TrainConfig
from imkd_edge.training.stages import Stage, StudentStage

SECOND = """levels = ["fused", "trunk", "pre-head"]
normalise = true
balance = true
false_positives = 0.5
radar_active = true
"""
SLOW = DISTIL.replace("label_epochs = 2", "label_epochs = 2\nrate = 1e-4") + f"ramp = 0.0\n{SECOND}"
STAGES = ("teacher", "labels", ".")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """One step per epoch and a small rate, so that the first line of a log is free of later rounding.

    ReLUs flip, and Adam amplifies the change of a tiny gradient to a whole step.
    """
    path = write_toy_config(tmp_path_factory.mktemp("config") / "toy.toml", SLOW)
    path.write_text(path.read_text().replace("epochs = 3", "epochs = 2\nbatch = 8\nrate = 1e-4"))
    return path


@pytest.fixture(scope="module")
def single(config, tmp_path_factory):
    """A run of one process, and a copy of its folder before the last epoch of the student."""
    folder, half = tmp_path_factory.mktemp("single"), tmp_path_factory.mktemp("half") / "run"
    save = Run.save

    def save_and_copy(run):
        save(run)
        if run.stage.name == "student" and run.epoch == 1:
            shutil.copytree(folder, half)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "save", save_and_copy)
        train(config, TrainOptions(out=folder, seed=5))
    return folder, half


@pytest.fixture(scope="module")
def double(config, single, tmp_path_factory):
    """The same run by two processes, its standard output, and the resumed copy."""
    folder, half = tmp_path_factory.mktemp("double"), single[1]
    script = Path(__file__).with_name("two_processes.py")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, script, config, folder, half]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parents[1])}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return folder, run.stdout, half


def curves(folder, stage):
    lines = [json.loads(line)["losses"] for line in (folder / stage / "log.jsonl").read_text().splitlines()]
    return {key: [line[key] for line in lines] for key in lines[0]}


def check_same_curves(folder, reference, stage):
    ours, theirs = curves(folder, stage), curves(reference, stage)
    assert ours.keys() == theirs.keys() and len(ours["total"]) == 2
    for key in ours:
        for epoch, loss in enumerate((5e-5, 5e-4)):
            expected = pytest.approx(theirs[key][epoch], rel=1e-2 if key == "gradient" else loss, abs=2e-5)
            assert ours[key][epoch] == expected, f"{stage} {key} {epoch}"


def test_two_processes_have_the_loss_curves_of_one(single, double):
    for stage in STAGES:
        check_same_curves(double[0], single[0], stage)


def test_only_the_first_process_prints(double):
    assert json.loads(double[1])["epoch"] == 2


def test_one_process_loads_the_run_of_two(config, double):
    # All stages are complete: restored, not trained.
    assert train(config, TrainOptions(out=double[0], seed=5, resume=True))["frames"] == 8


def test_two_processes_together_decode_every_sample_once(double):
    assert len(list((double[0] / "cache").glob("samples-*/*.safetensors"))) == 8


def test_two_processes_resume_the_run_of_one(single, double):
    check_same_curves(double[2], single[0], ".")
    assert load_checkpoint(double[2] / "checkpoint.pt")["epoch"] == 2


def test_a_process_takes_its_share_in_the_order_of_one(monkeypatch):
    order, config = list(range(20, 9, -1)), TrainConfig(batch=4, accumulate=2)
    # An incomplete batch of three is discarded.
    assert micro_batches(order, config) == [[20, 19], [18, 17], [16, 15], [14, 13]]
    monkeypatch.setattr(distributed, "size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(micro_batches(order, config))
    assert shares == [[[20], [18], [16], [14]], [[19], [17], [15], [13]]]
    monkeypatch.setattr(distributed, "size", lambda: 3)
    for batch in (4, 12):  # not divisible; more than the data
        with pytest.raises(Error, match="3 processes") as error:
            micro_batches(order if batch == 4 else order[:5], TrainConfig(batch=batch, accumulate=2))
        assert error.value.code == "E0601"


@pytest.mark.parametrize("change", ["batch = 4\naccumulate = 3", "accumulate = 0", 'precision = "int8"'])
def test_an_indivisible_batch_or_unknown_precision_is_refused(tmp_path, change):
    path = write_toy_config(tmp_path / "x.toml")
    path.write_text(path.read_text().replace("epochs = 3", change))
    with pytest.raises(Error) as error:
        load_config(path)
    assert error.value.code == "E0601"


def test_an_absent_device_is_refused(config, tmp_path):
    for device in ("tpu", *(() if torch.cuda.is_available() else ("cuda",))):
        with pytest.raises(Error, match=device) as error:
            train(config, TrainOptions(out=tmp_path, device=device))
        assert error.value.code == "E0511"


class LinearStage(Stage):
    """A network without batch norm and a loss divided by the number of examples."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))

    def losses(self, batch, epoch):
        return {"total": (self.network(batch["x"])[:, 0] - batch["y"]).square().mean()}


def test_micro_batches_add_up_to_their_batch():
    x = torch.randn(5, 8, 6, generator=torch.Generator().manual_seed(1))
    results = []
    for parts in (1, 4):
        stage, config = LinearStage(), TrainConfig(batch=8, accumulate=parts, clip=0.5)
        pieces = [{"x": piece, "y": piece.sum(1)} for batch in x for piece in batch.chunk(parts)]
        optimizer, ema = make_optimizer(stage, config), copy.deepcopy(stage.network)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        results.append((train_one_epoch(stage, ema, optimizer, scaler, pieces, config, 0, 5), stage, ema))
    (means, *networks), (accumulated_means, *accumulated) = results
    assert accumulated_means == pytest.approx(means, rel=1e-5)
    ours, theirs = ([p for network in pair for p in network.parameters()] for pair in (accumulated, networks))
    for a, b in zip(theirs, ours, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns(tmp_path, precision):
    path = write_toy_config(tmp_path / "half.toml", "frames_per_scene = 1\n")
    text = path.read_text().replace("epochs = 3", f'precision = "{precision}"')
    path.write_text(text.replace("frames_per_scene = 4\n", ""))
    settings = load_config(path)
    torch.manual_seed(0)
    stage, dataset = StudentStage(settings), open_dataset(settings, 0)
    batch = collate([dataset[0]], settings.spec)
    with stage.autocast():
        out = stage.network(batch)
    assert out["f_fused"].dtype == getattr(torch, precision)
    optimizer, ema = make_optimizer(stage, settings.train), copy.deepcopy(stage.network)
    scaler = torch.amp.GradScaler("cpu", enabled=precision == "float16")
    first, second = (
        train_one_epoch(stage, ema, optimizer, scaler, [batch] * 3, settings.train, step, 6)["total"] for step in (0, 3)
    )
    assert second < 0.9 * first
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in stage.parameters())


def test_workers_make_the_same_examples_as_the_process_itself(config, tmp_path):
    """Over two epochs, since workers outlive the first and must notice the second."""
    path, runs = tmp_path / "workers.toml", []
    for workers in (0, 2):
        path.write_text(config.read_text().split("lidar")[0].replace("batch = 8", f"workers = {workers}"))
        train(path, TrainOptions(out=tmp_path / str(workers), seed=5))
        runs.append(load_checkpoint(tmp_path / str(workers) / "checkpoint.pt"))
    for key, value in runs[0]["trained"].items():
        assert torch.equal(value, runs[1]["trained"][key]), key
    train(path, TrainOptions(out=tmp_path / "0", seed=5, resume=True))  # the number of workers may change
