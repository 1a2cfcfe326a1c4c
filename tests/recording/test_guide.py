"""The guide's example runs, and what it lists is what is read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from imkd_edge.sources import open_source
from imkd_edge.sources.recording import CameraTopic, RadarTopic, TopicMap, images, protobuf, radar, ros
from imkd_edge.sources.recording.topic_map import read_map

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "recordings.md"
TEXT = GUIDE.read_text(encoding="utf-8")


def test_the_examples_run(tmp_path: Path) -> None:
    [block] = re.findall(r"<!-- test -->\n```bash\n(.*?)```", TEXT, re.S)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", block]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert run.returncode == 0, run.stderr
    assert "camera CAM_FRONT" in run.stdout and "6 frames" in run.stdout and "error[" not in run.stderr
    drive, folder = open_source(tmp_path / "drive.mcap"), open_source(tmp_path / "drive")
    assert drive.intensity == folder.intensity == "rcs_dbsm" and len(drive) == len(folder) == 6
    assert (tmp_path / "boxes.mcap").stat().st_size > 1000
    [block] = re.findall(r"<!-- test -->\n```python\n(.*?)```", TEXT, re.S)
    loop = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert loop.returncode == 0, loop.stderr
    lines = [line.split() for line in loop.stdout.splitlines()]
    times = [drive.moment(name)[1] for name in drive.names]
    assert [int(time) for time, _, _ in lines] == times[: len(lines)] and len(lines) >= 5
    assert all(mode == "full" and int(boxes) > 0 for _, mode, boxes in lines)


def test_the_map_of_the_guide_is_read(tmp_path: Path) -> None:
    [block] = re.findall(r"```toml\n(.*?)```", TEXT, re.S)
    (tmp_path / "drive.toml").write_text(block)
    found = read_map(tmp_path / "drive.toml")
    assert (found.interval, found.radars["radar_front"].sign, list(found.cameras)) == (0.5, -1, ["cam_front"])


@pytest.mark.parametrize("kind", [TopicMap, CameraTopic, RadarTopic])
def test_every_key_is_described(kind: type) -> None:
    keys = [each.name for each in fields(kind) if each.name not in ("cameras", "radars")]
    assert not [key for key in keys if f"`{key}`" not in TEXT]


def test_every_type_encoding_and_field_name_is_listed() -> None:
    kinds = [*ros.KINDS, *protobuf.KINDS]
    assert not [kind for kind in kinds if f"`{kind}`" not in TEXT]
    words = set(re.findall(r"\w+", TEXT))
    names = {*images.ENCODINGS, *radar.VELOCITY, *radar.COMPENSATED, *radar.COMPENSATED_VECTOR}
    names |= {name for aliases in radar.INTENSITIES.values() for name in aliases}
    names |= {*radar.RANGE, *radar.AZIMUTH, *radar.ELEVATION}
    assert names <= words
