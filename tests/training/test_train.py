"""Training: the loss falls, the files are complete, and a resumed run is bit-equal to an uninterrupted one."""

import json
import os
import re
from dataclasses import replace

import pytest
import torch

from helpers import killed_after_the_first_save, write_toy_config
from imkd_edge import Bundle, ops
from imkd_edge.errors import Error
from imkd_edge.options import TrainOptions
from imkd_edge.training.checkpoint import load_checkpoint, load_student
from imkd_edge.training.config import load_config
from imkd_edge.training.data import FrameDataset
from imkd_edge.training.distributed import use_threads
from imkd_edge.training.program import train, train_stages


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write_toy_config(tmp_path_factory.mktemp("config") / "toy.toml")


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(config, TrainOptions(out=folder, seed=3))


def test_a_run_writes_a_checkpoint_and_one_log_line_per_epoch(whole):
    folder, result = whole
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert {"heatmap", "box", "depth", "total", "gradient"} <= set(lines[0]["losses"])
    assert lines[-1]["losses"]["total"] < lines[0]["losses"]["total"]
    assert load_checkpoint(folder / "checkpoint.pt")["epoch"] == 3 and result["epoch"] == 3 and result["frames"] == 8
    assert not list(folder.glob("*.tmp"))


def test_a_resumed_run_is_bit_equal(config, whole, tmp_path):
    folder, _ = whole
    with killed_after_the_first_save():
        train(config, TrainOptions(out=tmp_path, seed=3))
    train(config, TrainOptions(out=tmp_path, seed=3, resume=True))
    ours, theirs = load_checkpoint(tmp_path / "checkpoint.pt"), load_checkpoint(folder / "checkpoint.pt")
    for part in ("trained", "ema"):
        for key, value in theirs[part].items():
            assert torch.equal(ours[part][key], value), f"{part} {key}"
    logs = [(path / "log.jsonl").read_text().splitlines() for path in (tmp_path, folder)]
    times = {"seconds": 0, "frames_per_second": 0, "wait": 0}
    ours, theirs = ([json.loads(line) | times for line in log] for log in logs)
    assert ours == theirs


def test_a_kill_between_log_and_checkpoint_keeps_one_line_per_epoch(config, whole, tmp_path):
    _, result = whole
    with killed_after_the_first_save():
        train(config, TrainOptions(out=tmp_path, seed=3))
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write('{"epoch": 2, "losses": {"total"')  # an incomplete line
    assert train(config, TrainOptions(out=tmp_path, seed=3, resume=True))["losses"] == result["losses"]
    assert [json.loads(x)["epoch"] for x in (tmp_path / "log.jsonl").read_text().splitlines()] == [1, 2, 3]
    again = train(config, TrainOptions(out=tmp_path, seed=3, resume=True))  # no epoch is left
    assert again["epoch"] == 3 and again["losses"] == result["losses"]


def test_frames_without_labels_are_refused(config, tmp_path, monkeypatch):
    read = FrameDataset.sample
    monkeypatch.setattr(FrameDataset, "sample", lambda self, index: replace(read(self, index), truth=None))
    with pytest.raises(Error, match="without labels") as error:
        train(config, TrainOptions(out=tmp_path))
    assert error.value.code == "E0604"


def test_an_unknown_backbone_is_named(config, tmp_path):
    (tmp_path / "odd.toml").write_text(f'base = "{config}"\n[model]\nbackbone = "resnet7"\n')
    with pytest.raises(Error, match="no backbone 'resnet7'") as error:
        train(tmp_path / "odd.toml", TrainOptions(out=tmp_path))
    assert error.value.code == "E0601"


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({"seed": 4}, "seed is 4, and the checkpoint has 3"),
        ({"seed": 3, "limit": 5}, "data.limit is 5, and the checkpoint has 0"),
        ({"seed": 3, "changes": ("augment.rotation=0.25",)}, "augment.rotation is 0.25, and the checkpoint has"),
    ],
)
def test_resuming_with_another_plan_is_refused_and_says_where_it_differs(config, whole, options, change):
    with pytest.raises(Error, match=re.escape(change)) as error:
        train(config, TrainOptions(out=whole[0], resume=True, **options))
    assert error.value.code == "E0602"


def test_a_file_is_not_taken_for_the_folder_of_a_run(config, tmp_path):
    (tmp_path / "notes").write_text("of the drive")
    with pytest.raises(Error, match="it is a file, and a run is a folder") as error:
        train(config, TrainOptions(out=tmp_path / "notes"))
    assert error.value.code == "E0702" and (tmp_path / "notes").read_text() == "of the drive"


def test_a_split_that_only_the_validation_names_is_said_to_be_of_it(config, tmp_path):
    with pytest.raises(Error, match=r"no split 'nights'.*\[train\] val_split names it") as error:
        train(config, TrainOptions(out=tmp_path, changes=("train.val_split=nights",)))
    assert error.value.code == "E0307"


def test_a_finished_run_is_not_overwritten(config, whole):
    files = {path: path.read_bytes() for path in whole[0].iterdir() if path.is_file()}
    with pytest.raises(Error, match="already holds a run") as error:
        train(config, TrainOptions(out=whole[0], seed=3))
    assert error.value.code == "E0602"
    assert files == {path: path.read_bytes() for path in whole[0].iterdir() if path.is_file()}


def test_a_resumed_run_may_read_its_data_from_another_path(config, whole):
    options = TrainOptions(data="synth:0", out=whole[0], seed=3, resume=True)
    assert train(config, options)["losses"] == whole[1]["losses"]


def test_data_without_any_label_of_the_config_are_refused(config, tmp_path):
    settings = load_config(config)
    classes = {f"a big {name}": name for name in settings.data.classes.values()}
    settings = replace(settings, data=replace(settings.data, classes=classes))
    with pytest.raises(Error, match="has none of the labels: bicycle, car") as error:
        train_stages(settings, TrainOptions(out=tmp_path, seed=3))
    assert error.value.code == "E0604"


def test_a_damaged_or_missing_checkpoint_is_refused(tmp_path):
    with pytest.raises(Error) as error:
        load_student(tmp_path / "checkpoint.pt")
    assert error.value.code == "E0602"
    (tmp_path / "checkpoint.pt").write_bytes(b"PK not really")
    with pytest.raises(Error) as error:
        load_student(tmp_path / "checkpoint.pt")
    assert error.value.code == "E0602"


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(Error, match="no checkpoint") as error:
        load_checkpoint(tmp_path)
    assert error.value.code == "E0602"


def test_a_teacher_is_named_by_the_folder_of_its_run(tmp_path):
    config = write_toy_config(tmp_path / "toy.toml", "[distill]\nfused = 1.0\n")
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "checkpoint.pt").touch()
    for wrong in (tmp_path / "teacher", Bundle.load("tiny").path):
        with pytest.raises(Error, match="there is no run with a teacher") as error:
            train(config, TrainOptions(out=tmp_path / "run", teacher=wrong))
        assert error.value.code == "E0602"


def test_threads_are_those_of_torch_and_0_leaves_them():
    before = torch.get_num_threads()
    try:
        for given, expected in ((2, 2), (0, 2), (1, 1)):
            use_threads(given)
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)
        ops.set_threads(os.cpu_count() or 1)


def test_a_checkpoint_of_other_layers_is_refused(whole, tmp_path):
    state = load_checkpoint(whole[0] / "checkpoint.pt")
    renamed = {f"{name}_before": value for name, value in state["ema"].items()}
    torch.save({**state, "ema": renamed}, tmp_path / "checkpoint.pt")
    with pytest.raises(Error, match="another version of the networks") as error:
        load_student(tmp_path / "checkpoint.pt")
    assert error.value.code == "E0602"


def test_an_unknown_split_is_refused(config, tmp_path):
    with pytest.raises(Error, match="there is no split 'nights'") as error:
        train(config, TrainOptions(out=tmp_path, split="nights"))
    assert error.value.code == "E0604"


def test_a_diverging_loss_stops_with_its_terms(config, tmp_path):
    text = config.read_text().replace("epochs = 3", "epochs = 3\nrate = 1e30\nclip = 1e30")
    (tmp_path / "wild.toml").write_text(text)
    with pytest.raises(Error, match="not finite") as error:
        train(tmp_path / "wild.toml", TrainOptions(out=tmp_path, epochs=20))
    assert error.value.code == "E0603"
