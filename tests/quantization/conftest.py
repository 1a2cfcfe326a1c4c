"""One calibration pass for all tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import Once

SYNTH = {"scenes": 2, "frames_per_scene": 9}
FRAMES = 16


@pytest.fixture(scope="session")
def synth() -> dict[str, Any]:
    """Options of the small synthetic source."""
    return dict(SYNTH)


@pytest.fixture(scope="session")
def calibration(once: Once) -> Any:
    """The bundle tiny, calibrated on sixteen synthetic frames (Calibration)."""
    from imkd_edge.quantization.quantize import calibrate

    def make(folder: Path) -> Any:
        return calibrate("tiny", "synth", None, SYNTH, FRAMES, folder / "c.npz", threads=1)

    return make(once("calibration", make))  # a complete state is read, not made again
