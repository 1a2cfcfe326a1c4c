"""imkd-edge run: a recording as if it were live."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SMALL = ("--option", "image=[240,135]", "--option", "scenes=1", "--option", "frames_per_scene=3", "--threads", "1")


def test_results_go_to_files_and_the_summary_to_standard_output(run, tmp_path: Path) -> None:
    lines, video = tmp_path / "boxes.jsonl", tmp_path / "boxes.mp4"
    outcome = run("run", "tiny", "--data", "synth", *SMALL, "--save", lines, "--save", video, "--json")
    summary = json.loads(outcome.stdout)
    assert outcome.code == 0 and summary["frames"] == 3 and summary["modes"] == {"full": 3}
    assert summary["infer_ms"]["p50"] > 0 and not summary["interrupted"]
    assert [json.loads(line)["frame"] for line in lines.read_text().splitlines()] == [f"s000-f00{i}" for i in range(3)]
    assert video.stat().st_size > 1000


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
    part = tmp_path / ".boxes.part.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (part.exists() and part.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    stdout, _ = process.communicate(timeout=60)
    summary = json.loads(stdout)
    assert process.returncode == 130 and summary["interrupted"]
    assert len(lines.read_text().splitlines()) in (summary["frames"], summary["frames"] + 1) and not part.exists()


def test_options_that_save_nothing_or_too_much_are_refused(run, tmp_path: Path) -> None:
    outcome = run("run", "tiny", "--data", "synth", "--sensors", "--save", tmp_path / "a.jsonl")
    assert outcome.code == 2 and "--save FILE.mcap" in outcome.stderr
    drive = tmp_path / "drive.mcap"
    assert run("run", "tiny", "--data", "synth", *SMALL, "--limit", 1, "--save", drive, "--sensors").code == 0
    content = drive.read_bytes()
    again = run("run", "tiny", "--data", drive, "--save", tmp_path / "." / "drive.mcap")
    assert again.code == 2 and "would replace the recording" in again.stderr
    assert drive.read_bytes() == content
