"""Who may write a drive folder: one process at a time, and none where somebody's files are."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sources.drive_folder import write_drive

from imkd_edge.errors import Error
from imkd_edge.sources import open_source
from imkd_edge.sources.convert import convert
from imkd_edge.sources.folder import FolderWriter, problems


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    return write_drive(tmp_path / "drive")


def test_two_writers_of_one_folder_exclude_each_other(drive: Path, tmp_path: Path) -> None:
    source = open_source(drive)
    with FolderWriter(tmp_path / "copy") as writer:
        writer.add(source["f0"])
        with pytest.raises(Error, match=r"E0702.*another process writes"):
            FolderWriter(tmp_path / "copy")
        with pytest.raises(Error, match=r"E0702.*another process writes"):
            convert(source, tmp_path / "copy")
    with FolderWriter(tmp_path / "copy") as writer:  # the first is closed
        assert list(writer.names) == ["f0"]
        writer.finish()
        with pytest.raises(Error, match=r"E0702.*complete already"):
            FolderWriter(tmp_path / "copy")


def test_the_folder_of_a_process_that_was_killed_is_continued(drive: Path, tmp_path: Path) -> None:
    code = "import sys, time; from imkd_edge.sources.folder import FolderWriter; w = FolderWriter(sys.argv[1]); "
    code += "print('ready', flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "copy"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        with pytest.raises(Error, match=r"E0702.*another process writes"):
            FolderWriter(tmp_path / "copy")
    finally:
        process.kill()
        process.communicate()
    with FolderWriter(tmp_path / "copy") as writer:
        writer.finish()


@pytest.mark.parametrize("name", ["rig.json", "dataset.json", "notes.json"])
def test_a_folder_with_a_file_of_somebody_is_not_written(name: str, drive: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text('{"mine": 1}')
    with pytest.raises(Error, match=r"E0702.*not empty"):
        convert(str(drive), tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == [name]
    assert (tmp_path / "mine" / name).read_text() == '{"mine": 1}'


@pytest.mark.parametrize("kept", [[], ["dataset.json"], ["dataset.json", "convert.json"]])
def test_a_writer_that_was_killed_before_its_first_line_is_continued(
    kept: list[str], drive: Path, tmp_path: Path
) -> None:
    convert(str(drive), tmp_path / "whole")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "frames.jsonl.part").touch()
    for name in kept:
        shutil.copy(tmp_path / "whole" / name, tmp_path / "killed")
    convert(str(drive), tmp_path / "killed")
    assert problems(tmp_path / "killed") == []
