"""A pipe in the place of a file: it is refused as a directory is, and no reader waits for its other end."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sources.drive_folder import write_drive
from sources.kitti_folder import write_kitti

from imkd_edge.checks.data import check
from imkd_edge.errors import Error
from imkd_edge.sources import open_source
from imkd_edge.sources.convert import convert
from imkd_edge.sources.folder import problems

PATIENCE = 20  # s
OPENED = ["dataset.json", "rig.json", "frames.jsonl"]
NAMED = ["images/f0.png", "images/rear0.jpg", "radar/f0.npy", "radar/f1.csv", "radar/f2.pcd", "lidar/f0.npy"]


class Waits(BaseException):
    """A reader waits; no handler of errors takes it for one of the file's."""


@pytest.fixture(autouse=True)
def awake() -> Iterator[None]:
    """Fails a test that waits."""

    def fail(*_: Any) -> None:
        raise Waits

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def with_pipe(folder: Path, name: str) -> Path:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    return folder


def read_all(folder: Path) -> None:
    source = open_source(folder)
    assert source.splits
    for name in source.names:
        source[name]


@pytest.mark.parametrize("name", [*OPENED, *NAMED, "rigs/high.json", "splits/train.txt"])
def test_a_pipe_in_a_drive_folder_is_refused(name: str, tmp_path: Path) -> None:
    folder = with_pipe(write_drive(tmp_path / "drive"), name)
    with pytest.raises(Error, match=r"E0302.*pipe") as error:
        read_all(folder)
    assert error.value.where == str(folder / name)
    assert "E0302" in {f"E{int(problem.code):04d}" for problem in problems(folder)}
    assert check(str(folder)).status == "error"


@pytest.mark.parametrize("name", ["images/f0.png", "radar/f0.npy"])
def test_a_pipe_is_not_converted(name: str, tmp_path: Path) -> None:
    folder = with_pipe(write_drive(tmp_path / "drive"), name)
    with pytest.raises(Error, match=r"E0302.*pipe"):
        convert(str(folder), tmp_path / "copy")


@pytest.mark.parametrize(
    "name", ["training/image_2/000000.png", "training/calib/000000.txt", "training/velodyne/000000.bin"]
)
def test_a_pipe_in_a_data_set_is_refused(name: str, tmp_path: Path) -> None:
    folder = with_pipe(write_kitti(tmp_path / "kitti"), name)
    with pytest.raises(Error, match=r"E0302.*pipe"):
        read_all(folder)


def test_a_pipe_in_a_bag_is_refused(tmp_path: Path) -> None:
    for ending in (".mcap", ".db3"):
        bag = tmp_path / ending[1:]
        bag.mkdir()
        os.mkfifo(bag / f"bag_0{ending}")
        with pytest.raises(Error, match=r"E0302.*pipe"):
            open_source(bag)
        shutil.rmtree(bag)


def test_a_device_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    folder = write_drive(tmp_path / "drive")
    (folder / "frames.jsonl").unlink()
    (folder / "frames.jsonl").symlink_to("/dev/zero")
    with pytest.raises(Error, match=r"E0302.*device"):
        open_source(folder)
