"""compare: names the first tensor that differs, matches boxes, and fails by exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from helpers import random_spec, write_random_bundle
from imkd_edge.bundle import PARTS, Bundle, shipped, write_bundle
from imkd_edge.checks.differences import Boxes, Difference
from imkd_edge.checks.drive import FRAMES
from imkd_edge.cli import app
from imkd_edge.engines import engine_names
from imkd_edge.engines.torch import TorchEngine
from imkd_edge.errors import Error
from imkd_edge.evaluation.compare import Comparison, compare
from imkd_edge.options import CompareOptions
from imkd_edge.sources.synth import SynthSource
from imkd_edge.sources.timeline import infer_with_past


def changed(bundle: Path, out: Path, part: str, weight: str, factor: float) -> Path:
    """A copy in which one weight of one part is multiplied."""
    loaded = Bundle.load(bundle)
    files = {name: loaded.file(f"{name}.onnx").read_bytes() for name in PARTS}
    model = onnx.load_from_string(files[part])
    for item in model.graph.initializer:
        if item.name == weight:
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item) * np.float32(factor), weight))
    files[part] = model.SerializeToString()
    with np.load(loaded.file("golden.npz")) as golden:
        write_bundle(out, loaded.spec, files["camera"], files["bev"], dict(golden), {}, {})
    return out


def test_a_bundle_is_equal_to_itself(random_bundle: Path) -> None:
    options, source_options = CompareOptions(limit=2, tolerance=0), {"scenes": 1, "frames_per_scene": 3}
    result = compare(random_bundle, random_bundle, "synth", options, source_options=source_options)
    engine = result["engines"]["onnxruntime"]
    assert result["within"] and engine["first_divergence"] is None and result["frames"] == FRAMES + 2
    assert engine["fidelity"]["frames"] == 2 and engine["fidelity"]["loss"] == 0 and engine["fidelity"]["agree"] > 99.99
    assert all(row["max"] == 0 for row in engine["tensors"]) and engine["boxes"]["matched"] == engine["boxes"]["a"]


def test_frames_of_a_source_are_compared_after_their_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_random_bundle(tmp_path / "past.imkd", random_spec(past=2))
    past: list[int] = []

    def infer(*arguments: Any) -> Any:
        result = infer_with_past(*arguments)
        past.append(result.health.past_frames)
        return result

    monkeypatch.setattr("imkd_edge.evaluation.compare.infer_with_past", infer)
    options = {"scenes": 1, "frames_per_scene": 6, "image": (64, 48)}
    compare(bundle, bundle, "synth", CompareOptions(limit=3), source_options=options, threads=1)
    assert past == [0, 0, 2, 2, 2, 2]  # frames 0, 2 and 4, both bundles each


def test_the_first_tensor_that_differs_is_named(random_bundle: Path, tmp_path: Path) -> None:
    other = changed(random_bundle, tmp_path / "b.imkd", "bev", "size_bias", 2)
    result = compare(random_bundle, other)
    first = result["engines"]["onnxruntime"]["first_divergence"]
    assert not result["within"] and (first["part"], first["tensor"]) == ("bev", "box")
    result = compare(random_bundle, changed(random_bundle, tmp_path / "c.imkd", "camera", "weight", 1.5))
    inner = result["engines"]["onnxruntime"]["first_divergence"]
    assert (inner["part"], inner["tensor"], inner["output"]) == ("camera", "features", False)
    assert inner["nmse"] == pytest.approx(0.25, abs=1e-4)  # everything is 1.5 times as large


def test_the_exit_code_is_the_verdict(random_bundle: Path, tmp_path: Path) -> None:
    other = changed(random_bundle, tmp_path / "b.imkd", "bev", "size_bias", 2)
    call = lambda *arguments: CliRunner().invoke(app, ["compare", str(random_bundle), *map(str, arguments)])  # noqa: E731
    assert call(random_bundle).exit_code == 0 and "within the tolerance" in call(random_bundle).stdout
    assert call(other).exit_code == 1 and call(other, "--tolerance", 10).exit_code == 0


def test_on_data_the_loss_decides(random_bundle: Path, tmp_path: Path) -> None:
    other = changed(random_bundle, tmp_path / "b.imkd", "bev", "size_bias", 2)
    data = ["--data", "synth", "--option", "scenes=1", "--option", "frames_per_scene=3", "--limit", "2"]
    call = lambda *gate: CliRunner().invoke(app, ["compare", str(random_bundle), str(other), *data, *gate])  # noqa: E731
    assert call("--gate", "1e9").exit_code == 0 and "fidelity on 2 frames" in call("--gate", "1e9").stdout
    assert call("--gate", "1e-9").exit_code == 1 and "not within the gate" in call("--gate", "1e-9").stdout


def test_frames_of_the_calibration_are_left_out(random_bundle: Path, tmp_path: Path) -> None:
    source = {"scenes": 1, "frames_per_scene": 3}
    loaded, names = Bundle.load(random_bundle), SynthSource(**source).names

    def calibrated(names: list[str]) -> Path:
        files = [loaded.file(f"{name}.onnx").read_bytes() for name in PARTS]
        with np.load(loaded.file("golden.npz")) as golden:
            card = {"quantization": {"frames": names}}
            write_bundle(tmp_path / "q.imkd", loaded.spec, *files, dict(golden), {}, card)
        return tmp_path / "q.imkd"

    result = compare(random_bundle, calibrated(names[:2]), "synth", source_options=source)
    assert result["frames"] == FRAMES + 1
    with pytest.raises(Error, match="calibrated on every frame"):
        compare(random_bundle, calibrated(names), "synth", source_options=source)


# ---- engines ----
@pytest.mark.parametrize("name", shipped())
def test_every_engine_that_exposes_inner_tensors_agrees_on_them(name: str) -> None:
    options = CompareOptions(engines="onnxruntime,torch", tolerance=1e-8)
    result = compare(name, name, options=options, threads=1)
    assert result["within"] and result["reference"] == "onnxruntime"
    assert list(result["engines"]) == ["onnxruntime", "torch"]
    same, torch = result["engines"].values()
    names = [row["tensor"] for row in torch["tensors"]]
    assert torch["first_divergence"] is None and names == [row["tensor"] for row in same["tensors"]]
    assert len(names) > 100
    assert max(row["max"] for row in torch["tensors"]) > 0 == max(row["max"] for row in same["tensors"])
    assert torch["boxes"]["matched"] == torch["boxes"]["a"] == torch["boxes"]["b"]


def test_either_engine_names_the_tensor_that_differs(tmp_path: Path) -> None:
    tiny = Bundle.load("tiny")
    other = changed(tiny.path, tmp_path / "b.imkd", "bev", "box.1.bias", 2)
    result = compare(tiny, other, options=CompareOptions(engines="torch,onnxruntime", tolerance=1e-6))
    for engine in result["engines"].values():
        assert not engine["within"] and engine["first_divergence"]["tensor"] == "box"
    assert result["reference"] == "torch" and not result["within"]


def test_an_engine_that_exposes_only_outputs_is_compared_by_them(random_bundle: Path) -> None:
    if "onnxruntime-native" not in engine_names():
        pytest.skip("built without the headers of ONNX Runtime")
    options = CompareOptions(engines="onnxruntime,onnxruntime-native")
    engine = compare(random_bundle, random_bundle, options=options)["engines"]["onnxruntime-native"]
    assert engine["within"] and engine["tensors"] and all(row["output"] for row in engine["tensors"])


@pytest.mark.parametrize("engine", ["tensorrt", "abacus"])
def test_an_engine_that_cannot_be_opened_is_refused(random_bundle: Path, engine: str) -> None:
    if engine in engine_names():
        pytest.skip("this machine has it")
    bundles = [str(random_bundle), str(random_bundle)]
    result = CliRunner().invoke(app, ["compare", *bundles, "--engines", f"onnxruntime,{engine}"])
    assert result.exit_code == 3 and f'error[E0501] there is no engine "{engine}"' in result.stderr


def test_torch_refuses_an_operator_that_it_does_not_have_and_names_it(tmp_path: Path) -> None:
    engine, path = TorchEngine(1), tmp_path / "m.onnx"
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Erf", ["x"], ["y"])], "g", info[:1], info[1:])
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(Error, match="Erf") as error:
        engine.load(str(path))
    assert error.value.code == "E0502"
    path.write_bytes(b"no onnx")
    with pytest.raises(Error) as error:
        engine.load(str(path))
    assert error.value.code == "E0502"
    with pytest.raises(Error) as error:
        engine.run()
    assert error.value.code == "E0504"


def test_bundles_of_two_models_are_refused(random_bundle: Path, tmp_path: Path) -> None:
    other = write_random_bundle(tmp_path / "other.imkd", random_spec(segmentation=True))
    with pytest.raises(Error) as error:
        compare(random_bundle, other)
    assert error.value.code == "E0409"


def test_a_nan_is_a_difference() -> None:
    item = Difference("bev", "box", True)
    item.add(np.ones(4, np.float32), np.array([1, 1, np.nan, 1], np.float32))
    assert item.nmse == np.inf and item.largest == np.inf


def test_a_nan_in_the_reference_is_not_within_any_tolerance() -> None:
    comparison = Comparison.empty(
        random_spec(), {"camera": {"depth": (4,), "context": (4,)}, "bev": {}}, {"depth", "context"}
    )
    good, bad = comparison.differences
    good.add(np.ones(4, np.float32), np.ones(4, np.float32))
    bad.add(np.array([1, np.nan, 1, 1], np.float32), np.ones(4, np.float32))
    assert comparison.row(0.1, 0.25)["within"] is False


def test_boxes_match_once_and_within_their_class() -> None:
    class Detections:
        def __init__(self, x: list[float], labels: list[int]) -> None:
            self.boxes = np.zeros((len(x), 9), np.float32)
            self.boxes[:, 0], self.labels, self.scores = x, np.array(labels), np.linspace(0.9, 0.5, len(x))

    boxes = Boxes(0.5)
    one, other = Detections([0, 0.2, 10, 20], [0, 0, 0, 1]), Detections([0.1, 10.5, 20], [0, 0, 0])
    boxes.add(one, other)  # type: ignore[arg-type]
    assert boxes.row()["matched"] == 2 and boxes.row()["max_m"] == pytest.approx(0.5)
