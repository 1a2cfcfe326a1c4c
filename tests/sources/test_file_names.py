"""Files of frames whose names are no names of files: each frame keeps its own, whatever the others are called."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sources.drive_folder import STEP_NS, image, write_drive

from imkd_edge.frames import RadarSweep
from imkd_edge.rig import SensorRig
from imkd_edge.sources import Sample, open_source
from imkd_edge.sources.files import file_name
from imkd_edge.sources.folder import FolderWriter, problems

HARD = ["000001", "ü", "ö", "_", ".", "..", "...", "a/b", "a_b", "a b", "../a", "f", "f.1", "f~1", "x" * 300, "\ud800"]


@pytest.fixture
def first(tmp_path: Path) -> Sample:
    return open_source(write_drive(tmp_path / "drive"))["f0"]


def written(first: Sample, names: list[str], folder: Path) -> None:
    """Checks that frames whose points and images tell them apart are read as they were written."""
    samples = []
    for i, name in enumerate(names):
        time = first.timestamp_ns + i * STEP_NS
        sweeps = [RadarSweep("radar front", np.full((1, 5), 10 * i + k, np.float32), time + k) for k in range(3)]
        own = {"frames": {"front": image(i)}, "radar": sweeps, "lidar": sweeps[0].points[:, :4]}
        samples.append(replace(first, name=name, timestamp_ns=time, camera_timestamps_ns={}, **own))
    for some in (samples[: len(samples) // 2], samples[len(samples) // 2 :]):  # interrupted, then continued
        with FolderWriter(folder) as writer:
            for sample in some:
                writer.add(sample)
    with FolderWriter(folder) as writer:
        writer.finish()
    copy = open_source(folder)
    assert problems(folder) == []
    for sample in samples:
        read = copy[sample.name]
        np.testing.assert_array_equal(read.frames["front"], sample.frames["front"])
        np.testing.assert_array_equal(read.lidar, sample.lidar)
        assert [sweep.points[0, 0] for sweep in read.radar] == [sweep.points[0, 0] for sweep in sample.radar]


def test_no_two_frames_of_a_drive_folder_share_a_file(first: Sample, tmp_path: Path) -> None:
    written(first, [name for name in HARD if name.isprintable()], tmp_path / "copy")
    assert {path.name for path in tmp_path.iterdir()} == {"drive", "copy"}


def test_no_two_sensors_of_a_drive_folder_share_a_file(first: Sample, tmp_path: Path) -> None:
    rig = SensorRig.from_json(first.rig.to_json().replace('"front"', '"ü"').replace('"rear"', '"00"'))
    content = json.loads(rig.to_json())
    names = ["01", "é", "ö"]
    content["radars"] = [{**content["radars"][0], "name": name} for name in names]
    rig = SensorRig.from_json(json.dumps(content))
    sweeps = [RadarSweep(name, np.full((1, 5), i, np.float32), first.timestamp_ns) for i, name in enumerate(names)]
    frames = {"ü": image(1), "00": image(2)}
    with FolderWriter(tmp_path / "copy") as writer:
        writer.add(replace(first, rig=rig, frames=frames, radar=sweeps, camera_timestamps_ns={}))
        writer.finish()
    read = open_source(tmp_path / "copy")["f0"]
    for camera, pixels in frames.items():
        np.testing.assert_array_equal(read.frames[camera], pixels)
    assert {sweep.radar: sweep.points[0, 0] for sweep in read.radar} == {"01": 0, "é": 1, "ö": 2}


def test_every_name_has_a_file_name_of_its_own() -> None:
    names = [file_name(name) for name in HARD]
    assert len(set(names)) == len(HARD)
    for name in names:
        assert "/" not in name and not name.startswith(".") and 0 < len(name.encode()) < 200


def test_an_ordinary_name_stays_and_another_one_stays_readable() -> None:
    for name in ("000001", "s000-f001", "1700000000.5", "n015-2018_CAM+1"):
        assert file_name(name) == name
    assert file_name("hall 3/f1").startswith("hall_3_f1~")
