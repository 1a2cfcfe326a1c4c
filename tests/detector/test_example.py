"""The C++ example prints the boxes of Python's Detector."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from imkd_edge import Detector
from imkd_edge.engines import engine_names, onnxruntime_library

ROOT = Path(__file__).resolve().parents[2]
DETECT = Path(os.environ.get("IMKD_DETECT", ROOT / "build" / "tests" / "cpp" / "examples" / "detect"))


@pytest.fixture
def frame(scene, tmp_path: Path) -> Path:
    for name, image in scene.frames.items():
        (tmp_path / f"{name}.ppm").write_bytes(b"P6\n%d %d\n255\n" % image.shape[1::-1] + image.tobytes())
    for name, points in scene.points.items():
        (tmp_path / f"{name}.bin").write_bytes(points.tobytes())
    (tmp_path / "rig.json").write_text(scene.rig.to_json())
    return tmp_path


def detect(bundle, frame: Path) -> subprocess.CompletedProcess:
    if "onnxruntime-native" not in engine_names():
        pytest.skip("the native engine was not built: the C++ example is NOT tested")
    if not DETECT.is_file():
        pytest.skip("the C++ example was not built: it is NOT tested")
    environment = {**os.environ, "IMKD_ORT_LIBRARY": str(onnxruntime_library())}
    command = [DETECT, bundle.path, frame / "rig.json", frame]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("absent", [None, "BEHIND.ppm", "FRONT.bin"])
def test_the_example_prints_the_boxes_of_python(bundle, scene, frame: Path, absent: str | None) -> None:
    if absent:
        (frame / absent).unlink()
        scene.frames.pop(absent[:-4], None)
        scene.points.pop(absent[:-4], None)
    run = detect(bundle, frame)
    assert run.returncode == 0, run.stderr
    *lines, last = run.stdout.splitlines()
    with Detector(bundle, scene.rig) as detector:
        result = detector.infer(scene.frames, scene.points)
    assert len(lines) == len(result.detections) > 0 and last.startswith(f"{len(lines)} boxes")
    for line, d in zip(lines, result.detections, strict=True):
        words = line.split()
        assert words[0] == d.label and float(words[1]) == pytest.approx(d.score, abs=6e-4)
        assert [float(word) for word in words[3:6]] == pytest.approx(d.center.tolist(), abs=6e-3)


def test_the_example_reports_a_truncated_image(bundle, frame: Path) -> None:
    (frame / "AHEAD.ppm").write_bytes((frame / "AHEAD.ppm").read_bytes()[:-1])
    run = detect(bundle, frame)
    assert run.returncode == 4 and run.stderr.startswith("error[E0303]") and "AHEAD" in run.stderr
