"""Every verb on a recording: inspect writes its topic map, infer, convert and eval read it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Once
from recording import ros
from recording.scenes import events, full_synth, synth

from imkd_edge.sources import open_source

pytestmark = pytest.mark.filterwarnings("ignore:.*no topic map.*")


@pytest.fixture(scope="session")
def drive(once: Once) -> Path:
    """Two frames of the default rig."""

    def make(path: Path) -> None:
        ros.write_mcap(path / "drive.mcap", ros.messages(events(list(full_synth(2)))))

    return once("recording", make) / "drive.mcap"


def test_infer_on_a_recording_equals_infer_on_its_source(run, drive: Path) -> None:
    """The shipped network sees the same; its boxes differ by the order of the cameras in float sums only."""
    ours = run("infer", drive, "--bundle", "tiny", "--json", "--threads", "1")
    options = ("--option", "scenes=1", "--option", "frames_per_scene=2", "--option", "speed=8")
    theirs = run("infer", "synth", *options, "--bundle", "tiny", "--json", "--threads", "1")
    assert ours.code == theirs.code == 0, ours.stderr
    assert [len(line["detections"]) for line in ours.lines] == [len(line["detections"]) for line in theirs.lines]
    for mine, other in zip(ours.lines, theirs.lines):
        assert mine["timestamp_ns"] == other["timestamp_ns"] and mine["health"]["mode"] == "full"
        rows = [
            sorted([entry["label"], *entry["center"], *entry["size"], entry["score"]] for entry in line["detections"])
            for line in (mine, other)
        ]
        assert [row[0] for row in rows[0]] == [row[0] for row in rows[1]] and rows[0]
        np.testing.assert_allclose([row[1:] for row in rows[0]], [row[1:] for row in rows[1]], atol=2e-3)


def test_run_on_a_recording_detects_in_every_frame(run, drive: Path, tmp_path: Path) -> None:
    """Through Synchronizer and Detector; the boxes of the first frame are those of infer."""
    lines = tmp_path / "boxes.jsonl"
    for rate in ("max", "real"):
        outcome = run("run", "tiny", "--data", drive, "--rate", rate, "--save", lines, "--json", "--threads", "1")
        assert outcome.code == 0, outcome.stderr
        assert (outcome.json["frames"], outcome.json["modes"]) == (2, {"full": 2})
        live = [json.loads(line) for line in lines.read_text().splitlines()]
        stored = run("infer", drive, "--bundle", "tiny", "--json", "--threads", "1").lines
        assert [line["timestamp_ns"] for line in live] == [line["timestamp_ns"] for line in stored]
        first = [(each["label"], each["center"]) for each in live[0]["detections"]]
        assert first == [(each["label"], each["center"]) for each in stored[0]["detections"]] != []


def test_eval_on_a_recording_says_that_it_has_no_labels(run, drive: Path) -> None:
    outcome = run("eval", "tiny", "--data", drive, "--split", "all")
    assert outcome.code == 2 and outcome.stderr.count("error[") == 1 and "label" in outcome.stderr


def test_inspect_prints_topics_kinds_rates_and_fields(run, drive: Path) -> None:
    outcome = run("inspect", drive)
    assert outcome.code == 0
    for part in ("/radar_front/detections", "range_rate", "13.33", "camera cam_front", "base_link", "480 x 270 bgr8"):
        assert part in outcome.text, part
    assert "--map" in outcome.stderr
    content = run("inspect", drive, "--json").json
    topics = {row["topic"]: row for row in content["topics"]}
    assert topics["/cam_front/image_raw"]["messages"] == 2 and topics["/cam_front/image_raw"]["rate_hz"] == 2
    assert topics["/odometry"]["use"] == "odometry" and topics["/tf_static"]["use"] == "transforms"
    assert content["damage"] is None and "base_link" in content["frames"]


@pytest.mark.parametrize("name", ["nothere.mcap", "nothere.db3"])
def test_a_recording_that_is_not_there_is_not_taken_for_a_bundle(run, name: str) -> None:
    outcome = run("inspect", name)
    assert outcome.code == 2 and name in outcome.stderr and "correct the path" in outcome.stderr


def test_inspect_writes_a_map_that_is_read_with_the_recording(run, drive: Path, tmp_path: Path) -> None:
    file = tmp_path / "drive.toml"
    outcome = run("inspect", drive, "--map", file)
    assert outcome.code == 0 and f"wrote {file}" in outcome.stderr
    source = open_source(drive, map=file)
    guessed = open_source(drive)
    assert source.topic_map == guessed.topic_map
    again = run("inspect", drive, "--map", file)
    assert again.code == 3 and again.stderr.startswith("error[E0702]") and "the file exists" in again.stderr
    refused = run("inspect", "tiny", "--map", tmp_path / "other.toml")
    assert refused.code == 2 and "no MCAP file" in refused.stderr


def test_convert_writes_a_drive_folder_with_the_same_frames(run, tmp_path: Path) -> None:
    path = ros.write_bag(tmp_path / "bag", ros.messages(events(list(synth(frames=3)))))
    outcome = run("convert", path, "--to", tmp_path / "folder", "--option", "interval=1.0", "--json")
    assert outcome.code == 0, outcome.stderr
    assert (outcome.json["source"], outcome.json["frames"]) == ("recording", 2)
    ours, theirs = open_source(tmp_path / "folder"), open_source(path, interval=1.0)
    assert ours.intensity == "rcs_dbsm"
    for name in ours.names:
        a, b = ours[name], theirs[name]
        assert a.rig == b.rig and a.timestamp_ns == b.timestamp_ns and set(a.frames) == set(b.frames)
        for camera in a.frames:
            np.testing.assert_array_equal(a.frames[camera], b.frames[camera])
        for sweep, other in zip(a.radar, b.radar):
            np.testing.assert_array_equal(sweep.points, other.points)
            np.testing.assert_allclose(sweep.T_world_ego, other.T_world_ego, atol=1e-12)


def test_an_error_of_a_map_is_one_line(run, drive: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    for text, code, part in (
        ("[cameras.a", "E0308", "not valid TOML"),
        ("[cameras.a]\nfoo = 1\n", "E0309", "cameras.a.foo"),
        ("[cameras.a]\ninfo = 'x'\n", "E0310", "cameras.a.topic"),
        ("[radars.a]\ntopic = '/x'\nvelocity = 'fast'\n", "E0311", "raw, compensated, aliased"),
        ("[radars.a]\ntopic = '/x'\n", "E0311", "/radar_front/detections"),
        ("clock = 3\n[radars.a]\ntopic = '/x'\n", "E0311", "clock"),
        ("ground_plane = [1, 2]\n[radars.a]\ntopic = '/x'\n", "E0311", "3 numbers"),
        ("", "E0310", "no camera and no radar"),
    ):
        file.write_text(text)
        outcome = run("infer", drive, "--option", f"map={file}")
        assert outcome.code == 2 and outcome.stderr.startswith(f"error[{code}]") and part in outcome.stderr, text


@pytest.mark.parametrize("module", ["mcap", "rosbags"])
def test_a_missing_extra_names_the_pip_command(run, drive: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    for verb in (("inspect",), ("infer",)):
        outcome = run(*verb, drive)
        assert outcome.code == 3 and outcome.stderr.startswith("error[E0701]"), outcome.stderr
        assert module in outcome.stderr and 'pip install "imkd-edge[recordings]"' in outcome.stderr


def test_a_recording_without_sensors_says_what_it_has(run, tmp_path: Path) -> None:
    stored = [item for item in ros.messages(events(list(synth(frames=1)))) if item[0] == "/odometry"]
    path = ros.write_mcap(tmp_path / "drive.mcap", stored)
    outcome = run("infer", path)
    assert outcome.code == 2 and "no topic is of a camera or a radar" in outcome.stderr
    assert "/odometry" in outcome.stderr
    assert json.loads(run("inspect", path, "--json").stdout)["map"] is None
