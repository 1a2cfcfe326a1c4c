"""What the cameras of a rig see of a model's grid, and what a calibration that sees nothing looks like."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imkd_edge import Bundle, Detector, Error, SensorRig
from imkd_edge.checks import doctor
from imkd_edge.checks.data.rig import judge
from imkd_edge.checks.rig import examine
from imkd_edge.sources.synth import default_rig

SPEC = Bundle.load("tiny").spec
BODY = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])  # T_optical_body


def body_axes(camera: dict[str, Any]) -> None:
    camera["T_ego_camera"] = (np.array(camera["T_ego_camera"]) @ BODY).tolist()


def millimetres(camera: dict[str, Any]) -> None:
    for row in camera["T_ego_camera"][:3]:
        row[3] *= 1000


def normalised(camera: dict[str, Any]) -> None:
    camera["K"][0] = [value / camera["width"] for value in camera["K"][0]]
    camera["K"][1] = [value / camera["height"] for value in camera["K"][1]]


def changed(change: Callable[[dict[str, Any]], None]) -> SensorRig:
    rig = json.loads(default_rig((160, 90)).to_json())
    for camera in rig["cameras"]:
        change(camera)
    return SensorRig.from_json(json.dumps(rig))


def test_level_cameras_see_the_grid_and_need_no_hint() -> None:
    cameras = examine(changed(lambda camera: None), SPEC)
    assert [camera.name for camera in cameras] == [camera.name for camera in default_rig((160, 90)).cameras]
    assert all(camera.in_grid == 1 and camera.across > 0.95 and camera.usable and not camera.hint for camera in cameras)


@pytest.mark.parametrize(
    ("change", "hint"),
    [(body_axes, "optical axis points at the sky"), (millimetres, "millimetres"), (normalised, "normalised to 0..1")],
)
def test_the_usual_mistakes_are_named(change: Callable[[dict[str, Any]], None], hint: str) -> None:
    cameras = examine(changed(change), SPEC)
    assert all(not camera.usable and hint in camera.hint and camera.name in repr(camera) for camera in cameras)


@pytest.mark.parametrize("change", [millimetres, normalised])
def test_a_rig_that_sees_nothing_is_refused_with_the_cause(change: Callable[[dict[str, Any]], None]) -> None:
    with pytest.raises(Error) as caught:
        Detector("tiny", changed(change), "cpu", threads=1)
    error = caught.value
    assert error.code == "E0214" and error.what.startswith("no camera sees the model's grid: camera CAM_FRONT: 0 %")
    assert examine(changed(change), SPEC)[0].hint in error.what and "in metres" in error.fix


def test_cameras_that_look_at_the_sky_are_unusable() -> None:
    rig = changed(body_axes)
    images = {camera.name: np.full((90, 160, 3), 128, np.uint8) for camera in rig.cameras}
    with Detector("tiny", rig, "cpu", threads=1) as detector:
        health = detector.infer(images, {"RADAR_FRONT": np.float32([[10, 1, 0, 5, 0]])}).health
        assert not detector.tensors()["camera_bev"].any()
    assert {health.sensors[name] for name in images} == {"unusable"} and health.mode == "radar_only"


@pytest.mark.parametrize(
    "fault", [None, normalised, millimetres, body_axes], ids=lambda fault: getattr(fault, "__name__", "none")
)
def test_doctor_says_of_a_rig_what_check_says(fault: Callable[[dict[str, Any]], None] | None, tmp_path: Path) -> None:
    data = json.loads(default_rig().to_json())
    if fault is not None:
        fault(data["cameras"][0])
    path = tmp_path / "rig.json"
    path.write_text(json.dumps(data))
    checks = doctor._rig(path)
    assert [check.status for check in checks] == ([] if fault is None else ["fail"])
    findings = list(judge(SensorRig.load(str(path)), "rig.json"))
    assert [f"{found.code} {found.what}" for found in findings] == [check.detail for check in checks]
