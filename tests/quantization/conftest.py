"""One calibration pass for all tests of this folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Once

SYNTH = {"scenes": 2, "frames_per_scene": 9}
FRAMES = 16


@pytest.fixture(scope="session", autouse=True)
def _remembered(remembered_synth: None) -> None:
    """Calibration, measuring and training draw the same eighteen frames again and again."""


@pytest.fixture(scope="session")
def synth() -> dict[str, Any]:
    """Options of the small synthetic source."""
    return dict(SYNTH)


@pytest.fixture(scope="session")
def few_real(once: Once, shared_data: Path) -> Path:
    """An Astyx folder with 24 frames of each split."""
    from helpers import few_of_astyx

    return once("astyx", lambda folder: few_of_astyx(folder / "astyx", shared_data / "astyx", 24)) / "astyx"


@pytest.fixture(scope="session")
def calibration(once: Once) -> Any:
    """The bundle tiny, calibrated on sixteen synthetic frames (Calibration)."""
    from imkd_edge.quantization.calibrate import calibrate

    def make(folder: Path) -> Any:
        return calibrate("tiny", "synth", None, SYNTH, FRAMES, folder / "c.npz", threads=1)

    return make(once("calibration", make))  # a complete state is read, not made again


@pytest.fixture
def collection(calibration: Any, once: Once, tmp_path: Path) -> Path:
    """A copy of that pass's state, for --collection."""
    return Path(shutil.copy(once("calibration", lambda folder: None) / "c.npz", tmp_path / "copy.npz"))
