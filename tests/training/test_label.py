"""A trained teacher labels a recording: a drive folder with its boxes and scores."""

import json
from dataclasses import replace

import numpy as np
import pytest

from helpers import DISTIL, save_untrained_teacher, write_toy_config
from imkd_edge.errors import Error
from imkd_edge.options import LabelOptions
from imkd_edge.sources import open_source
from imkd_edge.sources.base import Source
from imkd_edge.training.label import checkpoint_of, found, label

WORLD = {"scenes": 2, "frames_per_scene": 2, "lidar": True}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A run whose untrained teacher finds something everywhere."""
    folder = tmp_path_factory.mktemp("run")
    save_untrained_teacher(write_toy_config(folder / "toy.toml", DISTIL), folder / "teacher")
    return folder


def test_labels_are_what_the_teacher_finds_with_its_scores(teacher, tmp_path):
    source = open_source("synth", **WORLD)
    result = label(source, teacher, tmp_path / "drive", LabelOptions(score=0.4))
    written = open_source(str(tmp_path / "drive"), labels=True)
    assert result["frames"] == result["new"] == 4 and written.names == source.names
    lines = [json.loads(line) for line in (tmp_path / "drive" / "frames.jsonl").read_text().splitlines()]
    scores = [item["score"] for line in lines for item in line["objects"]]
    assert len(scores) == result["objects"] > 0 and min(scores) >= 0.4
    truth, raw = written[source.names[0]].truth, source[source.names[0]].truth
    assert len(truth.boxes) == len(lines[0]["objects"]) != len(raw.boxes)
    assert np.isnan(truth.boxes[:, 7:]).all() and np.isfinite(truth.boxes[:, :7]).all()
    assert {item["label"] for item in lines[0]["objects"]} <= {"car", "truck", "pedestrian", "bicycle"}


def test_an_interrupted_folder_is_continued_and_a_finished_one_left_alone(teacher, tmp_path):
    source = open_source("synth", **WORLD)
    whole = label(source, teacher, tmp_path / "whole")

    def die(names):
        yield names[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label(source, teacher, tmp_path / "part", track=die)
    assert label(source, teacher, tmp_path / "part")["new"] == 3
    assert label(source, teacher, tmp_path / "part")["new"] == 0
    name = "frames.jsonl"
    assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() and whole["new"] == 4
    with pytest.raises(Error, match="another recording"):
        label(source, teacher, tmp_path / "part", LabelOptions(score=0.9))


def test_a_frame_without_lidar_stays_without_labels_and_a_recording_without_any_is_refused(teacher, tmp_path):
    class Partly(Source):
        kind, names = "partly", ["s000-f000", "s000-f001"]
        source = open_source("synth", **WORLD)

        def __getitem__(self, name):
            return self.source[name] if name == "s000-f001" else replace(self.source[name], lidar=None)

    result = label(Partly(), teacher, tmp_path / "drive")
    assert result["without_lidar"] == 1 and result["objects"] > 0
    written = open_source(str(tmp_path / "drive"), labels=True)
    assert [written[name].truth is None for name in Partly.names] == [True, False]
    with pytest.raises(Error, match="without LiDAR") as error:
        label(open_source("synth", scenes=1), teacher, tmp_path / "none")
    assert error.value.code == "E0604" and not (tmp_path / "none").exists()


def test_a_run_gives_its_teacher_and_a_file_itself(teacher, tmp_path):
    file = teacher / "teacher" / "checkpoint.pt"
    assert checkpoint_of(teacher) == file and checkpoint_of(file) == file
    (tmp_path / "checkpoint.pt").touch()
    assert checkpoint_of(tmp_path) == tmp_path / "checkpoint.pt"
    with pytest.raises(Error, match="no checkpoint") as error:
        label("synth", tmp_path / "nothing", tmp_path / "drive")
    assert error.value.code == "E0602" and not (tmp_path / "drive").exists()


def test_nothing_found_is_a_frame_without_objects():
    truth = found(np.zeros((0, 9), np.float32), np.zeros(0, np.float32), [])
    assert truth.boxes.shape == (0, 9) and truth.labels == [] and truth.scores.shape == (0,)
