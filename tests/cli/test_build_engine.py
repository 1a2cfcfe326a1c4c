"""build-engine: with TensorRT for RTX, which builds without a GPU, and with a fake of TensorRT."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import NO_TENSORRT
from fake_tensorrt import FakeTensorRT
from onnx import TensorProto, helper, numpy_helper

from helpers import without_package, write_random_bundle
from imkd_edge.bundle import PARTS, Bundle, shipped
from imkd_edge.checks import built_engines
from imkd_edge.engines import build as build_engine
from imkd_edge.engines.build import engine_folder
from imkd_edge.engines.float16 import to_half
from imkd_edge.engines.gpu import Gpu
from imkd_edge.engines.io import set_io
from imkd_edge.errors import Code, Error
from imkd_edge.options import BuildOptions

ORIN = Gpu("Orin", "87", "12.6", "540.4.0")


@pytest.fixture
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason=NO_TENSORRT)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    """A fake of TensorRT 10.3 on an Orin."""
    module = FakeTensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(build_engine, "find_gpu", lambda: ORIN)
    return module


def build_engines(bundle: Any, out: Path | None = None, progress: Any = None, **options: Any) -> dict[str, Any]:
    return build_engine.build_engines(bundle, BuildOptions(out, **options), progress=progress)


def built(result: dict[str, Any]) -> list[bool]:
    return [entry["built"] for entry in result["engines"]]


# ---- TensorRT for RTX ----
@pytest.mark.parametrize("name", shipped())
def test_both_parts_of_a_shipped_bundle_are_built(rtx: Any, name: str, tmp_path: Path) -> None:
    result = build_engines(name, tmp_path, builder="tensorrt_rtx")
    assert [entry["part"] for entry in result["engines"]] == list(PARTS) and built(result) == [True, True]
    for entry in result["engines"]:
        assert Path(entry["path"]).stat().st_size == entry["bytes"] > 100_000
        assert entry["key"]["tensorrt"] == f"tensorrt_rtx {rtx.__version__}"
    again = build_engines(name, tmp_path, builder="tensorrt_rtx")
    assert built(again) == [False, False] and [entry["why"] for entry in again["engines"]] == [[], []]


def signature(network: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> type and shape of a network's inputs and outputs."""
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    return {tensor.name: (tensor.dtype.name, tuple(tensor.shape)) for tensor in tensors}


def parse(rtx: Any, model: bytes) -> tuple[Any, ...]:
    """A strongly typed network, followed by the objects that must outlive it."""
    logger = rtx.Logger(rtx.Logger.ERROR)
    builder = rtx.Builder(logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, logger)
    assert parser.parse(model)
    return network, builder, parser, logger


def casts_at(rtx: Any, network: Any, names: set[str]) -> set[str]:
    """Those of the tensors that a conversion between float16 and float32 reads or writes."""
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    inputs = [layer.get_input(k) for layer in layers for k in range(layer.num_inputs)]
    used = names | {tensor.name for tensor in inputs if tensor}  # the builder drops outputs that no layer reads
    casts = [layer for layer in layers if layer.type == rtx.LayerType.CAST and layer.get_output(0).name in used]
    ends = [(cast.get_input(0), cast.get_output(0)) for cast in casts]
    ends = [pair for pair in ends if {tensor.dtype for tensor in pair} == {rtx.float16, rtx.float32}]
    return names & {tensor.name for pair in ends for tensor in pair}


@pytest.mark.parametrize("typing", ["float32", "float16"])
@pytest.mark.parametrize("part", PARTS)
def test_inputs_and_outputs_match_the_kernels(rtx: Any, part: str, typing: str) -> None:
    """They are float16 where the part computes in it, without conversions; the context has its channels last."""
    model = onnx.load(Bundle.load("tiny").file(f"{part}.onnx"))
    data = (to_half(model) if typing == "float16" else model).SerializeToString()
    network, builder, *_owners = parse(rtx, data)
    before = signature(network)
    assert {kind for kind, _ in before.values()} == {"FLOAT"}
    set_io(rtx, network)
    # 1. types and shapes
    dtype = "HALF" if typing == "float16" else "FLOAT"
    shapes = {name: (n, h, w, c) if name == "context" else (n, c, h, w) for name, (_, (n, c, h, w)) in before.items()}
    assert signature(network) == {name: (dtype, shape) for name, shape in shapes.items()}
    # 2. no conversion at an input or output, except of the depth, whose softmax computes in float32
    assert casts_at(rtx, network, set(before)) == ({"depth"} if (part, typing) == ("camera", "float16") else set())
    assert builder.build_serialized_network(network, builder.create_builder_config()) is not None


def test_context_with_equal_lengths_is_not_transposed(rtx: Any) -> None:
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4, 4, 4]) for name in ("images", "context")]
    graph = helper.make_graph([helper.make_node("Relu", ["images"], ["context"])], "g", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    network, *_owners = parse(rtx, model.SerializeToString())
    set_io(rtx, network)
    assert network.num_layers == 1 and signature(network)["context"] == ("FLOAT", (2, 4, 4, 4))


def test_io_onnx_leaves_inputs_and_outputs_as_in_the_onnx_part(
    fake: FakeTensorRT, run: Any, monkeypatch: Any, random_bundle: Path, tmp_path: Path
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(build_engine, "set_io", lambda trt, network: calls.append(trt))
    build_engines(random_bundle, tmp_path, io="onnx")
    assert not calls
    build_engines(random_bundle, tmp_path)
    assert calls == [fake, fake]
    outcome = run("build-engine", random_bundle, "--io", "half")
    assert outcome.code == 2 and "choose one of: auto, onnx" in outcome.stderr


def test_command_reports_engines_that_fit_and_a_self_test_not_run(
    rtx: Any, run: Any, random_bundle: Path, tmp_path: Path
) -> None:
    result = run("build-engine", random_bundle, "--out", tmp_path, "--builder", "tensorrt_rtx", "--json").json
    assert result["self_test"] == "not run: no GPU"
    text = run("build-engine", random_bundle, "--out", tmp_path, "--builder", "tensorrt_rtx").text
    assert "kept" in text and "golden drive: not run: no GPU" in text


def test_error_of_the_parser_is_in_the_message(rtx: Any) -> None:
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 4, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Mystery", ["x"], ["y"], domain="no.such")], "g", info[:1], info[1:])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("no.such", 1)], ir_version=9
    )
    with pytest.raises(Error, match="Mystery") as error:
        build_engine._Build(rtx, BuildOptions()).run(model.SerializeToString(), "part.onnx")
    assert error.value.code == "E0502" and error.value.where == "part.onnx"


def test_interruption_stops_a_build(rtx: Any, random_bundle: Path, tmp_path: Path) -> None:
    class Interrupting:
        def start(self, phase: str, steps: int) -> None: ...
        def finish(self, phase: str) -> None: ...
        def step(self, phase: str, step: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engines(random_bundle, tmp_path / "engines", builder="tensorrt_rtx", progress=Interrupting())
    assert not list(tmp_path.glob("engines/*"))


def test_progress_receives_nested_phases_from_start_to_finish(rtx: Any, random_bundle: Path, tmp_path: Path) -> None:
    running: dict[str, int] = {}
    phases: set[str] = set()

    class Recorder:
        def start(self, phase: str, steps: int) -> None:
            running[phase] = steps
            phases.add(phase)

        def step(self, phase: str, step: int) -> None:
            assert 0 <= step < running[phase]

        def finish(self, phase: str) -> None:
            del running[phase]

    build_engines(random_bundle, tmp_path, builder="tensorrt_rtx", progress=Recorder())
    assert len(phases) > 2 and not running


# ---- the fake of TensorRT ----
def test_network_is_strongly_typed_without_precision_flags(
    fake: FakeTensorRT, random_bundle: Path, tmp_path: Path
) -> None:
    build_engines(random_bundle, tmp_path, precision="float32")
    assert fake.network_flags == [1 << fake.NetworkDefinitionCreationFlag.STRONGLY_TYPED] * 2
    assert [config.flags for config in fake.configs] == [set(), set()]
    assert [fake.parsed[i] for i in range(2)] == [(random_bundle / f"{part}.onnx").read_bytes() for part in PARTS]


# ---- precision ----
@pytest.mark.parametrize("name", ["tiny", "astyx-lite"])
def test_a_bundle_is_built_in_float16_and_keeps_its_outputs(fake: FakeTensorRT, name: str, tmp_path: Path) -> None:
    """What TensorRT parses: convolutions compute in float16, and the outputs are those of the part (NMSE 1e-3)."""
    build_engines(name, tmp_path)
    for part, parsed in zip(PARTS, fake.parsed, strict=True):
        half = onnx.load_from_string(parsed)
        inferred = onnx.shape_inference.infer_shapes(half, strict_mode=True).graph
        types = {item.name: item.type.tensor_type.elem_type for item in inferred.value_info}
        convolutions = [node for node in half.graph.node if node.op_type == "Conv"]
        assert convolutions and {types[node.output[0]] for node in convolutions} == {TensorProto.FLOAT16}
        check_outputs(Bundle.load(name).read(f"{part}.onnx"), parsed)


def check_outputs(part: bytes, half: bytes) -> None:
    sessions = [ort.InferenceSession(model, providers=["CPUExecutionProvider"]) for model in (part, half)]
    random = np.random.default_rng(0)
    inputs = {item.name: random.uniform(0, 1, item.shape).astype(np.float32) for item in sessions[0].get_inputs()}
    for exact, value in zip(*(session.run(None, inputs) for session in sessions), strict=True):
        assert value.dtype == np.float32 and ((value - exact) ** 2).sum() < 1e-3 * (exact**2).sum()


def test_an_int8_part_keeps_its_integers_in_float16() -> None:
    """Scales of a quantized bundle are numbers of float16, so that the pairs round alike (tests/quantization)."""
    weight, scale = np.array([[[[3]]]], np.int8), np.array(0.25, np.float16).astype(np.float32)
    constants = [numpy_helper.from_array(value, key) for key, value in [("q", weight), ("s", scale)]]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 4, 4]) for name in ("x", "y")]
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["w"]), helper.make_node("Conv", ["x", "w"], ["y"])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", info[:1], info[1:], constants),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    half = to_half(model)
    stored = {item.name: numpy_helper.to_array(item) for item in half.graph.initializer}
    assert stored["q"].dtype == np.int8 and stored["s_half"] == np.float16(0.25)


def test_float16_without_onnx_is_refused_and_says_what_to_install(
    fake: FakeTensorRT, run: Any, monkeypatch: pytest.MonkeyPatch, random_bundle: Path, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "imkd_edge.engines.float16")
    without_package(monkeypatch, "onnx")
    outcome = run("build-engine", random_bundle, "--out", tmp_path)
    assert (
        outcome.code == 3 and "E0501" in outcome.stderr and "pip install onnx, or --precision float32" in outcome.stderr
    )
    assert run("build-engine", random_bundle, "--out", tmp_path, "--precision", "float32").code == 0


def test_a_part_that_cannot_be_written_in_float16_is_refused(fake: FakeTensorRT, random_bundle: Path) -> None:
    with pytest.raises(Error, match="cannot write this part in float16") as error:
        build_engine._Build(fake, BuildOptions()).typed(b"no part", "camera.onnx")
    assert error.value.code == "E0502" and "--precision float32" in error.value.fix


def test_another_precision_is_refused(fake: FakeTensorRT, run: Any, random_bundle: Path) -> None:
    outcome = run("build-engine", random_bundle, "--precision", "fp16")
    assert outcome.code == 2 and "choose one of: float16, float32" in outcome.stderr


def test_workspace_and_dla_reach_the_builder(fake: FakeTensorRT, random_bundle: Path, tmp_path: Path) -> None:
    build_engines(random_bundle, tmp_path, workspace_mb=512, dla=1)
    for config in fake.configs:
        assert config.limits == {fake.MemoryPoolType.WORKSPACE: 512 << 20}
        assert (config.default_device_type, config.DLA_core) == (fake.DeviceType.DLA, 1)
        assert config.flags == {fake.BuilderFlag.GPU_FALLBACK}


def test_missing_dla_core_is_an_error(fake: FakeTensorRT, random_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(Error, match="no DLA core 2: this machine has 2") as error:
        build_engines(random_bundle, tmp_path, dla=2)
    assert error.value.code == "E0511"


def test_timing_cache_is_read_and_written(fake: FakeTensorRT, random_bundle: Path, tmp_path: Path) -> None:
    build_engines(random_bundle, tmp_path / "a", timing_cache=tmp_path / "timings")
    assert (tmp_path / "timings").read_bytes() == b"times++"  # one + for each build
    result = build_engines(random_bundle, tmp_path / "b", timing_cache=tmp_path / "timings")
    assert (tmp_path / "timings").read_bytes() == b"times++++"
    assert [entry["warnings"] for entry in result["engines"]] == [[], []]


def test_timing_cache_of_another_machine_is_discarded_with_a_warning(
    fake: FakeTensorRT, random_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "timings").write_bytes(b"of another machine")
    result = build_engines(random_bundle, tmp_path / "a", timing_cache=tmp_path / "timings")
    assert "its times are not used" in result["engines"][0]["warnings"][0]
    assert (tmp_path / "timings").read_bytes() == b"times++"


CHANGES = {  # element of the key -> what changes it
    "tensorrt": lambda fake, patch, bundle: patch.setattr(fake, "__version__", "10.16.1"),
    "cuda": lambda fake, patch, bundle: patch.setattr(
        build_engine, "find_gpu", lambda: Gpu("Orin", "87", "13.0", "540.4.0")
    ),
    "driver": lambda fake, patch, bundle: patch.setattr(
        build_engine, "find_gpu", lambda: Gpu("Orin", "87", "12.6", "580.0")
    ),
    "gpu": lambda fake, patch, bundle: patch.setattr(
        build_engine, "find_gpu", lambda: Gpu("Orin NX", "87", "12.6", "540.4.0")
    ),
    "sm": lambda fake, patch, bundle: patch.setattr(
        build_engine, "find_gpu", lambda: Gpu("Orin", "89", "12.6", "540.4.0")
    ),
    "onnx_sha256": lambda fake, patch, bundle: _retrain(bundle),
}


def _retrain(bundle: Path) -> None:
    shutil.rmtree(bundle)
    write_random_bundle(bundle, seed=7)


@pytest.mark.parametrize("element", CHANGES)
def test_change_of_any_element_of_the_key_builds_again(
    fake: FakeTensorRT, monkeypatch: pytest.MonkeyPatch, random_bundle: Path, tmp_path: Path, element: str
) -> None:
    bundle = shutil.copytree(random_bundle, tmp_path / "m.imkd")
    assert built(build_engines(bundle)) == [True, True]
    assert built(build_engines(bundle)) == [False, False]
    CHANGES[element](fake, monkeypatch, bundle)
    again = build_engines(bundle)
    assert built(again) == [True, True]
    assert all(entry["why"][0].startswith(f"{element} is ") for entry in again["engines"])
    assert built(build_engines(bundle)) == [False, False]


@pytest.mark.parametrize("flag", [{"workspace_mb": 64}, {"dla": 0}, {"io": "onnx"}, {"precision": "float32"}])
def test_change_of_a_build_flag_builds_again(
    fake: FakeTensorRT, random_bundle: Path, tmp_path: Path, flag: dict[str, Any]
) -> None:
    build_engines(random_bundle, tmp_path)
    assert built(build_engines(random_bundle, tmp_path, **flag)) == [True, True]


def test_engines_are_written_beside_the_bundle(fake: FakeTensorRT, random_bundle: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(random_bundle, tmp_path / "m.imkd")
    build_engines(bundle)
    assert {path.name for path in (tmp_path / "m.engines").iterdir()} == {
        f"{part}.engine{end}" for part in PARTS for end in ("", ".json")
    }
    assert engine_folder(Bundle.load(bundle)) == tmp_path / "m.engines"  # load verifies that the bundle is unchanged


def test_failed_build_keeps_the_old_engine(fake: FakeTensorRT, random_bundle: Path, tmp_path: Path) -> None:
    build_engines(random_bundle, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    fake.refuses = "no implementation for node Conv_3"
    with pytest.raises(Error, match="cannot build this network: no implementation for node Conv_3"):
        build_engines(random_bundle, tmp_path, workspace_mb=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_node_without_a_kernel_is_mended_by_a_float_layer(
    fake: FakeTensorRT, random_bundle: Path, tmp_path: Path
) -> None:
    fake.refuses = "Could not find any implementation for node stem.weight_q + conv_1 + relu_1."
    with pytest.raises(Error) as raised:
        build_engines(random_bundle, tmp_path)
    assert "conv_1" in raised.value.what and "--keep-float camera/LAYER" in raised.value.fix


def test_an_int8_bundle_for_the_dla_is_warned_of(fake: FakeTensorRT, random_bundle: Path, tmp_path: Path) -> None:
    part = Bundle.load(random_bundle).read("bev.onnx")
    build = build_engine._Build(fake, BuildOptions(dla=0))
    for content, said in ((part, []), (part + b"QuantizeLinear", [build_engine.NO_DLA])):
        key = {"onnx": str(len(content))}
        engine = tmp_path / f"{len(content)}.engine"
        as_it_is = SimpleNamespace(run=build.run, typed=lambda content, where: content, options=build.options)
        result = build_engine._build_part(Path("bev.onnx"), content, engine, key, as_it_is)
        assert result["warnings"] == said


# ---- machines without TensorRT, GPU or a folder to write ----
def test_error_without_tensorrt_names_its_packages(
    run: Any, monkeypatch: pytest.MonkeyPatch, random_bundle: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # an import of it fails
    outcome = run("build-engine", random_bundle, "--json")
    assert outcome.code == 3 and outcome.stdout == ""
    for text in ("E0501", "pip install tensorrt", "python3-libnvinfer"):
        assert text in outcome.stderr


def test_tensorrt_is_not_called_without_a_gpu(
    fake: FakeTensorRT, run: Any, monkeypatch: pytest.MonkeyPatch, random_bundle: Path
) -> None:
    """TensorRT may crash there at its first call."""

    def no_gpu() -> Gpu:
        raise Error(Code.device_unavailable, "no NVIDIA driver", "libcuda.so.1", "install JetPack")

    monkeypatch.setattr(build_engine, "find_gpu", no_gpu)
    outcome = run("build-engine", random_bundle)
    assert outcome.code == 3 and "E0511" in outcome.stderr and "JetPack" in outcome.stderr
    assert not fake.configs and not fake.network_flags


def test_unknown_builder_is_refused(run: Any, random_bundle: Path) -> None:
    outcome = run("build-engine", random_bundle, "--builder", "os")
    assert outcome.code == 3 and "choose one of: tensorrt, tensorrt_rtx" in outcome.stderr


def test_folder_that_cannot_be_written_is_an_error(
    fake: FakeTensorRT, run: Any, random_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    outcome = run("build-engine", random_bundle, "--out", tmp_path / "file")
    assert outcome.code == 3 and "E0702" in outcome.stderr and "--out" in outcome.stderr


def test_json_has_the_records_beside_the_engines(
    fake: FakeTensorRT, run: Any, random_bundle: Path, tmp_path: Path
) -> None:
    result = run("build-engine", random_bundle, "--out", tmp_path, "--json").json
    for entry in result["engines"]:
        record = json.loads(Path(entry["path"] + ".json").read_text())
        assert record["key"] == entry["key"] and record["engine"]["bytes"] == entry["bytes"]
        machine = {"gpu": "Orin", "sm": "87", "cuda": "12.6", "driver": "540.4.0", "tensorrt": "tensorrt 10.3.0"}
        assert {name: entry["key"][name] for name in machine} == machine
    assert result["self_test"].startswith("not run")


# ---- the golden frame on the device ----
@pytest.fixture
def device(fake: FakeTensorRT, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A core with CUDA and TensorRT; ONNX Runtime replaces the engines."""
    core = SimpleNamespace(require_cuda=lambda: None, native_engines=lambda: ["tensorrt"])
    monkeypatch.setattr(built_engines, "_core", core)
    golden_results, calls = built_engines.golden_results, []

    def results(bundle: Bundle, **options: str) -> Iterator[Any]:
        calls.append(options)
        return golden_results(bundle)

    monkeypatch.setattr(built_engines, "golden_results", results)
    return SimpleNamespace(core=core, calls=calls)


def test_golden_frame_runs_through_the_new_engines(device: Any, run: Any, random_bundle: Path) -> None:
    result = run("build-engine", random_bundle, "--json").json
    assert result["self_test"].startswith("passed: ") and "boxes differ by 0 m" in result["self_test"]
    assert device.calls == [{"engine": "tensorrt", "device": "cuda"}]


def test_difference_of_the_golden_frame_fails_the_command(
    device: Any, run: Any, random_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(built_engines, "compare", lambda bundle, **_: "failed: 3 of 9 boxes are the exporter's")
    outcome = run("build-engine", random_bundle)
    assert outcome.code == 1 and "failed: 3 of 9 boxes are the exporter's" in outcome.text

    def fail(bundle: Bundle, **_: str) -> str:
        raise Error(Code.device_failed, "cudaGraphLaunch: out of memory")

    monkeypatch.setattr(built_engines, "compare", fail)
    outcome = run("build-engine", random_bundle, "--json")
    assert outcome.code == 1 and outcome.json["self_test"].startswith("failed: error[E0512] cudaGraphLaunch")


def test_reasons_why_the_golden_frame_is_not_run(device: Any, run: Any, random_bundle: Path, tmp_path: Path) -> None:
    def self_test(*options: Any) -> str:
        outcome = run("build-engine", random_bundle, "--json", *options)
        assert outcome.code == 0 and not device.calls
        return outcome.json["self_test"]

    elsewhere = self_test("--out", tmp_path / "other")
    assert elsewhere == "not run: a Detector looks for engines in random.engines beside the bundle"
    device.core.native_engines = lambda: ["onnxruntime"]
    assert self_test() == "not run: this build of the core has no TensorRT"

    def no_cuda() -> None:
        raise Error(Code.device_unavailable, "this build of the core has no CUDA")

    device.core.require_cuda = no_cuda
    assert self_test() == "not run: this build of the core has no CUDA"
