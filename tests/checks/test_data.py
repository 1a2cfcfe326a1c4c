"""imkd-edge check: nothing is found in a drive without faults, and each fault by its name in a folder that has it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from checks.drive_faults import FAULTS, Fault, late, scale, stretch
from checks.faulty_drives import (
    FRAMES,
    SCENES,
    in_first,
    in_lines,
    in_points,
    kind,
    lines_of,
    write_drive,
)
from conftest import Once
from sources.drive_folder import write_drive as write_small_drive

from imkd_edge.checks.data import Finding, Report, check
from imkd_edge.checks.data.velocity import fit_share
from imkd_edge.options import CheckOptions
from imkd_edge.sources import open_source
from imkd_edge.sources.folder import problems


@pytest.fixture
def drives(once: Once) -> Path:
    """Drives without a fault, by the kind of their radars' velocities."""

    def make(folder: Path) -> None:
        write_drive(folder / "compensated")
        write_drive(folder / "raw", "raw")
        write_drive(folder / "aliased", "aliased", 7.0)

    return once("drives-without-fault", make)


def found(report: Report, code: str, topic: str) -> list[Finding]:
    return [finding for finding in report.findings if (finding.code, finding.topic) == (code, topic)]


@pytest.mark.parametrize("velocity", ["compensated", "raw", "aliased"])
def test_nothing_is_found_in_a_drive_without_faults(drives: Path, velocity: str) -> None:
    report = check(str(drives / velocity))
    assert report.findings == () and report.status == "ok"
    assert (report.frames, report.read, report.scenes) == (SCENES * FRAMES, SCENES * FRAMES, SCENES)
    shares = [radar["ego_motion_share"] for radar in report.radars.values()]
    assert shares == pytest.approx([0.0 if velocity == "compensated" else 1.0] * 2, abs=0.03)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found(drives: Path, tmp_path: Path, fault: Fault) -> None:
    folder = tmp_path / "drive"
    shutil.copytree(drives / fault.drive, folder)
    fault.change(folder)
    assert not [problem for problem in problems(folder) if problem.code.name != "source_duplicate"]
    report = check(str(folder))
    findings = found(report, fault.code, fault.topic)
    assert findings, report.findings
    assert any(fault.what in finding.what and fault.fix in finding.fix for finding in findings), findings
    assert report.status == "error" or fault.code.startswith("W")
    unexpected = {finding.topic for finding in report.findings} - {fault.topic, *fault.others}
    assert not unexpected, report.findings


def test_all_faults_of_a_folder_are_listed_in_one_go(drives: Path, tmp_path: Path) -> None:
    folder = tmp_path / "drive"
    shutil.copytree(drives / "compensated", folder)
    kind("raw")(folder)
    in_points(scale(3, 1, 60))(folder)
    in_first("pedestrian", stretch)(folder)
    in_lines(late)(folder)
    topics = {finding.topic for finding in check(str(folder)).findings}
    assert topics == {"velocity kind", "intensity", "sizes", "time offset"}


def test_defects_of_the_format_are_listed_with_what_could_be_counted(tmp_path: Path) -> None:
    folder = write_small_drive(tmp_path / "drive")
    (folder / "images/f0.png").write_bytes(b"")
    (folder / "radar/f2.pcd").unlink()
    (folder / "splits/val.txt").write_text("f2\nnobody\n")
    entries = (folder / "frames.jsonl").read_text().replace('"label": "car"', '"label": "horse"')
    (folder / "frames.jsonl").write_text(entries)
    report = check(str(folder))
    expected = [(p.error().code, p.what, p.where) for p in problems(folder)]
    assert len(expected) == 4
    assert [(f.code, f.what, f.where) for f in report.findings if f.topic == "format"] == expected
    assert report.status == "error" and report.counted == 3 and report.labelled == 2
    assert report.sensors["front"]["frames"] == 3


def test_a_label_that_is_no_class_is_one_finding(tmp_path: Path) -> None:
    folder = write_small_drive(tmp_path / "drive")
    lines = [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]
    for entry in lines:
        entry["objects"] = [{"label": "Car", "center": [9, 0, 1], "size": [4, 2, 1.5], "yaw": 0.0}] * 3
    (folder / "frames.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    (finding,) = [finding for finding in check(str(folder)).findings if "no class" in finding.what]
    assert "'Car'" in finding.what and "(9 objects)" in finding.what


def test_a_folder_that_does_not_open_is_reported_and_not_raised(tmp_path: Path) -> None:
    folder = write_small_drive(tmp_path / "drive")
    (folder / "rig.json").write_text("{")
    report = check(str(folder))
    assert report.read == 0 and report.counted == 3 and "E0211" in {finding.code for finding in report.findings}
    assert "mend the errors" in report.read_text()


def test_the_rig_is_judged_in_a_folder_whose_lines_are_broken(tmp_path: Path) -> None:
    folder = write_small_drive(tmp_path / "drive")
    rig = json.loads((folder / "rig.json").read_text())
    rig["cameras"][0]["T_ego_camera"][0][3] = 1500
    (folder / "rig.json").write_text(json.dumps(rig))
    (folder / "frames.jsonl").write_text(
        (folder / "frames.jsonl").read_text().replace('"timestamp_ns": 1', '"time": 1')
    )
    report = check(str(folder))
    where = {(finding.topic, finding.where) for finding in report.findings if finding.is_error}
    assert report.read == 0 and ("rig", "rig.json") in where and "format" in {topic for topic, _ in where}


def test_counts_are_those_of_the_lines(drives: Path) -> None:
    entries = lines_of(drives / "compensated")
    report = check(str(drives / "compensated"), CheckOptions(limit=4))
    assert report.read == 4 and report.counted == len(entries)
    labels = [item["label"] for entry in entries for item in entry["objects"]]
    assert {name: entry["objects"] for name, entry in report.classes.items()} == {
        name: labels.count(name) for name in set(labels)
    }
    assert report.splits["all"]["objects"] == {name: labels.count(name) for name in set(labels)}
    assert report.splits["train"]["frames"] == len(entries)


def test_any_source_is_checked() -> None:
    source = open_source("synth", scenes=1, frames_per_scene=2, image=(96, 54))
    report = check(source)
    assert (report.kind, report.frames, report.read, report.status) == ("synth", 2, 2, "ok")


@pytest.mark.parametrize("share", [-1.0, 0.0, 1.0, 2.0, 3.6])
def test_the_share_of_the_ego_motion_is_that_of_the_static_returns(share: float) -> None:
    """60 % of the returns stand, the others move at up to 15 m/s."""
    random = np.random.default_rng(3)
    expected = random.uniform(2, 12, 3000) * random.choice([-1, 1], 3000)
    measured = -share * expected + random.normal(0, 0.1, 3000)
    measured[:1200] += random.uniform(-15, 15, 1200)
    fit = fit_share(measured, expected)
    assert fit is not None and fit.share == pytest.approx(share, abs=0.02)


def test_returns_without_a_common_motion_have_no_share() -> None:
    random = np.random.default_rng(4)
    assert fit_share(random.uniform(-30, 30, 2000), random.uniform(2, 12, 2000)) is None
    assert fit_share(np.zeros(20), np.full(20, 5.0)) is None
