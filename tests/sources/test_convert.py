"""Every kind of source as a drive folder: a sample that is read from it is the source's own, to the bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sources.kitti_folder import write_kitti
from sources.nuscenes_folder import write_nuscenes
from sources.test_folder import check_same
from sources.vod_folder import write_vod

from imkd_edge.errors import Error
from imkd_edge.options import ConvertOptions
from imkd_edge.sources import Sample, Source, open_source
from imkd_edge.sources.convert import convert
from imkd_edge.sources.folder import problems

SYNTH = {"scenes": 1, "frames_per_scene": 2, "lidar": True}


def round_trip(source: Source, folder: Path) -> Source:
    """Converts a source and compares every frame."""
    convert(source, folder)
    copy = open_source(folder)
    assert problems(folder) == []
    assert copy.names == list(source.names)
    for name in source.names:
        check_same(source[name], copy[name])
    return copy


def test_the_synthetic_world(tmp_path: Path) -> None:
    source = open_source("synth", **SYNTH)
    copy = round_trip(source, tmp_path / "drive")
    assert copy.splits == {"train": source.names}
    assert copy.dataset.classes == source.classes and copy.dataset.interval == 0.5
    assert copy.instances(source.names[0]) == [str(track) for track in source.instances(source.names[0])]


def test_a_nuscenes_folder(tmp_path: Path) -> None:
    source = open_source(write_nuscenes(tmp_path / "nuscenes"))
    copy = round_trip(source, tmp_path / "drive")
    assert len({copy[name].rig.hash() for name in copy.names}) == 1
    for name in copy.names:
        poses, expected = copy[name].camera_T_world_ego, source[name].camera_T_world_ego
        assert poses.keys() == expected.keys() and all(
            np.array_equal(poses[camera], expected[camera]) for camera in poses
        )


def test_a_view_of_delft_folder(tmp_path: Path) -> None:
    source = open_source(write_vod(tmp_path / "vod"), scans=5)
    copy = round_trip(source, tmp_path / "drive")
    assert copy.splits == source.splits and not copy.labelled("02540")


def test_a_kitti_folder(tmp_path: Path) -> None:
    copy = round_trip(open_source(write_kitti(tmp_path / "kitti")), tmp_path / "drive")
    assert copy["000001"].radar == []


def test_a_drive_folder(tmp_path: Path) -> None:
    convert("synth", tmp_path / "one", source_options={**SYNTH, "frames_per_scene": 1})
    round_trip(open_source(tmp_path / "one"), tmp_path / "two")


def test_real_frames_of_astyx(shared_data: Path, tmp_path: Path) -> None:
    names = ["000000", "000205", "000283", "000468"]
    for kind in ("astyx", "astyx_original"):
        source = open_source(shared_data / kind).subset(names)
        copy = round_trip(source, tmp_path / kind)
        assert copy.dataset.intensity == "magnitude_db"
        original = shared_data / kind / "camera_front" / "000205.jpg"
        assert copy.image_files("000205")["camera_front"].read_bytes() == original.read_bytes()
        for name in names:  # counted with the same points
            np.testing.assert_array_equal(copy[name].truth.radar_points, source[name].truth.radar_points)
            np.testing.assert_array_equal(copy[name].truth.lidar_points, source[name].truth.lidar_points)


def test_the_real_key_frame_of_nuscenes(shared_data: Path, tmp_path: Path) -> None:
    round_trip(open_source(shared_data / "nuscenes" / "scene-0061_ca9a282c"), tmp_path / "drive")


@pytest.mark.parametrize("kind", ["synth", "nuscenes"])
def test_network_inputs_are_equal_to_the_bit(kind: str, tmp_path: Path) -> None:
    from helpers import random_spec
    from imkd_edge.training.inputs import network_inputs

    source = open_source("synth", **SYNTH) if kind == "synth" else open_source(write_nuscenes(tmp_path / "nuscenes"))
    convert(source, tmp_path / "drive")
    name = source.names[-1]
    ours, theirs = source[name], open_source(tmp_path / "drive")[name]
    spec = random_spec(len(ours.rig.cameras))
    expected, inputs = network_inputs(spec, ours), network_inputs(spec, theirs)
    assert expected.keys() == inputs.keys()
    for key, array in expected.items():
        assert array.tobytes() == inputs[key].tobytes(), key


# ---- which frames, and a second call ----
class Broken(Source):
    """The synthetic world, whose second frame cannot be read until it is mended."""

    kind, classes = "broken", ("car",)

    def __init__(self) -> None:
        self.source, self.mended = open_source("synth", scenes=1, frames_per_scene=3), False
        self.names = self.source.names
        self.reads: list[str] = []

    def __getitem__(self, name: str) -> Sample:
        self.reads.append(name)
        if name == self.names[1] and not self.mended:
            raise KeyboardInterrupt
        return self.source[name]


def test_a_second_call_continues(tmp_path: Path) -> None:
    source, folder = Broken(), tmp_path / "drive"
    # The world's other classes would be unknown labels: the class list is the source's.
    source.classes = source.source.classes
    with pytest.raises(KeyboardInterrupt):
        convert(source, folder)
    with pytest.raises(Error, match=r"E0302.*continues where it stopped"):
        open_source(folder)
    source.mended, source.reads = True, []
    assert convert(source, folder)["new"] == 2
    assert source.reads == source.names[1:]
    assert open_source(folder).names == source.names and problems(folder) == []
    assert convert(source, folder)["new"] == 0, "a complete folder is left as it is"


def test_another_recording_is_not_mixed_in(tmp_path: Path) -> None:
    folder = tmp_path / "drive"
    convert("synth", folder, ConvertOptions(limit=1), source_options={**SYNTH, "lidar": False})
    before = sorted((path, path.read_bytes()) for path in folder.rglob("*") if path.is_file())
    with pytest.raises(Error, match="E0702"):
        convert("synth", folder, source_options=SYNTH)
    assert before == sorted((path, path.read_bytes()) for path in folder.rglob("*") if path.is_file())


def test_an_unfinished_folder_of_another_source_is_refused(tmp_path: Path) -> None:
    source = Broken()
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "drive")
    with pytest.raises(Error, match=r"E0702.*another recording"):
        convert(write_kitti(tmp_path / "kitti").as_posix(), tmp_path / "drive")


def test_a_recording_with_as_many_frames_is_not_taken_for_the_one_that_is_there(tmp_path: Path) -> None:
    """Frames of recordings are numbers: those of two drives have the same names."""
    drives = [Broken(), Broken()]
    for number, drive in enumerate(drives):
        drive.mended, drive.classes, drive.path = True, drive.source.classes, f"{number}/drive.mcap"
    drives[0].moment = drives[0].source.moment
    drives[1].moment = lambda name: ("s000", drives[0].moment(name)[1] + 86_400_000_000_000)
    convert(drives[0], tmp_path / "drive")
    with pytest.raises(Error, match=r"E0702.*another recording \(begins_ns"):
        convert(drives[1], tmp_path / "drive")
    drives[0].path = "renamed.mcap"
    with pytest.raises(Error, match=r"E0702.*another recording \(name drive.mcap, and this is renamed.mcap"):
        convert(drives[0], tmp_path / "drive")


@pytest.mark.parametrize("complete", [False, True])
def test_other_options_of_the_reader_are_not_mixed_in(tmp_path: Path, complete: bool) -> None:
    """One scan and five have the same frames: nothing else tells the two drives apart."""
    vod, drive = str(write_vod(tmp_path / "vod")), tmp_path / "drive"
    convert(vod, drive, source_options={"scans": 1})
    if not complete:  # as an interrupted call leaves it
        lines = (drive / "frames.jsonl").read_text().splitlines(keepends=True)
        (drive / "frames.jsonl").unlink()
        (drive / "frames.jsonl.part").write_text("".join(lines[:2]))
    before = sorted((path, path.read_bytes()) for path in drive.rglob("*") if path.is_file())
    for options in ({"scans": 5}, None, {"scans": 1, "velocity": "raw"}):
        with pytest.raises(
            Error, match=r"E0702.*written with scans=1, and this is (scans=|no options).*the same --option"
        ):
            convert(vod, drive, source_options=options)
    assert before == sorted((path, path.read_bytes()) for path in drive.rglob("*") if path.is_file())
    assert convert(vod, drive, source_options={"scans": 1})["new"] == (0 if complete else len(lines) - 2)
    assert problems(drive) == [] and json.loads((drive / "convert.json").read_text())["options"] == {"scans": 1}


# ---- several as one ----
def test_several_drives_become_one_folder(tmp_path: Path) -> None:
    for seed in (3, 4):
        convert(f"synth:{seed}", tmp_path / str(seed) / "yard", source_options={**SYNTH, "lidar": False})
    parts = [tmp_path / str(seed) / "yard" for seed in (3, 4)]
    result = convert([str(part) for part in parts], tmp_path / "both")
    both = open_source(tmp_path / "both")
    assert problems(tmp_path / "both") == [] and result["frames"] == result["new"] == len(both.names) == 4
    assert sorted(both.scenes) == ["0-yard", "1-yard"] and both.splits == {"train": both.names}
    for name in both.names:
        number, inner = int(name[0]), name.removeprefix(f"{name[0]}-yard-")
        part = open_source(parts[number])
        check_same(replace(part[inner], name=name, scene=f"{number}-yard"), both[name])
        assert {path.suffix for path in both.image_files(name).values()} == {".png"}
        assert both.instances(name) == part.instances(inner)


def test_the_recordings_of_two_days_become_one_folder(tmp_path: Path) -> None:
    """Their frames are numbers, the same ones; each has a topic map beside it, or none."""
    from recording import ros
    from recording.scenes import events, synth

    days = {day: list(synth(frames=2, seed=seed)) for day, seed in (("monday", 1), ("tuesday", 2))}
    files = [ros.write_mcap(tmp_path / f"{day}.mcap", ros.messages(events(days[day]))) for day in days]
    with pytest.warns(UserWarning, match="no topic map"):
        convert(files, tmp_path / "both")
    both = open_source(tmp_path / "both")
    assert both.names == ["monday-000000", "monday-000001", "tuesday-000000", "tuesday-000001"]
    assert sorted(both.scenes) == list(days)
    expected = [sample for samples in days.values() for sample in samples]
    for name, sample in zip(both.names, expected, strict=True):
        for camera, image in sample.frames.items():
            np.testing.assert_array_equal(both[name].frames[camera.lower()], image)


def test_drives_with_intensities_of_two_units_are_not_one_folder(tmp_path: Path) -> None:
    convert("synth", tmp_path / "a", source_options=SYNTH)
    convert("synth", tmp_path / "b", source_options=SYNTH)
    dataset = json.loads((tmp_path / "b" / "dataset.json").read_text())
    (tmp_path / "b" / "dataset.json").write_text(json.dumps({**dataset, "intensity": "snr_db"}))
    with pytest.raises(Error, match=r"E0311.*intensity 'rcs_dbsm' \(a\) and 'snr_db' \(b\)"):
        convert([str(tmp_path / "a"), str(tmp_path / "b")], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_an_empty_list_of_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Error, match=r"E0301.*no source"):
        convert([], tmp_path / "drive")
    assert not (tmp_path / "drive").exists()


def test_a_file_in_the_place_of_the_folder_is_named_and_kept(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("of the drive")
    with pytest.raises(Error, match=r"E0702.*a file is in its place.*notes.*name a new folder"):
        convert("synth", tmp_path / "notes", source_options=SYNTH)
    assert (tmp_path / "notes").read_text() == "of the drive"


def test_a_split_and_a_limit_select(tmp_path: Path) -> None:
    folder = write_vod(tmp_path / "vod")
    result = convert(str(folder), tmp_path / "val", ConvertOptions(split="val"))
    assert result["frames"] == 2 and open_source(tmp_path / "val").names == ["00544", "00545"]
    assert json.loads((tmp_path / "val" / "dataset.json").read_text())["name"] == "vod"
    assert convert(str(folder), tmp_path / "one", ConvertOptions(limit=1))["frames"] == 1
