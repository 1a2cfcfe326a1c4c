"""Every verb on a drive folder: convert writes it, infer, train and eval read it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Once

from helpers import write_toy_config

SYNTH = ("synth", "--option", "scenes=8", "--option", "frames_per_scene=1")


@pytest.fixture
def folder(run, once: Once) -> Path:
    """A drive folder of eight synthetic scenes, the last of them in val."""

    def make(path: Path) -> None:
        outcome = run("convert", *SYNTH, "--to", path / "drive", "--json")
        assert outcome.code == 0, outcome.stderr
        assert outcome.json["frames"] == outcome.json["new"] == 8
        assert outcome.json["splits"] == {"train": 7, "val": 1}

    return once("drive-folder", make) / "drive"


def test_convert_says_what_it_wrote(run, folder: Path) -> None:
    outcome = run("convert", *SYNTH, "--to", folder)
    assert outcome.code == 0 and "frames 8" in outcome.text and "new 0" in outcome.text


def test_convert_refuses_a_folder_of_something_else(run, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    outcome = run("convert", *SYNTH, "--to", tmp_path)
    assert outcome.code == 3 and outcome.stderr.startswith("error[E0702]") and "not empty" in outcome.stderr


def test_infer_on_the_folder_equals_infer_on_its_source(run, folder: Path, random_bundle: Path) -> None:
    arguments = ("--bundle", random_bundle, "--frame", "s003-f000", "--json")
    ours, theirs = run("infer", folder, *arguments), run("infer", *SYNTH, *arguments)
    assert ours.code == theirs.code == 0
    assert ours.json["detections"] == theirs.json["detections"] and ours.json["health"] == theirs.json["health"]


def test_a_defect_is_one_line_with_file_and_line(run, folder: Path, random_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "rig.json").write_bytes((folder / "rig.json").read_bytes())
    (tmp_path / "frames.jsonl").write_text('{"frame": "a", "timestamp_ns": 1, "cameras": {"CAM": {"file": "a.png"}}}\n')
    outcome = run("infer", tmp_path, "--bundle", random_bundle)
    assert outcome.code == 2 and outcome.stderr.startswith("error[E0311]")
    assert f"{tmp_path / 'frames.jsonl'}:1" in outcome.stderr


def test_train_and_eval_on_the_folder(run, folder: Path, tmp_path: Path) -> None:
    config = write_toy_config(tmp_path / "toy.toml")
    arguments = ("--data", folder, "--out", tmp_path / "run", "--epochs", "1", "--json")
    with pytest.warns(UserWarning, match="left out"):
        outcome = run("train", config, *arguments)
    assert outcome.code == 0 and outcome.json["frames"] == 7, outcome.stderr
    outcome = run("eval", tmp_path / "run" / "checkpoint.pt", "--data", folder, "--split", "val", "--json")
    assert outcome.code == 0, outcome.stderr
    assert (outcome.json["dataset"], outcome.json["frames"]) == ("folder", 1)
    assert {"mAP", "car_AP"} <= set(outcome.json["metrics"])


def test_inspect_of_a_drive_folder_names_check(run, folder: Path) -> None:
    outcome = run("inspect", folder)
    assert outcome.code == 4 and "it is a drive folder" in outcome.stderr
    assert f"imkd-edge check {folder}" in outcome.stderr and "manifest" not in outcome.stderr
