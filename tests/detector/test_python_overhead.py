"""What Python adds to a frame: as many boxes as the C++ program finds, in turns, and no copy of an image. What it costs is
tests/python_overhead.py's to measure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from python_overhead import ENGINES, PROGRAM, compare

from imkd_edge import Detector, SensorRig
from imkd_edge.engines import engine_names

SCALE = 24  # of the rig's cameras: AHEAD gives 7680 x 4320 pixels, 99.5 MB, which no allocator keeps for reuse


def test_python_and_the_cpp_program_find_as_many_boxes_in_turns(bundle, scene) -> None:
    if "onnxruntime-native" not in engine_names():
        pytest.skip("the native engine was not built: Python is NOT compared with the C++ program")
    if not PROGRAM.is_file():
        pytest.skip("the C++ program was not built: Python is NOT compared with it")
    found = compare(bundle, scene.rig, scene.frames, scene.points, turns=3, threads=1)
    assert len(found["boxes"]) == 1 and found["boxes"][0] > 0
    assert found["overhead_ms"].keys() == found["around_core_ms"].keys() == set(ENGINES)


# ---- copies ----
def memory(name: str) -> int:
    """Bytes that the kernel says of this process: VmRSS, or VmHWM, the most since it was told to forget."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def most_taken(call: Callable[[], Any]) -> int:
    """By how many bytes the process was larger meanwhile than before, of whatever allocator."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this kernel does not forget a peak: copies are NOT looked for")
    before = memory("VmRSS")
    call()
    return memory("VmHWM") - before


def large_rig(rig: SensorRig) -> SensorRig:
    rig = SensorRig.from_json(rig.to_json())
    for camera in rig.cameras:
        camera.width, camera.height, camera.K = (
            camera.width * SCALE,
            camera.height * SCALE,
            camera.K * [[SCALE], [SCALE], [1]],
        )
    return rig


def rgb(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


IMAGES = {
    "RGB": rgb,
    "BGR, turned over": lambda height, width: rgb(height, width)[::-1, :, ::-1],
    "columns of a wider one": lambda height, width: rgb(height, width + 64)[:, 32:-32],
    "NV12": lambda height, width: (
        np.full((height, width), 90, np.uint8),
        np.full((height // 2, width // 2, 2), 120, np.uint8),
    ),
}


@pytest.mark.parametrize("engine", [name for name in ENGINES if name in engine_names()])
@pytest.mark.parametrize("kind", IMAGES)
def test_no_image_is_copied_on_the_way(bundle, scene, engine: str, kind: str) -> None:
    rig = large_rig(scene.rig)
    frames = {camera.name: IMAGES[kind](camera.height, camera.width) for camera in rig.cameras}
    largest = max(
        sum(plane.nbytes for plane in image) if isinstance(image, tuple) else image.nbytes for image in frames.values()
    )
    with Detector(bundle, rig, device="cpu", engine=engine, threads=1) as detector:
        detector.infer(frames, scene.points)  # what is allocated once
        assert most_taken(lambda: detector.infer(frames, scene.points)) < largest / 4


def test_the_check_sees_a_copy() -> None:
    """Even one that is gone again at once."""
    image = rgb(180 * SCALE, 320 * SCALE)
    assert most_taken(lambda: image.copy().sum()) > 0.9 * image.nbytes
    assert most_taken(image.sum) < image.nbytes / 4
