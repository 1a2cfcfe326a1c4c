"""imkd-edge run: a recording as if it were live."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SMALL = ("--option", "image=[240,135]", "--option", "scenes=1", "--option", "frames_per_scene=3", "--threads", "1")


def test_results_go_to_files_and_the_summary_to_standard_output(run, tmp_path: Path) -> None:
    lines, video = tmp_path / "boxes.jsonl", tmp_path / "boxes.mp4"
    outcome = run("run", "tiny", "--data", "synth", *SMALL, "--save", lines, "--save", video, "--json")
    summary = json.loads(outcome.stdout)
    assert outcome.code == 0 and summary["frames"] == 3 and summary["modes"] == {"full": 3}
    assert summary["infer_ms"]["p50"] > 0 and not summary["interrupted"]
    assert [json.loads(line)["frame"] for line in lines.read_text().splitlines()] == [f"s000-f00{i}" for i in range(3)]
    assert video.stat().st_size > 1000


def test_the_lines_have_tracks_and_the_summary_counts_them(run, tmp_path: Path) -> None:
    lines = tmp_path / "boxes.jsonl"
    outcome = run("run", "tiny", "--data", "synth", *SMALL, "--save", lines)
    frames = [json.loads(line) for line in lines.read_text().splitlines()]
    for frame in frames:
        ids = [track["id"] for track in frame["tracks"]]
        assert ids == sorted(set(ids)) and ids
        detected = [track for track in frame["tracks"] if track["detection"] is not None]
        assert len({track["detection"] for track in detected}) == len(detected) > 0
        for track in detected:
            box = frame["detections"][track["detection"]]
            assert track["label"] == box["label"] and math.dist(track["center"], box["center"]) < 2
    first, last = ({track["id"] for track in frame["tracks"]} for frame in (frames[0], frames[-1]))
    assert len(first & last) >= 3
    confirmed = sum(track["state"] in ("confirmed", "coasting") for track in frames[-1]["tracks"])
    assert outcome.code == 0 and f" | {confirmed} tracks" in outcome.stdout and confirmed > 0


def test_without_tracks_nothing_speaks_of_them(run, tmp_path: Path) -> None:
    lines = tmp_path / "boxes.jsonl"
    outcome = run("run", "tiny", "--data", "synth", *SMALL, "--no-track", "--save", lines, "--json")
    assert outcome.code == 0 and "tracks" not in json.loads(outcome.stdout)
    assert all("tracks" not in json.loads(line) for line in lines.read_text().splitlines())
    assert "tracks" not in run("run", "tiny", "--data", "synth", *SMALL, "--limit", 1, "--no-track").stdout


def test_the_summary_is_a_line_for_people(run) -> None:
    outcome = run("run", "tiny", "--data", "synth", *SMALL, "--limit", 1, "--rate", "real")
    assert outcome.code == 0 and outcome.stdout.startswith("1 frames | ") and "latency p50" in outcome.stdout


def test_another_pace_is_refused(run) -> None:
    outcome = run("run", "tiny", "--data", "synth", "--rate", "fast")
    assert outcome.code == 2 and "max, real" in outcome.stderr


def test_a_terminated_loop_completes_its_files_and_prints_its_summary(tmp_path: Path) -> None:
    lines = tmp_path / "boxes.jsonl"
    command = [sys.executable, "-m", "imkd_edge.cli", "run", "tiny", "--data", "synth", "--json", "--save", lines]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, env=dict(os.environ), text=True)
    part = tmp_path / f".boxes.{process.pid}.part.jsonl"
    deadline = time.monotonic() + 120
    while not part.exists() or part.read_text().count("\n") < 2:  # of one frame the signal may leave no file
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    stdout, _ = process.communicate(timeout=60)
    summary = json.loads(stdout)
    assert process.returncode == 130 and summary["interrupted"]
    written = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(written) in (summary["frames"], summary["frames"] + 1) and not part.exists()


def test_options_that_save_nothing_or_too_much_are_refused(run, tmp_path: Path) -> None:
    outcome = run("run", "tiny", "--data", "synth", "--sensors", "--save", tmp_path / "a.jsonl")
    assert outcome.code == 2 and "--save FILE.mcap" in outcome.stderr
    drive = tmp_path / "drive.mcap"
    assert run("run", "tiny", "--data", "synth", *SMALL, "--limit", 1, "--save", drive, "--sensors").code == 0
    content = drive.read_bytes()
    again = run("run", "tiny", "--data", drive, "--save", tmp_path / "." / "drive.mcap")
    assert again.code == 2 and "would replace the recording" in again.stderr
    assert drive.read_bytes() == content


def test_sensors_that_were_not_ok_are_counted_and_named(run, tmp_path: Path) -> None:
    """A camera 45 ms off the frame belongs to it, one 60 ms off does not unless --tolerance says so."""
    folder = tmp_path / "drive"
    assert run("convert", "synth", "--to", folder, "--limit", 2).code == 0
    lines = [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]
    for line in lines:
        line["cameras"]["CAM_BACK"]["timestamp_ns"] = line["timestamp_ns"] + 45_000_000
        line["cameras"]["CAM_FRONT_LEFT"]["timestamp_ns"] = line["timestamp_ns"] + 60_000_000
    (folder / "frames.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = run("run", "tiny", "--data", folder)
    assert "CAM_FRONT_LEFT missing 2" in outcome.stdout and "CAM_BACK" not in outcome.stdout
    faults = run("run", "tiny", "--data", folder, "--tolerance", 0.07, "--json").json["faults"]
    assert faults == {"CAM_FRONT_LEFT late": 2}  # used, though it is of another moment


def test_times_beyond_those_of_an_mcap_file_are_an_error(run, tmp_path: Path) -> None:
    """Its messages have 32 bits for the seconds: until 2106."""
    folder = tmp_path / "drive"
    assert run("convert", "synth", "--to", folder, "--limit", 1).code == 0
    line = json.loads((folder / "frames.jsonl").read_text())
    (folder / "frames.jsonl").write_text(json.dumps(shift(line, 2**32 * 10**9)) + "\n")
    assert run("run", "tiny", "--data", folder, "--json").json["frames"] == 1
    outcome = run("run", "tiny", "--data", folder, "--save", tmp_path / "a.mcap")
    assert outcome.code == 3 and "E0702" in outcome.stderr and not list(tmp_path.glob("*.mcap"))


def shift(value: Any, by: int) -> Any:
    """The line with every timestamp_ns later."""
    if isinstance(value, dict):
        return {key: item + by if key == "timestamp_ns" else shift(item, by) for key, item in value.items()}
    return [shift(item, by) for item in value] if isinstance(value, list) else value
