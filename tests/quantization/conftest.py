"""One calibration pass for all tests of this folder."""

from __future__ import annotations

from typing import Any

import pytest

SYNTH = {"scenes": 2, "frames_per_scene": 9}
FRAMES = 16


@pytest.fixture(scope="session")
def synth() -> dict[str, Any]:
    """Options of the small synthetic source."""
    return dict(SYNTH)


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What sixteen synthetic frames say of the bundle tiny (Calibrated)."""
    from imkd_edge.quantization.quantize import calibrate

    return calibrate("tiny", "synth", None, SYNTH, FRAMES, tmp_path_factory.mktemp("seen") / "c.npz", threads=1)
