"""What Python adds to a frame: both Detectors find as many boxes in turns, and no image is copied on the way."""

from __future__ import annotations

import pytest
from python_overhead import ENGINES, PROGRAM, compare

from imkd_edge.engines import engine_names


def test_python_adds_little_to_the_cpp_program(bundle, scene) -> None:
    if not PROGRAM.is_file() or "onnxruntime-native" not in engine_names():
        pytest.skip("the C++ program or the native engine was not built: Python's overhead is NOT measured")
    found = compare(bundle, scene.rig, scene.frames, scene.points, turns=15, threads=1)
    assert len(found["boxes"]) == 1 and found["boxes"][0] > 0
    assert found["overhead_ms"].keys() == found["around_core_ms"].keys() == set(ENGINES)
    assert all(0 < value < 2 for value in found["around_core_ms"].values()), found  # ten times the aim: tests run on busy machines
