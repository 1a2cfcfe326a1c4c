"""The C++ examples print the boxes of Python's Detector."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from imkd_edge import Detector, RadarSweep
from imkd_edge.engines import engine_names, onnxruntime_library

ROOT = Path(__file__).resolve().parents[2]
DETECT = Path(os.environ.get("IMKD_DETECT", ROOT / "build" / "tests" / "cpp" / "examples" / "detect"))
STREAM = DETECT.with_name("stream")


@pytest.fixture
def frame(scene, tmp_path: Path) -> Path:
    for name, image in scene.frames.items():
        (tmp_path / f"{name}.ppm").write_bytes(b"P6\n%d %d\n255\n" % image.shape[1::-1] + image.tobytes())
    for name, points in scene.points.items():
        (tmp_path / f"{name}.bin").write_bytes(points.tobytes())
    (tmp_path / "rig.json").write_text(scene.rig.to_json())
    return tmp_path


def detect(bundle, frame: Path) -> subprocess.CompletedProcess:
    return example(DETECT, bundle.path, frame / "rig.json", frame)


def example(program: Path, *arguments: Path) -> subprocess.CompletedProcess:
    if "onnxruntime-native" not in engine_names():
        pytest.skip("the native engine was not built: the C++ example is NOT tested")
    if not program.is_file():
        pytest.skip("the C++ example was not built: it is NOT tested")
    environment = {**os.environ, "IMKD_ORT_LIBRARY": str(onnxruntime_library())}
    return subprocess.run([program, *arguments], capture_output=True, text=True, env=environment)


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
    assert last.endswith(f", mode {result.health.mode}")
    for line, d in zip(lines, result.detections, strict=True):
        words = line.split()
        assert words[0] == d.label and float(words[1]) == pytest.approx(d.score, abs=6e-4)
        assert [float(word) for word in words[3:6]] == pytest.approx(d.center.tolist(), abs=6e-3)


def test_the_example_reports_a_truncated_image(bundle, frame: Path) -> None:
    (frame / "AHEAD.ppm").write_bytes((frame / "AHEAD.ppm").read_bytes()[:-1])
    run = detect(bundle, frame)
    assert run.returncode == 4 and run.stderr.startswith("error[E0303]") and "AHEAD" in run.stderr


def test_the_example_exits_with_1_where_a_folder_has_no_frame(bundle, frame: Path) -> None:
    empty = frame / "empty"
    empty.mkdir()
    run = example(DETECT, bundle.path, frame / "rig.json", empty)
    assert run.returncode == 1 and run.stdout == "" and "empty has no CAMERA.ppm" in run.stderr


PERIOD = 100_000_000  # ns


def write_drive(folder: Path, scenes: list, absent: set[tuple[int, str]]) -> None:
    """One item a file; (frame, sensor) in `absent` has none."""
    for frame, scene in enumerate(scenes):
        time = scene.timestamp_ns + frame * PERIOD
        items = {f"{name}.rgb": image for name, image in scene.frames.items()}
        items |= {f"{name}.bin": points for name, points in scene.points.items()}
        for name, item in items.items():
            if (frame, name[:-4]) not in absent:
                (folder / f"{time}_{name}").write_bytes(item.tobytes())


def expected(bundle, scenes: list, absent: set[tuple[int, str]]) -> list[tuple]:
    """The boxes of each frame, whose sweeps are those of the last max_age seconds."""
    rig, max_age = scenes[0].rig, round(bundle.spec.radar.max_age * 1e9)
    lines, past = [], []
    with Detector(bundle, rig, engine="onnxruntime-native") as detector:
        for frame, scene in enumerate(scenes):
            time = scene.timestamp_ns + frame * PERIOD
            images = {name: image for name, image in scene.frames.items() if (frame, name) not in absent}
            points = {name: cloud for name, cloud in scene.points.items() if (frame, name) not in absent}
            past += [RadarSweep(name, cloud, time) for name, cloud in points.items()]
            sweeps = [sweep for sweep in past if time - sweep.timestamp_ns <= max_age]
            result = detector.infer(images, sweeps, timestamp_ns=time)
            lines += [(time, d.label, d.score, *d.center) for d in result.detections]
    return lines


@pytest.mark.parametrize("absent", [set(), {(1, "BEHIND"), (2, "FRONT")}], ids=["whole", "gaps"])
def test_the_stream_prints_the_boxes_of_every_frame(bundle, make_scene, tmp_path: Path, absent: set) -> None:
    scenes = [make_scene(seed=seed) for seed in range(4)]
    (tmp_path / "drive").mkdir()
    write_drive(tmp_path / "drive", scenes, absent)
    (tmp_path / "rig.json").write_text(scenes[0].rig.to_json())
    run = example(STREAM, bundle.path, tmp_path / "rig.json", tmp_path / "drive")
    assert run.returncode == 0, run.stderr
    printed = [line.split() for line in run.stdout.splitlines()]
    boxes = expected(bundle, scenes, absent)
    assert len({box[0] for box in boxes}) == 4 and len(printed) == len(boxes)
    for words, (time, label, score, *center) in zip(printed, boxes, strict=True):
        assert (int(words[0]), words[1]) == (time, label)
        assert float(words[2]) == pytest.approx(score, abs=6e-4)
        assert [float(word) for word in words[4:7]] == pytest.approx(center, abs=6e-3)


def test_the_stream_refuses_an_unknown_sensor(bundle, scene, tmp_path: Path) -> None:
    (tmp_path / "rig.json").write_text(scene.rig.to_json())
    (tmp_path / "drive").mkdir()
    (tmp_path / "drive" / "1_SIDE.bin").write_bytes(bytes(20))
    run = example(STREAM, bundle.path, tmp_path / "rig.json", tmp_path / "drive")
    assert run.returncode == 4 and run.stderr.startswith("error[E0203]")
