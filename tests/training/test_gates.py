"""A constant gate of 0 cuts its sensor off; a gate's values are averaged where the radar sees and elsewhere."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest

from imkd_edge import Error
from imkd_edge.bundle import Bundle
from imkd_edge.training.gates import Study, gate_values, with_constants

INPUTS = {"i_cam": "camera_bev", "i_rad": "radar_grid"}


@pytest.fixture(scope="module")
def bev() -> bytes:
    return Bundle.load("tiny").file("bev.onnx").read_bytes()


def outputs(part: bytes, changed: str | None = None) -> list[np.ndarray]:
    """Of random inputs; `changed` has other values."""
    session, random = ort.InferenceSession(part), np.random.default_rng(3)
    feed = {item.name: random.standard_normal(item.shape, np.float32) for item in session.get_inputs()}
    if changed:
        feed[changed] = np.random.default_rng(4).standard_normal(feed[changed].shape, np.float32)
    return session.run(["heatmap", "box", "i_cam", "i_rad"], feed)


@pytest.mark.parametrize("gate", INPUTS)
def test_a_gate_of_0_cuts_off_its_sensor_and_no_other(bev: bytes, gate: str) -> None:
    closed = with_constants(bev, {gate: 0.0})
    (other,) = set(INPUTS) - {gate}
    for a, b in zip(outputs(closed)[:2], outputs(closed, INPUTS[gate])[:2], strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(outputs(closed)[0] - outputs(closed, INPUTS[other])[0]).max() > 1e-3


def test_the_gates_that_are_returned_stay_what_they_were(bev: bytes) -> None:
    for a, b in zip(outputs(bev)[2:], outputs(with_constants(bev, {"i_cam": 0.5, "i_rad": 0.5}))[2:], strict=True):
        np.testing.assert_array_equal(a, b)


def test_values_are_averaged_where_the_radar_sees_and_elsewhere() -> None:
    """One return in a corner of 8 x 8 cells: 3 x 3 cells are within reach."""
    grid = np.zeros((1, 2, 8, 8), np.float32)
    grid[0, 1, 0, 0] = 7
    gate = np.full((8, 8), 0.75, np.float32)
    gate[:3, :3] = 0.25
    result = SimpleNamespace(debug={"i_cam": np.ones((8, 8), np.float32), "i_rad": gate})
    detector = SimpleNamespace(infer_sample=lambda sample: result, tensors=lambda: {"radar_grid": grid})
    values = gate_values(detector, [None, None])
    assert values["i_rad"] == {
        "mean": (9 * 0.25 + 55 * 0.75) / 64,
        "deviation": pytest.approx(gate.std()),
        "seen": 0.25,
        "unseen": 0.75,
    }
    assert values["i_cam"] == {"mean": 1, "deviation": 0, "seen": 1, "unseen": 1}


def test_a_model_without_gates_is_refused() -> None:
    with pytest.raises(Error, match="no gates") as error:
        Study(Bundle.load("tiny-t4"), "synth", "val", 1, 1)
    assert error.value.code == "E0104"
