"""Python gives as many boxes as the C++ program and copies no image; tests/python_overhead.py measures its time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from python_overhead import ENGINES, PROGRAM, compare

from imkd_edge import Detector, SensorRig
from imkd_edge.engines import engine_names

SCALE = 24  # of the rig's cameras: AHEAD has 7680 x 4320 pixels, 99.5 MB, which no allocator caches


def test_python_and_the_cpp_program_find_as_many_boxes_in_turns(bundle, scene) -> None:
    if "onnxruntime-native" not in engine_names():
        pytest.skip("the native engine was not built: Python is NOT compared with the C++ program")
    if not PROGRAM.is_file():
        pytest.skip("the C++ program was not built: Python is NOT compared with it")
    result = compare(bundle, scene.rig, scene.frames, scene.points, turns=3, threads=1)
    assert len(result["boxes"]) == 1 and result["boxes"][0] > 0
    assert result["overhead_ms"].keys() == result["around_core_ms"].keys() == set(ENGINES)


# ---- copies ----
def memory(name: str) -> int:
    """Bytes of this process: VmRSS, or VmHWM, the peak since the last write to clear_refs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def peak_growth(call: Callable[[], Any]) -> int:
    """Growth of the process during a call at its peak, bytes, for every allocator."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this kernel cannot reset the peak of memory: copies are NOT looked for")
    before = memory("VmRSS")
    call()
    return memory("VmHWM") - before


def large_rig(rig: SensorRig) -> SensorRig:
    rig = SensorRig.from_json(rig.to_json())
    for camera in rig.cameras:
        camera.width, camera.height = camera.width * SCALE, camera.height * SCALE
        camera.K = camera.K * [[SCALE], [SCALE], [1]]
    return rig


def rgb(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


IMAGES = {
    "RGB": rgb,
    "BGR, upside down": lambda height, width: rgb(height, width)[::-1, :, ::-1],
    "columns of a wider image": lambda height, width: rgb(height, width + 64)[:, 32:-32],
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
    planes = [image if isinstance(image, tuple) else (image,) for image in frames.values()]
    largest = max(sum(plane.nbytes for plane in image) for image in planes)
    with Detector(bundle, rig, device="cpu", engine=engine, threads=1) as detector:
        detector.infer(frames, scene.points)  # allocates once
        assert peak_growth(lambda: detector.infer(frames, scene.points)) < largest / 4


def test_the_check_sees_a_copy() -> None:
    """Even one that is freed at once."""
    image = rgb(180 * SCALE, 320 * SCALE)
    # The best of three: in one whole run of the suite the kernel reported no growth, not explained.
    assert max(peak_growth(lambda: image.copy().sum()) for _ in range(3)) > 0.9 * image.nbytes
    assert peak_growth(image.sum) < image.nbytes / 4
