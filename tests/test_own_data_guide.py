"""The tutorial: its commands run one after another, and a detector of forklifts and pallets comes out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from conftest import NO_BUNDLE

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "guide" / "own-data.md"
BLOCK = re.compile(r"<!-- test(?P<note>[^>]*?)-->\n```(?P<language>\w+)\n(?P<text>.*?)```", re.S)


def blocks(language: str) -> list[tuple[str, str]]:
    """Note and text of the guide's marked blocks of a language."""
    found = BLOCK.finditer(GUIDE.read_text(encoding="utf-8"))
    return [(block["note"].strip(": "), block["text"]) for block in found if block["language"] == language]


def commands() -> list[str]:
    return [line for _, text in blocks("bash") for line in text.splitlines() if line]


def execute(command: str, folder: Path) -> str:
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    start = time.perf_counter()
    run = subprocess.run(
        ["bash", "-c", command], cwd=folder, env={**os.environ, "PATH": paths}, capture_output=True, text=True
    )
    print(f"{time.perf_counter() - start:6.1f} s  {command}")
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_verbs_come_in_the_order_of_the_work() -> None:
    verbs = [command.split()[1] for command in commands()]
    assert verbs == ["convert", "check", "init", "train", "eval", "export", "quantize", "eval", "infer"]


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#:]+)", GUIDE.read_text(encoding="utf-8"))
    assert targets and not [target for target in targets if not (GUIDE.parent / target).exists()]


@pytest.mark.slow
def test_a_detector_of_forklifts_and_pallets_comes_out(tmp_path: Path) -> None:
    from imkd_edge.bundle import shipped

    if "tiny" not in shipped():
        pytest.skip(f"{NO_BUNDLE}: tiny is not shipped with this tree")
    for name, text in blocks("json"):
        (tmp_path / name).write_text(text)
    for command in commands():
        execute(command, tmp_path)

    report = json.loads(execute("imkd-edge eval runs/yard.int8.imkd --data drives/yard --json", tmp_path))
    assert set(report["classes"]) == {"forklift", "pallet"}
    assert report["metrics"]["mAP"] > 0.4  # an untrained model has 0, tiny itself knows neither class
    pictures = list((tmp_path / "runs/pictures").rglob("overview.png"))
    assert len(pictures) == 1 and cv2.imread(str(pictures[0])).std() > 20
    assert list((tmp_path / "runs/yard/validation").rglob("*.png"))
