"""Segmentation and gate maps: values in the result, no computation of gates without debug, graphs that are rejected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers import Recorder, bev_onnx, camera_onnx, random_spec, recorders
from imkd_edge import Bundle, Detector, Ego, Error, _core
from imkd_edge.checks.drive import FRAMES
from imkd_edge.checks.selftest import check_golden
from imkd_edge.engines import engine_names

NOW = 1_700_000_000_000_000_000


def run(detector: Detector, scene):
    return detector.infer(scene.frames, scene.radar, Ego(T_world_ego=np.eye(4)), NOW)


@pytest.mark.parametrize("engine", ["onnxruntime", "onnxruntime-native"])
def test_the_maps_are_what_the_network_gives(history_bundle: Bundle, scene, engine: str) -> None:
    import onnxruntime as ort

    if engine not in engine_names():
        pytest.skip("the core was built without ONNX Runtime's headers: the native engine is NOT tested")
    with Detector(history_bundle, scene.rig, engine=engine, debug=True) as detector:
        result, tensors = run(detector, scene), detector.tensors()
    session = ort.InferenceSession(str(history_bundle.file("bev.onnx")), providers=["CPUExecutionProvider"])
    names = ["segmentation", "fused", "i_cam", "i_rad"]
    inputs = {name: tensors[name] for name in ("camera_bev", "radar_grid", "history")}
    outputs = dict(zip(names, session.run(names, inputs), strict=True))
    for name in names:
        np.testing.assert_allclose(tensors[name], outputs[name], atol=1e-3)
    assert result.segmentation.shape == (64, 64) and result.segmentation.dtype == np.float32
    probability = 1 / (1 + np.exp(-outputs["segmentation"][0, 0].astype(float)))
    np.testing.assert_allclose(result.segmentation, probability, atol=1e-3)
    assert np.ptp(result.segmentation) > 0.1
    assert list(result.debug) == ["i_cam", "i_rad"]
    for name, gate in result.debug.items():
        assert gate.shape == (64, 64) and gate.dtype == np.float32 and np.array_equal(gate, tensors[name][0, 0])
        assert 0 <= gate.min() < gate.max() <= 1


def test_maps_belong_to_the_result(history_bundle: Bundle, make_scene) -> None:
    first, second = make_scene(seed=1), make_scene(seed=2)
    with Detector(history_bundle, first.rig, debug=True) as detector:
        result = run(detector, first)
        before = [result.segmentation.copy(), *(gate.copy() for gate in result.debug.values())]
        run(detector, second)
    assert all(np.array_equal(a, b) for a, b in zip(before, [result.segmentation, *result.debug.values()], strict=True))


def test_without_debug_there_are_no_gates_and_the_same_boxes(history_bundle: Bundle, scene) -> None:
    with Detector(history_bundle, scene.rig) as plain, Detector(history_bundle, scene.rig, debug=True) as debug:
        a, b = run(plain, scene), run(debug, scene)
        assert a.debug == {} and not {"i_cam", "i_rad"} & set(plain.tensors())
    assert len(a.boxes) > 3 and np.array_equal(a.boxes, b.boxes) and np.array_equal(a.segmentation, b.segmentation)


def test_a_model_without_segmentation_gives_none(detector: Detector, scene) -> None:
    assert run(detector, scene).segmentation is None


def with_outputs(spec, **more: tuple[int, ...]) -> tuple[Recorder, Recorder]:
    camera, bev = recorders(spec)
    bev.shapes[1].update(more)
    return camera, bev


def test_an_engine_computes_gates_only_with_debug(bundle: Bundle, scene) -> None:
    gates = {"i_cam": (1, 1, 64, 64), "i_rad": (1, 1, 64, 64)}
    for debug in (False, True):
        camera, bev = with_outputs(bundle.spec, **gates)
        detector = _core.Detector(bundle.spec, scene.rig, camera, bev, debug=debug)
        result = detector.infer(scene.frames, scene.points, None, 0)
        assert set(bev.arrays) == {"camera_bev", "radar_grid", "heatmap", "box"} | (set(gates) if debug else set())
        assert set(result["debug"]) == (set(gates) if debug else set()) and bev.runs == 1


def test_gates_that_the_network_lacks_are_refused_at_load(bundle: Bundle, scene) -> None:
    with pytest.raises(Error) as raised:
        Detector(bundle, scene.rig, debug=True)
    assert raised.value.code == "E0409" and "i_cam" in raised.value.what and "debug" in raised.value.fix


@pytest.mark.parametrize(
    "more",
    [
        {"attention": (1, 1, 64, 64)},
        {"i_cam": (1, 2, 64, 64)},
        {"fused": (1, 4, 64, 64)},
        {"segmentation": (1, 1, 64, 64)},
    ],
)
def test_outputs_that_the_spec_does_not_know_are_refused(bundle: Bundle, scene, more: dict) -> None:
    with pytest.raises(Error) as raised:
        _core.Detector(bundle.spec, scene.rig, *with_outputs(bundle.spec, **more))
    assert raised.value.code == "E0409"


@pytest.mark.parametrize("change", ["history.frames", "history.channels", "segmentation"])
@pytest.mark.parametrize("graph_of_spec", [True, False])
def test_a_graph_of_another_spec_is_refused(scene, tmp_path: Path, change: str, graph_of_spec: bool) -> None:
    """The graph has more or fewer tensors than the detector's spec."""
    spec, other = (random_spec(2, past=2, segmentation=True) for _ in range(2))
    owner, _, name = change.rpartition(".")
    setattr(getattr(other, owner) if owner else other, name, {"frames": 3, "channels": 5, "segmentation": False}[name])
    exported, loaded = (spec, other) if graph_of_spec else (other, spec)
    (tmp_path / "camera.onnx").write_bytes(camera_onnx(spec))
    (tmp_path / "bev.onnx").write_bytes(bev_onnx(exported))
    with pytest.raises(Error) as raised:
        Detector.from_onnx(loaded, scene.rig, tmp_path / "camera.onnx", tmp_path / "bev.onnx")
    assert raised.value.code == "E0409"


def test_the_golden_drive_holds_the_maps_and_is_reproduced(history_bundle: Bundle) -> None:
    differences = check_golden(history_bundle)
    assert {"fused", "segmentation", "heatmap", "boxes"} <= set(differences)
    assert not {"history", "i_cam"} & set(differences)
    assert all(value == 0 for value in differences.values())
    with np.load(history_bundle.file("golden.npz")) as golden:
        assert sum(golden[f"{i}/tensor_fused"].size for i in range(FRAMES)) > 1000
        assert all(np.ptp(golden[f"{i}/tensor_segmentation"]) > 0 for i in range(FRAMES))
