"""Sources that other packages register, sources that are open already, and words that no reader knows."""

from __future__ import annotations

from pathlib import Path

import pytest
from rigs import three_camera_rig
from sources.drive_folder import write_drive

from helpers import write_toy_config
from imkd_edge.bundle import Bundle
from imkd_edge.errors import Error
from imkd_edge.options import EvalOptions, TrainOptions
from imkd_edge.sources import Sample, Source, open_source
from imkd_edge.sources.select import select

PACKAGE = '''
from imkd_edge.sources import open_source

class Recordings:
    """Recognises *.drive files."""
    kind = "recordings"
    def __init__(self, name, labels=True, lidar=True, first=0):
        self.source = open_source("synth", scenes=1, frames_per_scene=2)
        self.names = self.source.names[first:]
    def __getitem__(self, name):
        return self.source[name]
    def __len__(self):
        return len(self.names)
    @staticmethod
    def recognises(name):
        return name.endswith(".drive")
'''


def register(folder: Path, entry: str, module: str) -> None:
    """A distribution with one entry point, as pip would install it."""
    info = folder / "other_reader-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-reader\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[imkd_edge.sources]\nrecordings = {entry}\n")
    (folder / "other_reader.py").write_text(module)


def test_another_package_registers_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(tmp_path, "other_reader:Recordings", PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    source = open_source("trip.drive")
    assert source.kind == "recordings" and source.names == ["s000-f000", "s000-f001"]
    assert open_source("trip.drive", first=1).names == ["s000-f001"]
    assert select("trip.drive", options={"first": 1}).names == ["s000-f001"]
    with pytest.raises(Error, match="E0302"):
        open_source("trip.other")


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("other_reader:Missing", "AttributeError"),
        ("other_reader:open_source", "no recognises"),
        ("nowhere:X", "nowhere"),
    ],
)
def test_a_broken_reader_of_another_package_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str, problem: str
) -> None:
    register(tmp_path, entry, PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(UserWarning, match=f"'recordings' of other-reader is left out.*{problem}"), pytest.raises(Error):
        open_source("trip.drive")
    assert open_source(write_drive(tmp_path / "drive")).kind == "folder"


# ---- Source objects ----
class Own(Source):
    """A user's source: three frames of the synthetic world under other names."""

    kind = "own"

    def __init__(self) -> None:
        self.source = open_source("synth", scenes=1, frames_per_scene=3)
        self.names = list(self.source.names)
        self.splits = {"train": self.names[:2], "val": self.names[2:]}

    def __getitem__(self, name: str) -> Sample:
        return self.source[name]


def test_a_source_is_opened_as_it_is() -> None:
    source = Own()
    assert open_source(source) is source
    assert select(source, "val").names == source.names[2:]
    with pytest.raises(Error, match=r"E0104.*open already"):
        open_source(source, scenes=3)


def test_train_and_eval_take_a_source(tmp_path: Path) -> None:
    from imkd_edge.training.evaluate import evaluate_checkpoint
    from imkd_edge.training.program import train

    config = write_toy_config(tmp_path / "toy.toml")
    result = train(config, TrainOptions(out=tmp_path / "run", epochs=1), source=Own())
    assert result["frames"] == 2
    measured = evaluate_checkpoint(result["checkpoint"], Own(), EvalOptions(split="val"))
    assert (measured["dataset"], measured["frames"]) == ("own", 1)
    with pytest.raises(Error, match=r"E0601.*no path"):
        train(config, TrainOptions(out=tmp_path / "other", cache=tmp_path / "cache"), source=Own())


# ---- words ----
def make(folder: Path, file: str) -> str:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    return str(path)


@pytest.mark.parametrize(
    ("file", "what", "fix"),
    [
        ("a.mcap", "does not begin as an MCAP file", "copy it again"),
        ("a.bag", "a ROS 1 bag", "rosbags-convert"),
        ("a.mp4", "a video", "rig.json"),
        ("a.PNG", "one image", "a single frame"),
        ("a.pcd", "one point cloud", "a single frame"),
        ("a.zip", "an archive", "unpack it"),
        ("a.tar.gz", "an archive", "unpack it"),
        ("checkpoint.pt", "a checkpoint", "not data"),
        ("mine.toml", "a training's config", "before --data"),
        ("rig.json", "the rig of a vehicle", "--rig"),
        ("frames.jsonl", "a file of a drive folder", "give its folder"),
        ("a.xyz", "a file, and no reader", "a drive folder"),
    ],
)
def test_a_file_is_told_what_it_is(tmp_path: Path, file: str, what: str, fix: str) -> None:
    with pytest.raises(Error) as info:
        open_source(make(tmp_path, file))
    assert info.value.code == "E0301" and what in info.value.what and fix in info.value.fix + info.value.what


@pytest.mark.parametrize(
    ("files", "what", "fix"),
    [
        (["manifest.json"], "a bundle", "--bundle"),
        (["rig.json"], "a rig and without frames", "frames.jsonl"),
        (["one/frames.jsonl", "two/frames.jsonl"], "2 drive folders", "one"),
        (["letter.txt"], "no reader knows this folder", "frames.jsonl"),
        ([], "empty", "a drive folder"),
    ],
)
def test_a_folder_is_told_what_it_is(tmp_path: Path, files: list[str], what: str, fix: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for file in files:
        make(folder, file)
    with pytest.raises(Error) as info:
        open_source(folder)
    assert info.value.code == "E0301" and what in info.value.what and fix in info.value.fix


def test_a_word_is_told_what_it_is() -> None:
    for word, code, what in (
        ("https://host/drive", "E0301", "an address"),
        ("nowhere", "E0302", "no such file or folder"),
    ):
        with pytest.raises(Error, match=code) as info:
            open_source(word)
        assert what in info.value.what


def test_a_rig_is_known_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "three.json").write_text(three_camera_rig().to_json())
    with pytest.raises(Error, match=r"E0301.*the rig of a vehicle.*--rig"):
        open_source(tmp_path / "three.json")


def test_an_unknown_option_is_answered_with_those_of_the_reader() -> None:
    with pytest.raises(Error, match=r"E0102.*no option 'rigs' / synth / it takes seed, scenes, .*rig, classes"):
        select("synth", options={"rigs": "three.json"})


def test_the_folder_of_a_training_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(Error, match=r"E0401.*a training, not a bundle.*imkd-edge export"):
        Bundle.load(tmp_path)
