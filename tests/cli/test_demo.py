"""demo: table, picture and record of one frame; an older result stays where the new one cannot be written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imkd_edge.cli.demo import run_demo
from imkd_edge.errors import Error
from imkd_edge.view import draw


def test_demo_writes_picture_and_record(run, random_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "demo" / "latest"
    outcome = run("demo", "--bundle", random_bundle, "--out", out, "--json")
    assert outcome.code == 0
    assert {path.name for path in out.iterdir()} == {"overview.png", "result.json"}
    assert json.loads((out / "result.json").read_text()) == outcome.json
    assert outcome.json["frame"].startswith("s007-"), "the default frame is of the validation split"


def test_demo_prints_a_table_and_the_pictures_path(run, random_bundle: Path, tmp_path: Path) -> None:
    outcome = run("demo", "--bundle", random_bundle, "--out", tmp_path / "latest")
    for word in ("class", "score", "dist. m", "heading", "speed", "preprocess", "bev", "health"):
        assert word in outcome.stdout
    assert str(tmp_path / "latest" / "overview.png") in outcome.stderr.replace("\n", "")


def test_second_demo_replaces_the_first_and_leaves_no_other_file(run, random_bundle: Path, tmp_path: Path) -> None:
    for frame in ("s000-f000", "s000-f001"):
        run("demo", "--bundle", random_bundle, "--frame", frame, "--out", tmp_path / "latest")
    assert [path.name for path in tmp_path.iterdir()] == ["latest"]
    assert json.loads((tmp_path / "latest" / "result.json").read_text())["frame"] == "s000-f001"


def test_full_disk_leaves_the_old_result(
    run, random_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("demo", "--bundle", random_bundle, "--out", tmp_path / "latest", "--frame")
    run(*arguments, "s000-f000")

    def write_half(path: Path, picture: object) -> None:
        path.write_bytes(b"half a pict")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(draw, "write_png", write_half)
    outcome = run(*arguments, "s000-f001")
    assert outcome.code == 3 and outcome.stderr.startswith("error[E0702]") and "No space left" in outcome.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["latest"]
    assert json.loads((tmp_path / "latest" / "result.json").read_text())["frame"] == "s000-f000"


def test_folder_below_a_file_is_an_error_of_writing(run, random_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = run("demo", "--bundle", random_bundle, "--out", tmp_path / "file" / "latest")
    assert outcome.code == 3 and outcome.stderr.startswith("error[E0702]")


@pytest.mark.parametrize("kind", ["file", "link to a file", "dangling link"])
def test_file_or_link_is_not_replaced(run, random_bundle: Path, tmp_path: Path, kind: str) -> None:
    thesis, out = tmp_path / "thesis", tmp_path / "latest"
    if kind != "dangling link":
        thesis.write_text("years of work")
    out.symlink_to(thesis) if "link" in kind else thesis.rename(out)
    before = sorted(tmp_path.iterdir())
    outcome = run("demo", "--bundle", random_bundle, "--out", out)
    assert outcome.code == 3 and outcome.stderr.startswith("error[E0702]") and "not a folder" in outcome.stderr
    assert sorted(tmp_path.iterdir()) == before and out.is_symlink() == ("link" in kind)
    assert kind == "dangling link" or out.read_text() == "years of work"


def test_unknown_theme_is_refused_before_writing(random_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(Error, match="no theme"):
        run_demo(str(random_bundle), "synth", None, tmp_path / "latest", theme="pink")
    assert not list(tmp_path.iterdir())
