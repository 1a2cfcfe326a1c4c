"""From a shipped float bundle to an INT8 one: equal bytes every time, resumed after an interruption, for TensorRT."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import NO_TENSORRT
from golden_drive import golden_drive
from onnx import TensorProto, helper, numpy_helper

from helpers import random_spec, without_package, write_random_bundle
from imkd_edge import Detector
from imkd_edge.bundle import PARTS, Bundle, golden_rig
from imkd_edge.bundle.golden import read_golden
from imkd_edge.bundle.shapes import static_shape
from imkd_edge.calibration import collect as collect_module
from imkd_edge.calibration.solvers import METHODS, Method
from imkd_edge.checks.cameras import export_with_cameras
from imkd_edge.checks.selftest import check_golden, replay
from imkd_edge.engines import Engine, OnnxRuntimeEngine, engine_names, make_engine
from imkd_edge.engines.build import PRECISIONS, build_engines
from imkd_edge.engines.float16 import to_half
from imkd_edge.errors import Error
from imkd_edge.evaluation.run import evaluate_bundle
from imkd_edge.options import BuildOptions, EvalOptions, QuantizeOptions, RunOptions
from imkd_edge.progress import Track
from imkd_edge.quantization import quantize as quantize_module
from imkd_edge.quantization.calibrate import calibrate
from imkd_edge.quantization.graph import Part, resolve_layers
from imkd_edge.quantization.ptq import QuantizedPart, quantize_part
from imkd_edge.quantization.quantize import Recipe, quantize, write
from imkd_edge.quantization.state import Calibration
from imkd_edge.sources.select import select
from imkd_edge.sources.synth import SynthSource, default_rig
from imkd_edge.sources.timeline import Timeline, infer_with_past

SYNTH = {"scenes": 2, "frames_per_scene": 9}  # as the conftest's
FRAMES = 16
FISHER = QuantizeOptions(frames=FRAMES, gate=float("inf"), no_correct=True)
RECIPE = Recipe(Method())


@pytest.fixture(scope="module")
def int8(calibration: Calibration, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_int8(calibration, tmp_path_factory.mktemp("int8") / "tiny.int8.imkd")


def make_int8(calibration: Calibration, out: Path) -> Bundle:
    return write(calibration, quantized_parts(calibration), out, RECIPE)


def quantized_parts(calibration: Calibration) -> dict[str, QuantizedPart]:
    return {
        name: quantize_part(part, calibration.collection, RECIPE.method) for name, part in calibration.parts.items()
    }


def digest(bundle: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(bundle.iterdir())}


# ---- the bundle ----
def test_the_bundle_is_whole_and_reproduces_its_golden_frame(int8: Bundle) -> None:
    assert max(check_golden(int8, threads=1).values()) == 0
    assert int8.manifest["provenance"]["quantization"]["method"]["name"] == "fisher"


def test_that_of_a_signed_bundle_is_unsigned_until_it_is_signed(calibration: Calibration, tmp_path: Path) -> None:
    from signing import FLEET, SIGNATURE, sign, trust_folder

    keys = trust_folder(tmp_path / "keys", FLEET)
    source = sign(Path(shutil.copytree(calibration.bundle.path, tmp_path / "tiny.imkd")), FLEET)
    signed = Bundle.load(source, f"require:{keys}")
    int8 = make_int8(replace(calibration, bundle=signed), tmp_path / "tiny.int8.imkd")
    assert not int8.signature.present and not (int8.path / SIGNATURE).exists()
    with pytest.raises(Error, match="E0411"):
        Bundle.load(int8.path, f"require:{keys}")
    sign(int8.path, FLEET)
    assert Bundle.load(int8.path, f"require:{keys}").signature.signer == "fleet"


def test_it_detects_what_the_float_bundle_detects(calibration: Calibration, int8: Bundle) -> None:
    frames = select("synth", options={"scenes": 1, "frames_per_scene": 3})
    rig = frames.source[frames.names[0]].rig
    with Detector(calibration.bundle, rig, threads=1) as a, Detector(int8, rig, threads=1) as b:
        for sample in frames:
            one, other = a.infer_sample(sample), b.infer_sample(sample)
            confident = one.boxes[one.scores > 0.6]
            assert len(confident) > 3
            distance = np.linalg.norm(confident[:, None, :2] - other.boxes[None, :, :2], axis=-1).min(1)
            assert (distance < 1).mean() >= 0.9


def test_it_follows_the_float_bundle_where_sensors_fail(calibration: Calibration, int8: Bundle) -> None:
    drive = list(golden_drive())
    rig = drive[0].rig
    with Detector(calibration.bundle, rig, threads=1) as a, Detector(int8, rig, threads=1) as b:
        for sample in drive:
            one, other = a.infer_sample(sample), b.infer_sample(sample)
            assert one.health == other.health
            assert np.isfinite(other.boxes[:, :7]).all() and np.isfinite(other.scores).all()


def test_the_manifest_holds_the_recipe(calibration: Calibration, int8: Bundle) -> None:
    card = int8.manifest["provenance"]["quantization"]
    assert len(card["frames"]) == FRAMES and not set(card["frames"]) & set(card["stress"])
    assert card["frames_sha256"] == hashlib.sha256("\n".join(card["frames"]).encode()).hexdigest()
    assert card["int8_share"] >= 0.95
    for name, part in card["parts"].items():
        layers = {node.name for node in calibration.parts[name].layers()}
        assert set(part["precision"]) == layers and "int8" in part["precision"].values()
        assert all(scale > 0 for scale in part["scales"].values())


def test_weights_are_smaller_than_the_float_bundles(calibration: Calibration, int8: Bundle) -> None:
    """tiny stores its weights in 16 bits, so eight are about half."""
    for part in PARTS:
        assert int8.file(f"{part}.onnx").stat().st_size < 0.62 * calibration.bundle.file(f"{part}.onnx").stat().st_size


def test_it_takes_more_cameras(int8: Bundle, tmp_path: Path) -> None:
    export_with_cameras(int8, 8, tmp_path / "m.imkd")
    more = Bundle.load(tmp_path / "m.imkd")
    assert more.manifest["files"].keys() == int8.manifest["files"].keys()
    assert max(check_golden(more, threads=1).values()) == 0
    assert [static_shape(item)[0] for item in onnx.load(more.file("camera.onnx")).graph.output] == [8, 8]
    with Detector(int8, threads=1) as a, Detector(more, threads=1) as b:
        for expected, result in zip(replay(int8, a), replay(int8, b), strict=True):
            assert len(expected.boxes) and np.array_equal(result.boxes, expected.boxes)
            assert np.array_equal(result.scores, expected.scores)


def test_the_same_frames_give_the_same_bytes(calibration: Calibration, int8: Bundle, tmp_path: Path) -> None:
    result = quantize("tiny", "synth", tmp_path / "again.imkd", FISHER, source_options=SYNTH, threads=1)
    assert {**digest(tmp_path / "again.imkd"), "manifest.json": ""} == {**digest(int8.path), "manifest.json": ""}
    one, two = (
        Bundle.load(path).manifest["provenance"]["quantization"] for path in (tmp_path / "again.imkd", int8.path)
    )
    assert one.pop("fidelity")["loss"] == result["fidelity"]["loss"] and two.pop("fidelity") is None and one == two
    assert result["frames"] == FRAMES and Path(result["collection"]).is_file()


def test_a_target_that_is_no_bundle_is_refused_before_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = pytest.importorskip("imkd_edge.training.export", reason="PyTorch is not installed").export
    (tmp_path / "thesis.txt").write_text("years of work")
    monkeypatch.setattr(quantize_module, "calibrate", lambda *arguments: pytest.fail("calibrated first"))
    for write_to in (
        lambda out: quantize("tiny", "synth", out),
        lambda out: export(tmp_path / "no checkpoint.pt", out),
    ):
        with pytest.raises(Error, match=r"E0702.*not a bundle"):
            write_to(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({"weight_bits": 0}, "error[E0104] bits 8, of weights 0"),
        ({"evaluate": "vol"}, "error[E0307] there is no split 'vol'"),
        ({"html": Path("/")}, "error[E0702]"),
        ({"qat": True, "refine": True}, "error[E0104] training changes the scales too"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_option_that_cannot_be_met_is_refused_before_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], start: str
) -> None:
    monkeypatch.setattr(quantize_module, "calibrate", lambda *arguments: pytest.fail("calibrated first"))
    with pytest.raises(Error) as raised:
        quantize("tiny", "synth", tmp_path / "m.imkd", QuantizeOptions(**options))
    assert str(raised.value).startswith(start)


def test_a_bundle_is_not_replaced_by_its_own_int8_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize_module, "calibrate", lambda *arguments: pytest.fail("calibrated first"))
    folder = shutil.copytree(Bundle.load("tiny").path, tmp_path / "mine.imkd")
    (tmp_path / "link.imkd").symlink_to(folder)
    for out in (folder, tmp_path / "link.imkd"):
        with pytest.raises(Error, match=r"E0702.*would replace the float one"):
            quantize(folder, "synth", out)


def test_a_measure_without_its_devkit_is_refused_before_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize_module, "calibrate", lambda *arguments: pytest.fail("calibrated first"))
    without_package(monkeypatch, "nuscenes")
    with pytest.raises(Error, match=r"E0701.*nuscenes-devkit"):
        quantize("tiny", "synth", tmp_path / "m.imkd", QuantizeOptions(evaluate="val"))


@pytest.mark.parametrize(
    ("name", "what", "fix"),
    [
        (
            "node_Conv_296",
            "2 layers are called 'node_Conv_296'",
            "give the part: camera/node_Conv_296 or bev/node_Conv_296",
        ),
        # The numbers of tiny-t4's layers are even.
        ("bev/node_Conv_297", "no layer is called 'bev/node_Conv_297'", "bev/node_Conv_296"),
        ("camera/node_Conv_326", "no layer is called 'camera/node_Conv_326'", "bev/node_Conv_326"),
        ("encoder", "no layer is called 'encoder'", "camera/node_Conv_288"),
    ],
)
def test_a_float_layer_that_is_not_one_layer_is_refused_before_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str, fix: str
) -> None:
    monkeypatch.setattr(quantize_module, "calibrate", lambda *arguments: pytest.fail("calibrated first"))
    with pytest.raises(Error, match="E0104") as raised:
        quantize("tiny-t4", "synth", tmp_path / "m.imkd", QuantizeOptions(keep_float=(name,)))
    assert (raised.value.what, raised.value.where) == (what, "--keep-float") and fix in raised.value.fix


def test_a_float_layer_is_found_by_either_name_in_its_own_part_alone() -> None:
    bundle = Bundle.load("tiny-t4")
    parts = {name: Part(bundle.file(f"{name}.onnx").read_bytes(), name) for name in PARTS}
    layers = resolve_layers(("bev/node_Conv_296", "node_Conv_288", "node_Conv_326"), parts)
    assert layers == {"camera": ("node_Conv_288",), "bev": ("node_Conv_296", "node_Conv_326")}


def test_a_named_layer_stays_float(calibration: Calibration, collection: Path, tmp_path: Path) -> None:
    name = next(group.name for group in calibration.parts["bev"].groups() if not group.float_because)
    options = replace(FISHER, keep_float=(f"bev/{name}",), collection=collection)
    quantize("tiny", "synth", tmp_path / "m.imkd", options, source_options=SYNTH, threads=1)
    parts = Bundle.load(tmp_path / "m.imkd").manifest["provenance"]["quantization"]["parts"]
    precisions = [(part, layer, text) for part, card in parts.items() for layer, text in card["precision"].items()]
    assert [(part, layer) for part, layer, text in precisions if text == "float: chosen"] == [("bev", name)]


def test_an_export_from_a_source_without_frames_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip("imkd_edge.training.export", reason="PyTorch is not installed")
    settings = SimpleNamespace(spec=None, data=SimpleNamespace(source="synth", options={}, sensors="both"))
    monkeypatch.setattr(module, "load_student", lambda path: (None, settings, {}))
    monkeypatch.setattr(module, "to_onnx", lambda *arguments: (b"", b""))
    for name in ("camera_front", "radar_6455"):
        (tmp_path / "astyx" / name).mkdir(parents=True)
    with pytest.raises(Error, match="E0307"):
        module.export(tmp_path / "checkpoint.pt", tmp_path / "m.imkd", data=str(tmp_path / "astyx"))


def test_an_interrupted_pass_resumes_and_ends_in_the_same_scales(
    calibration: Calibration, int8: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, count = tmp_path / "c.npz", collect_module._count
    calls: list[str] = []

    def stop_in_the_eleventh(*arguments: Any) -> None:
        if len(calls) == 10:
            raise KeyboardInterrupt
        calls.append(arguments[-1])
        count(*arguments)

    monkeypatch.setattr(collect_module, "SAVE_EVERY", 4)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(collect_module, "_count", stop_in_the_eleventh)
        calibrate("tiny", "synth", None, SYNTH, FRAMES, state, threads=1)
    assert np.load(state)["done"].tolist() == calibration.frames.names[:8]
    resumed: list[str] = []

    def bar(title: str) -> Track:
        return lambda names: record(names, resumed, title)

    again = calibrate("tiny", "synth", None, SYNTH, FRAMES, state, 1, bar)
    assert resumed == calibration.frames.names[8:]
    assert digest(make_int8(again, tmp_path / "again.imkd").path) == digest(int8.path)


def record(names: list[str], into: list[str], title: str) -> Iterator[str]:
    for name in names:
        into += [name] * (title == "observe")
        yield name


def test_a_state_of_another_model_is_not_resumed_and_a_broken_one_is_refused(
    calibration: Calibration, tmp_path: Path
) -> None:
    state = tmp_path / "c.npz"
    tensors = calibration.parts["bev"].observed_tensors({"relu_1"})
    for damaged in (b"not a zip file", b"PK\x03\x04 breaks off", b"\x93NUMPY\x01\x00\x02\x00{\n"):
        state.write_bytes(damaged)
        with pytest.raises(Error, match=r"E0702.*no collection"):
            collect_module._open(state, "key", tensors)
        assert state.read_bytes() == damaged
    np.savez(state, key="key", done=["x"], counts=0.0, highest=0.0, numbers=0.0, objects=0.0)
    assert collect_module._open(state, "key", tensors).frames == []
    np.savez(state, key="another", done=["x"], counts=0, numbers=0)
    assert collect_module._open(state, "key", tensors).frames == []


def test_both_forms_are_measured_for_the_card(int8: Bundle, collection: Path, tmp_path: Path) -> None:
    """As `eval` measures each bundle by itself on that split; the files of the model are unchanged."""
    out = tmp_path / "m.int8.imkd"
    options = replace(FISHER, evaluate="all", collection=collection)
    result = quantize("tiny", "synth", out, options, source_options=SYNTH, threads=1)
    card = Bundle.load(out).manifest["metrics"]
    alone = {
        form: evaluate_bundle(path, "synth", EvalOptions(split="all"), source_options=SYNTH, run=RunOptions(threads=1))[
            "metrics"
        ]
        for form, path in (("float", "tiny"), ("int8", str(out)))
    }
    assert card == alone == result["metrics"] and card["float"] != card["int8"]
    assert 0.5 < card["int8"]["mAP"] <= 1
    assert {**digest(out), "manifest.json": ""} == {**digest(int8.path), "manifest.json": ""}


def test_a_metric_without_objects_is_not_on_the_card(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KITTI's AP of a split without such a car is NaN, which JSON cannot say."""
    measured = {"car_bev_ap40_easy": float("nan"), "car_bev_ap40_moderate": 0.0}
    monkeypatch.setattr(quantize_module, "evaluate_bundle", lambda *a, **k: {"metrics": measured})
    options = replace(FISHER, evaluate="all", collection=collection)
    quantize("tiny", "synth", tmp_path / "m.imkd", options, source_options=SYNTH, threads=1)
    card = Bundle.load(tmp_path / "m.imkd").manifest["metrics"]
    assert card == {form: {"car_bev_ap40_moderate": 0.0} for form in ("float", "int8")}


# ---- scales ----
@pytest.mark.parametrize("name", METHODS)
def test_concatenated_tensors_share_a_scale_in_the_graph_and_in_the_cache(calibration: Calibration, name: str) -> None:
    part = calibration.parts["bev"]
    shared = quantize_part(part, calibration.collection, Method(name)).shared
    concatenations = [n for n in part.graph.node if n.op_type == "Concat" and n.output[0] in shared]
    assert len(concatenations) == 2  # the radar gate's concatenation is read by a float layer
    for node in concatenations:
        steps = {shared[tensor] for tensor in [*node.input, *node.output] if tensor in shared}
        assert len(steps) == 1 and set(node.input) <= set(shared)


def test_the_cache_reads_back_by_its_format(calibration: Calibration, int8: Bundle) -> None:
    """An independent parser of the format: a header, then `name: eight hexadecimal digits` of a big-endian float."""
    for part in PARTS:
        lines = int8.file(f"{part}.cache").read_text().splitlines()
        assert re.fullmatch(r"TRT-\d{6}-EntropyCalibration2", lines[0])
        cache = {
            name: struct.unpack(">f", bytes.fromhex(code))[0]
            for name, code in (line.rsplit(": ", 1) for line in lines[1:])
        }
        model = onnx.load(str(int8.file(f"{part}.onnx")))
        pairs = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
        assert pairs and {node.input[0] for node in pairs} <= set(cache) and min(cache.values()) > 0
        tensors = {item.name for item in calibration.parts[part].graph.input} | set(calibration.parts[part].producer)
        assert set(cache) <= tensors  # TensorRT finds them in the float part


@pytest.mark.parametrize("equalise", [False, True])
def test_cache_and_overrides_hold_the_scales_of_the_float_bundle(
    calibration: Calibration, equalise: bool, tmp_path: Path
) -> None:
    """Without equalisation they are the graph's; with it they are the same, for the float bundle is."""
    method = Method(equalise=equalise)
    parts = {name: quantize_part(part, calibration.collection, method) for name, part in calibration.parts.items()}
    bundle = write(calibration, parts, tmp_path / "m.imkd", Recipe(method))
    table = json.loads(bundle.file("scales.json").read_text())
    for part, tensors in bundle.manifest["provenance"]["quantization"]["parts"].items():
        plain = quantize_part(calibration.parts[part], calibration.collection, Method(equalise=False))
        assert {name: entry[0]["scale"] for name, entry in table[part].items()} == plain.scales.activations
        assert (tensors["scales"] == plain.scales.activations) != equalise
        assert all(entry[0]["zero_point"] == 0 and entry[0]["quant_type"] == "QInt8" for entry in table[part].values())


# ---- engines ----
def test_float16_between_the_integers_computes_the_same(int8: Bundle, tmp_path: Path) -> None:
    """On the golden frame, part by part: NMSE 1e-3. Float16 moves a few values over a rounding edge."""
    engines = {}
    for part in PARTS:
        path = tmp_path / f"{part}.onnx"
        path.write_bytes(to_half(onnx.load(int8.file(path.name))).SerializeToString())
        engines[part] = engine = OnnxRuntimeEngine(1)
        engine.load(str(path))
    with Detector(int8, threads=1) as detector:
        next(replay(int8, detector))
        tensors = detector.tensors()
    for part, inputs, outputs in (
        ("camera", ["images"], ["depth", "context"]),
        ("bev", ["camera_bev", "radar_grid"], ["heatmap", "box"]),
    ):
        for name in outputs:
            values = run(engines[part], {key: tensors[key] for key in inputs}, name)
            expected = tensors[name].reshape(values.shape)
            assert ((values - expected) ** 2).sum() <= 1e-3 * (expected**2).sum(), name


def run(engine: Engine, inputs: dict[str, np.ndarray], output: str) -> np.ndarray:
    for info in engine.inputs():
        engine.bind(info.name, np.ascontiguousarray(inputs[info.name].reshape(info.shape), np.float32))
    shape = next(info.shape for info in engine.outputs() if info.name == output)
    out = np.zeros(shape, np.float32)
    engine.bind(output, out)
    engine.run()
    return out


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tensorrt_parses_and_builds_it(int8: Bundle, precision: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason=NO_TENSORRT)
    result = build_engines(int8, BuildOptions(tmp_path, precision=precision, builder="tensorrt_rtx"))
    assert all(entry["bytes"] > 100_000 for entry in result["engines"])


@pytest.mark.parametrize("kind", ["exact", "integer", "native"])
def test_nothing_saturates_between_products(kind: str, tmp_path: Path) -> None:
    """Every value is at the end of its range: a kernel that adds pairs of products in 16 bits gives another sum."""
    count = 64
    weight = np.full((1, count, 1, 1), 127, np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("Conv", ["d", "wd"], ["c"], kernel_shape=[1, 1]),
        helper.make_node("QuantizeLinear", ["c", "big", "z"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "big", "z"], ["y"]),
    ]
    known = {
        "s": np.float32(1),
        "z": np.int8(0),
        "w": weight,
        "ws": np.ones(1, np.float32),
        "wz": np.zeros(1, np.int8),
        "big": np.float32(127 * count),
    }
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in known.items()]
    info = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n, 8, 8]) for name, n in (("x", count), ("y", 1))
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", info[:1], info[1:], initializers),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    path = tmp_path / "canary.onnx"
    path.write_bytes(model.SerializeToString())
    if kind == "native" and "onnxruntime-native" not in engine_names():
        pytest.skip("built without the headers of ONNX Runtime")
    engine = (
        make_engine("onnxruntime-native", 1) if kind == "native" else OnnxRuntimeEngine(1, integer=kind == "integer")
    )
    engine.load(str(path))
    assert (run(engine, {"x": np.full((1, count, 8, 8), 127, np.float32)}, "y") == 127 * 127 * count).all()


def test_the_bundle_is_smaller_than_the_float_one(calibration: Calibration, int8: Bundle) -> None:
    """Of tiny without its golden drive, whose weights are stored in 16 bits: two thirds, with every table of scales."""
    sizes = [
        sum(file.stat().st_size for file in bundle.path.iterdir() if file.name != "golden.npz")
        for bundle in (calibration.bundle, int8)
    ]
    assert sizes[1] < 0.67 * sizes[0]


# ---- without sensitivity ----
def test_without_pytorch_the_percentile_is_used_and_said(
    tmp_path: Path, random_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_package(monkeypatch, "torch")
    for module in ("quantization.chain", "quantization.joint", "engines.torch_graph", "training.models.student"):
        monkeypatch.delitem(sys.modules, f"imkd_edge.{module}", raising=False)
    options = replace(FISHER, percentile=99.9)
    with pytest.warns(UserWarning) as said:
        result = quantize("tiny", "synth", tmp_path / "p.imkd", options, source_options=SYNTH, threads=1)
    texts = " ".join(str(item.message) for item in said)
    assert "no sensitivity without torch" in texts and "ranges are the percentile 99.9 instead of fisher's" in texts
    assert (result["name"], result["percentile"]) == ("percentile", 99.9)
    assert result["fidelity"]["loss"] > 0


def test_an_operator_that_pytorch_does_not_know_leaves_the_percentile(tmp_path: Path) -> None:
    bundle = write_random_bundle(tmp_path / "random.imkd")  # its camera part has a Split
    with pytest.warns(UserWarning, match="the torch engine has no operator Split"):
        result = quantize(bundle, "synth", tmp_path / "r.imkd", FISHER, source_options=SYNTH, threads=1)
    assert result["name"] == "percentile"


# ---- refusals ----
def test_an_int8_bundle_is_refused(int8: Bundle, tmp_path: Path) -> None:
    with pytest.raises(Error) as error:
        quantize(int8, "synth", tmp_path / "x.imkd", source_options=SYNTH)
    assert error.value.code == "E0614" and not (tmp_path / "x.imkd").exists()


def test_a_bundle_whose_layers_all_stay_float_becomes_one_without_pairs(tmp_path: Path) -> None:
    """The random bundle's BEV part reads the raw radar grid in every layer."""
    bundle = write_random_bundle(tmp_path / "random.imkd")
    options = QuantizeOptions(frames=FRAMES, no_correct=True, gate=float("inf"))
    result = quantize(bundle, "synth", tmp_path / "r.int8.imkd", options, source_options=SYNTH, threads=1)
    card = Bundle.load(tmp_path / "r.int8.imkd").manifest["provenance"]["quantization"]["parts"]
    assert set(card["bev"]["precision"].values()) == {"float: reads the radar grid, whose units are mixed"}
    assert 0 < result["int8_share"] < 1 and list(card["camera"]["scales"]) == ["images"]
    assert 0 < result["fidelity"]["loss"] < 10


def test_a_model_with_past_frames_runs_them_first(tmp_path: Path) -> None:
    """Its history input is not all zero in calibration, although the frames are not in temporal order."""
    bundle = write_random_bundle(tmp_path / "past.imkd", random_spec(past=2, segmentation=True))
    calibration = calibrate(bundle, "synth", None, SYNTH, FRAMES, tmp_path / "c.npz", threads=1)
    tensors = calibration.parts["bev"].observed_tensors({"history", "camera_bev"})
    observable = {name: part.with_outputs([]) for name, part in calibration.parts.items()}
    source, names = calibration.source, calibration.frames.names[:2]
    collection = collect_module.collect(calibration.bundle.spec, observable, tensors, source, names, threads=1)
    assert collection.histograms["bev/history"].largest > 0
    assert max(check_golden(make_int8(calibration, tmp_path / "past.int8.imkd"), threads=1).values()) == 0


def test_calibration_of_a_fast_recording_walks_back_by_time(tmp_path: Path) -> None:
    """At 10 Hz two past maps, half a second apart, are ten samples back; a fixed number of samples would miss them."""
    bundle = write_random_bundle(tmp_path / "past.imkd", random_spec(past=2))
    data = SynthSource(scenes=2, frames_per_scene=11, rate_hz=10, rig=golden_rig(Bundle.load(bundle)))
    calibration = calibrate(bundle, data, "all", {}, FRAMES, tmp_path / "c.npz", threads=1)
    part = calibration.parts["bev"]
    observable = {name: part.with_outputs([]) for name, part in calibration.parts.items()}
    tensors = part.observed_tensors({"history"})
    half = part.shapes["history"][1] // 2
    for frame, filled in (("s000-f010", (True, True)), ("s000-f007", (True, False)), ("s001-f002", (False, False))):
        collect_module.collect(calibration.bundle.spec, observable, tensors, data, [frame], threads=1)
        with Detector(bundle, data[frame].rig, threads=1) as detector:
            infer_with_past(detector, Timeline(data, calibration.bundle.spec.history).walk(frame))
            history = detector.tensors()["history"].reshape(part.shapes["history"])
        assert (bool(history[:, :half].any()), bool(history[:, half:].any())) == filled


def test_a_bundle_for_more_cameras_is_quantized_with_their_data(tmp_path: Path) -> None:
    """Its golden drive then has the rig of that data, and every camera of it."""
    write_random_bundle(tmp_path / "two.imkd", random_spec(cameras=2))
    rig = default_rig((64, 48))
    data = SynthSource(scenes=2, frames_per_scene=9, rig=rig)
    with pytest.raises(Error) as raised:
        calibrate(tmp_path / "two.imkd", data, "all", {}, FRAMES, None, threads=1)
    assert raised.value.code == "E0613"
    export_with_cameras(tmp_path / "two.imkd", 6, tmp_path / "six.imkd")
    calibration = calibrate(tmp_path / "six.imkd", data, "all", {}, FRAMES, tmp_path / "c.npz", threads=1)
    int8 = make_int8(calibration, tmp_path / "six.int8.imkd")
    frames = read_golden(int8)
    assert frames[0].rig == rig and len(frames) == 6
    assert all(image is not None for image in frames[0].arguments()[0])
    assert max(check_golden(int8, threads=1).values()) == 0


def test_real_frames_with_a_corrupt_one(shared_data: Path, tmp_path: Path) -> None:
    """Astyx, the image of one calibration frame truncated: it is reported as unusable, and the rest is used."""
    source = tmp_path / "astyx"
    names = select(str(shared_data / "astyx"), split="train").names[:40:2]
    for folder in ("camera_front", "radar_6455", "calibration"):
        (source / folder).mkdir(parents=True)
        for name in names:
            for file in (shared_data / "astyx" / folder).glob(f"{name}.*"):
                shutil.copy(file, source / folder)
    broken = source / "camera_front" / f"{names[3]}.jpg"
    broken.write_bytes(broken.read_bytes()[:2000])
    options = QuantizeOptions(frames=FRAMES, no_correct=True)
    result = quantize("astyx-lite", str(source), tmp_path / "a.int8.imkd", options, threads=1)
    assert list(result["unusable"]) == [names[3]] and result["int8_share"] > 0.95
    with pytest.raises(Error) as error:
        quantize("tiny", str(source), tmp_path / "b.imkd")
    assert error.value.code == "E0613"
