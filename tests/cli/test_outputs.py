"""What a verb writes replaces an earlier output of its kind at most: no recording, and nothing of somebody else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Once

from imkd_edge.checks.data import check
from imkd_edge.errors import Error
from imkd_edge.options import CheckOptions, QuantizeOptions
from imkd_edge.sources.folder import problems

SMALL = ("--option", "image=[240,135]", "--option", "scenes=1", "--option", "frames_per_scene=1")


@pytest.fixture
def drive(run, once: Once, tmp_path: Path) -> Path:
    """A drive folder of one frame, and beside it what its files must stay."""

    def make(path: Path) -> None:
        assert run("convert", "synth", *SMALL, "--to", path / "drive").code == 0

    return Path(shutil.copytree(once("drive-of-one-frame", make) / "drive", tmp_path / "drive"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(run: Callable[..., Any], folder: Path, *command: Any) -> None:
    before = files(folder)
    outcome = run(*command)
    assert outcome.code == 3 and outcome.stderr.startswith("error[E0702]") and outcome.stdout == ""
    assert files(folder) == before


@pytest.mark.parametrize("name", ["frames.jsonl", "rig.json", "notes.txt"])
def test_a_page_replaces_no_file_of_another_kind(run, drive: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (drive / "notes.txt").write_text("mine")
    monkeypatch.setattr("imkd_edge.bench.bench", lambda *arguments, **more: pytest.fail("the benchmark ran first"))
    refused(run, drive, "check", drive, "--html", drive / name)
    refused(run, drive, "bench", "tiny", "--source", drive, "--html", drive / name)


def test_a_page_replaces_an_older_page(run, drive: Path) -> None:
    before = files(drive)
    for _ in range(2):
        assert run("check", drive, "--html", drive / "page.html").code in (0, 1)
        assert (drive / "page.html").read_text().startswith("<!doctype html>")
    assert {name: data for name, data in files(drive).items() if name != "page.html"} == before
    assert check(str(drive), CheckOptions(html=drive.parent / "page.html")).frames == 1


def test_the_data_of_a_quantization_page_replaces_no_json_of_somebody(drive: Path) -> None:
    from imkd_edge.quantization.quantize import quantize

    before = files(drive)
    for page in ("frames.jsonl", "rig.html"):  # rig.html would bring a rig.json
        with pytest.raises(Error, match="E0702"):
            quantize("nosuch", str(drive), drive.parent / "b.int8.imkd", QuantizeOptions(html=drive / page))
    assert files(drive) == before


def test_results_replace_no_recording(run, drive: Path) -> None:
    shutil.copy(drive / "rig.json", drive / "cam.mp4")
    for name in ("frames.jsonl", "cam.mp4"):
        refused(run, drive, "run", "tiny", "--data", drive, "--save", drive / name)
    refused(run, drive, "run", "tiny", "--data", "synth", *SMALL, "--save", drive / "frames.jsonl")
    (drive / "cam.mp4").unlink()
    assert problems(drive) == []


def test_results_replace_older_results(run, drive: Path) -> None:
    lines = drive.parent / "boxes.jsonl"
    lines.touch()  # of a run that was stopped before its first frame
    for _ in range(2):
        assert run("run", "tiny", "--data", drive, "--save", lines).code == 0
        assert len(lines.read_text().splitlines()) == 1


def test_results_replace_no_recording_of_a_sensor(run, drive: Path) -> None:
    pytest.importorskip("foxglove")
    import foxglove

    other, ours = drive.parent / "other.mcap", drive.parent / "ours.mcap"
    with foxglove.open_mcap(other):
        foxglove.log("/radar", {"range": 3})
    (drive.parent / "broken.mcap").write_bytes(other.read_bytes()[:100])
    for name in ("other.mcap", "broken.mcap"):
        refused(run, drive.parent, "run", "tiny", "--data", drive, "--save", drive.parent / name)
    for _ in range(2):
        assert run("run", "tiny", "--data", drive, "--save", ours).code == 0


def test_a_collection_replaces_no_file_of_another_kind(drive: Path) -> None:
    from imkd_edge.calibration.collect import _open

    (drive / "state.npz").write_bytes(b"PK\x03\x04 breaks off")
    shutil.copy(next(drive.glob("radar/*/*.npy")), drive / "points.npz")
    before = files(drive)
    for name in ("frames.jsonl", "rig.json", "state.npz", "points.npz"):
        with pytest.raises(Error, match=r"E0702.*no collection"):
            _open(drive / name, "key", [])
    assert files(drive) == before and json.loads((drive / "rig.json").read_text())
