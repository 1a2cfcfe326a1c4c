"""Text that UTF-8 cannot hold is refused, or not found, with a code; no message prints the arguments of the call."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imkd_edge import Bundle, Detector, RadarCalibration, RadarSweep, SensorRig, _core
from imkd_edge.bundle.golden import golden_rig
from imkd_edge.errors import Error
from imkd_edge.live import Monitor, Synchronizer
from imkd_edge.spec import ModelSpec

HALF = "\ud800"  # half of a surrogate pair
TINY = Bundle.load("tiny")
RIG = golden_rig(TINY)
POINTS = np.zeros((1, 5), np.float32)
CALLS: dict[str, tuple[str, Callable[[], object]]] = {  # -> code
    "spec": ("E0101", lambda: ModelSpec.from_json(TINY.spec.to_json() + HALF)),
    "spec, in a key": ("E0101", lambda: ModelSpec.from_json(TINY.spec.to_json().replace('"cameras"', f'"{HALF}ä"'))),
    "rig": ("E0211", lambda: SensorRig.from_json(HALF + "x" * 10_000)),
    "contract": ("E0402", lambda: _core.Contract.from_json(HALF)),
    "device": ("E0511", lambda: Detector("tiny", device=HALF)),
    "engine": ("E0501", lambda: Detector("tiny", engine=HALF)),
    "reference": ("E0203", lambda: Synchronizer(RIG, TINY.spec, reference=HALF)),
    "camera pushed": ("E0203", lambda: Synchronizer(RIG, TINY.spec).push_camera(HALF, None, 1, 1)),
    "radar pushed": ("E0203", lambda: Synchronizer(RIG, TINY.spec).push_radar(RadarSweep(HALF, POINTS, 1), 1)),
    "camera observed": ("E0203", lambda: Monitor(RIG, TINY.spec).observe_camera(HALF, None, 1, 1)),
    "camera inferred": ("E0203", lambda: Detector("tiny").infer({HALF: None}, {})),
    "radar inferred": ("E0203", lambda: Detector("tiny").infer({}, {HALF: POINTS})),
    "bundle": ("E0401", lambda: Bundle.load(f"/nowhere/{HALF}")),
}


@pytest.mark.parametrize("name", CALLS)
def test_half_a_surrogate_pair_has_the_code_of_any_other_wrong_text(name: str) -> None:
    code, call = CALLS[name]
    with pytest.raises(Error) as raised:
        call()
    assert raised.value.code == code and len(str(raised.value)) < 1000
    str(raised.value).encode(errors="backslashreplace")


def test_a_name_keeps_its_letters_and_escapes_the_rest() -> None:
    assert RadarCalibration(name="Straße 前", T_ego_radar=np.eye(4)).name == "Straße 前"
    assert RadarCalibration(name=f"a{HALF}b", T_ego_radar=np.eye(4)).name == "a\\ud800b"
    assert RIG.camera_index(HALF) == -1


def test_a_rig_may_lie_at_a_path_that_is_not_utf_8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xe4\xff.json"
    try:
        with open(path, "w") as file:
            file.write(RIG.to_json())
    except OSError:
        pytest.skip("this file system takes only UTF-8: a rig at another path is NOT tested")
    assert SensorRig.load(os.fsdecode(path)).to_json() == RIG.to_json()
    with pytest.raises(Error) as raised:
        SensorRig.load(os.fsdecode(path) + "x")
    assert raised.value.code == "E0302"
