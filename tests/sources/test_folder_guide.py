"""The guide's example runs and its folder has no problem."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from imkd_edge.sources.folder import problems
from imkd_edge.sources.folder.format import DATASET_KEYS, FRAME_KEYS, OBJECT_KEYS

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "drive-folder.md"


def test_the_example_runs(tmp_path: Path) -> None:
    [block] = re.findall(r"<!-- test -->\n```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)
    run = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    # The radar stands 3.6 m ahead: its first point lies at (23.6, 1.0, 0.5), in the forklift.
    assert run.stdout == "['forklift'] [1] (480, 640, 3)\n"
    assert problems(tmp_path / "yard") == []


def test_every_key_is_described() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert not [key for key in (*DATASET_KEYS, *FRAME_KEYS, *OBJECT_KEYS) if f"`{key}`" not in text]
