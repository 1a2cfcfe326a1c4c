"""Any number of cameras: a rig with fewer than the model, and a bundle made for more or fewer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from helpers import random_spec, write_random_bundle
from imkd_edge import Bundle, Detector, Error, SensorRig
from imkd_edge.bundle.cameras import with_cameras
from imkd_edge.bundle.shapes import infer_shapes, static_shapes
from imkd_edge.checks.cameras import export_with_cameras
from imkd_edge.checks.selftest import check_golden
from imkd_edge.sources.base import Sample
from imkd_edge.sources.synth import SynthSource, default_rig


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    source = SynthSource(scenes=1, frames_per_scene=2, rig=default_rig((240, 135)))
    return [source[name] for name in source.names]


def seen_by(sample: Sample, cameras: list[int]) -> Sample:
    """The sample with these cameras of its rig alone."""
    rig = SensorRig(cameras=[sample.rig.cameras[i] for i in cameras], radars=list(sample.rig.radars))
    return replace(sample, rig=rig, frames={c.name: sample.frames[c.name] for c in rig.cameras})


def infer(detector: Detector, sample: Sample):
    return detector.infer(sample.frames, sample.radar, sample.ego, sample.timestamp_ns)


def same(a, b) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("boxes", "scores", "labels"))


@pytest.mark.parametrize("name", ["tiny", "tiny-t4"])
@pytest.mark.parametrize("cameras", [7, 9])
def test_cameras_that_a_rig_lacks_change_no_bit(samples: list[Sample], name: str, cameras: int, tmp_path: Path) -> None:
    export_with_cameras(name, cameras, tmp_path / "m.imkd")
    rig = samples[0].rig
    with Detector(name, rig, threads=1) as a, Detector(tmp_path / "m.imkd", rig, threads=1) as b:
        for sample in samples:
            expected, result = infer(a, sample), infer(b, sample)
            assert len(expected.boxes) and same(result, expected)
            assert result.health == expected.health and result.health.mode == "full"
        assert b.tensors()["images"].shape[0] == cameras
        assert np.array_equal(a.tensors()["camera_bev"], b.tensors()["camera_bev"])


def test_a_rig_with_fewer_cameras_sees_what_the_others_absent_leave(samples: list[Sample], tmp_path: Path) -> None:
    bundle = write_random_bundle(tmp_path / "m.imkd")
    a, b = seen_by(samples[0], [4, 1]), seen_by(samples[0], [4, 1, 0, 2, 3, 5])
    b = replace(b, frames=a.frames)
    with Detector(bundle, a.rig, threads=1) as two, Detector(bundle, b.rig, threads=1) as six:
        result, expected = infer(two, a), infer(six, b)
        assert len(result.boxes) and same(result, expected)
        assert all(np.array_equal(two.tensors()[n], tensor) for n, tensor in six.tensors().items())
    cameras = {name: state for name, state in result.health.sensors.items() if name.startswith("CAM")}
    assert result.health.mode == "full" and list(cameras.values()) == ["ok", "ok"]
    assert expected.health.mode == "partial"


def test_each_of_three_cameras_is_seen_as_by_the_model_of_one(samples: list[Sample], tmp_path: Path) -> None:
    one = write_random_bundle(tmp_path / "one.imkd", random_spec(cameras=1))
    export_with_cameras(one, 3, tmp_path / "three.imkd")
    sample = seen_by(samples[0], [0, 2, 5])
    with Detector(tmp_path / "three.imkd", sample.rig, threads=1) as detector:
        infer(detector, sample)
        three = detector.tensors()
    total = 0
    for i in range(3):
        single = seen_by(sample, [i])
        with Detector(one, single.rig, threads=1) as detector:
            infer(detector, single)
            tensors = detector.tensors()
        for name in ("images", "depth", "context"):
            assert np.array_equal(three[name][i], tensors[name][0]), name
        total = total + tensors["camera_bev"]
    np.testing.assert_allclose(three["camera_bev"], total, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cameras", [1, 2, 6, 12])
def test_the_golden_frame_is_remade(cameras: int, tmp_path: Path) -> None:
    bundle = Bundle.load(write_random_bundle(tmp_path / "m.imkd", random_spec(past=2, segmentation=True)))
    result = export_with_cameras(bundle, cameras, tmp_path / "n.imkd")
    assert result["cameras"] == cameras == Bundle.load(tmp_path / "n.imkd").spec.cameras
    assert max(check_golden(tmp_path / "n.imkd", threads=1).values()) == 0
    with Detector(tmp_path / "n.imkd") as detector:
        assert len(detector.rig.cameras) == min(cameras, 6)


def test_the_manifest_says_for_how_many_cameras_it_was_trained(tmp_path: Path) -> None:
    export_with_cameras("tiny", 12, tmp_path / "a.imkd")
    export_with_cameras(tmp_path / "a.imkd", 3, tmp_path / "b.imkd")
    old, new = Bundle.load("tiny"), Bundle.load(tmp_path / "b.imkd")
    assert new.manifest["provenance"]["cameras"] == {"exported": 3, "trained": 6}
    for key in ("parameters", "gflops"):
        share = 1 if key == "parameters" else 0.5
        expected = share * old.manifest["provenance"]["parts"]["camera.onnx"][key]
        assert new.manifest["provenance"]["parts"]["camera.onnx"][key] == pytest.approx(expected, rel=1e-3)
    assert new.manifest["metrics"] == old.manifest["metrics"] and new.contract == old.contract
    assert new.file("bev.onnx").read_bytes() == old.file("bev.onnx").read_bytes()


def test_a_rig_with_more_cameras_names_the_cure() -> None:
    rig = default_rig()
    more = SensorRig.from_json(rig.to_json()).cameras[0]
    more.name = "CAM_ROOF"
    rig.cameras = [*rig.cameras, more]
    with pytest.raises(Error) as raised:
        Detector("tiny", rig)
    assert raised.value.code == "E0218" and "imkd-edge export BUNDLE --cameras 7 --out" in raised.value.fix


@pytest.mark.parametrize("cameras", [0, -1, 65])
def test_a_number_out_of_range_is_refused(cameras: int, tmp_path: Path) -> None:
    with pytest.raises(Error) as raised:
        export_with_cameras("tiny", cameras, tmp_path / "m.imkd")
    assert raised.value.code == "E0104" and not (tmp_path / "m.imkd").exists()


def part(nodes: list, constants: dict[str, list[int]], output: list[int]) -> bytes:
    """images (1,4,2,2) -> out."""
    info = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("images", [1, 4, 2, 2]), ("out", output))
    ]
    initializers = [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "part", info[:1], info[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def test_a_constant_shape_that_holds_the_batch_changes() -> None:
    nodes = [
        helper.make_node("Reshape", ["images", "flat"], ["rows"]),
        helper.make_node("Relu", ["rows"], ["positive"]),
        helper.make_node("Reshape", ["positive", "square"], ["out"]),
    ]
    model = with_cameras(part(nodes, {"flat": [1, 16], "square": [1, 1, 4, 4]}, [1, 1, 4, 4]), 5)
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    shapes = static_shapes(infer_shapes(model))
    assert (shapes["rows"], shapes["out"]) == ([5, 16], [5, 1, 4, 4])


def test_a_network_that_mixes_cameras_is_refused() -> None:
    nodes = [helper.make_node("Reshape", ["images", "shape"], ["out"])]
    with pytest.raises(Error) as raised:
        with_cameras(part(nodes, {"shape": [4, 1, 2, 2]}, [4, 1, 2, 2]), 3)
    assert raised.value.code == "E0410" and raised.value.where == "--cameras"
