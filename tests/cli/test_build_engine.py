"""build-engine: with the real builder of TensorRT for RTX, which needs no GPU, and with a stand-in for TensorRT itself."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import NO_TENSORRT
from fake_tensorrt import FakeTensorRT

from imkd_edge.bundle import PARTS, Bundle, shipped
from imkd_edge.checks import selftest
from imkd_edge.engines import build as build_engine
from imkd_edge.engines.build import engine_folder
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
    """TensorRT 10.3 on an Orin, as far as build-engine sees it."""
    module = FakeTensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(build_engine, "find_gpu", lambda: ORIN)
    return module


def build_engines(bundle: Any, out: Path | None = None, progress: Any = None, **options: Any) -> dict[str, Any]:
    return build_engine.build_engines(bundle, BuildOptions(out, **options), progress=progress)


def built(result: dict[str, Any]) -> list[bool]:
    return [entry["built"] for entry in result["engines"]]


# ---- the real builder ----
@pytest.mark.parametrize("name", shipped())
def test_both_parts_of_a_shipped_bundle_are_built(rtx: Any, name: str, tmp_path: Path) -> None:
    result = build_engines(name, tmp_path, builder="tensorrt_rtx")
    assert [entry["part"] for entry in result["engines"]] == list(PARTS) and built(result) == [True, True]
    for entry in result["engines"]:
        assert Path(entry["path"]).stat().st_size == entry["bytes"] > 100_000
        assert entry["key"]["tensorrt"] == f"tensorrt_rtx {rtx.__version__}"
    again = build_engines(name, tmp_path, builder="tensorrt_rtx")
    assert built(again) == [False, False] and [entry["why"] for entry in again["engines"]] == [[], []]


def border(network: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> type and shape of a network's inputs and outputs."""
    tensors = [network.get_input(i) for i in range(network.num_inputs)] + [
        network.get_output(i) for i in range(network.num_outputs)
    ]
    return {tensor.name: (tensor.dtype.name, tuple(tensor.shape)) for tensor in tensors}


def parsed(rtx: Any, onnx: bytes) -> tuple[Any, ...]:
    """A strongly typed network, then what must outlive it."""
    logger = rtx.Logger(rtx.Logger.ERROR)
    builder = rtx.Builder(logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, logger)
    assert parser.parse(onnx)
    return network, builder, parser, logger


@pytest.mark.parametrize("typing", ["float32", "float16"])
@pytest.mark.parametrize("part", PARTS)
def test_the_border_is_as_the_kernels_want_it(rtx: Any, part: str, typing: str) -> None:
    """float16 where the part computes in it, with no conversion behind an input or before an output; the context channels last."""
    import onnx

    from imkd_edge.quantization.half import to_half

    model = onnx.load(Bundle.load("tiny").file(f"{part}.onnx"))
    data = (to_half(model) if typing == "float16" else model).SerializeToString()
    network, builder, *_keep = parsed(rtx, data)
    before = border(network)
    assert {kind for kind, _ in before.values()} == {"FLOAT"}
    set_io(rtx, network)
    turned = {name: (n, h, w, c) if name == "context" else (n, c, h, w) for name, (_, (n, c, h, w)) in before.items()}
    assert border(network) == {
        name: ("HALF" if typing == "float16" else "FLOAT", shape) for name, shape in turned.items()
    }
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    used = set(before) | {
        layer.get_input(k).name for layer in layers for k in range(layer.num_inputs) if layer.get_input(k)
    }
    ends = {
        name
        for layer in layers
        if layer.type == rtx.LayerType.CAST
        and {layer.get_input(0).dtype, layer.get_output(0).dtype} == {rtx.float16, rtx.float32}
        for name in (layer.get_input(0).name, layer.get_output(0).name)
        if name in before and layer.get_output(0).name in used  # the builder drops what nobody reads
    }
    assert ends == ({"depth"} if (part, typing) == ("camera", "float16") else set())  # the softmax computes in float32
    assert builder.build_serialized_network(network, builder.create_builder_config()) is not None


def test_a_context_whose_shape_would_not_tell_is_left_as_it_is(rtx: Any) -> None:
    from onnx import TensorProto, helper

    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4, 4, 4]) for name in ("images", "context")]
    graph = helper.make_graph([helper.make_node("Relu", ["images"], ["context"])], "g", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    network, *_keep = parsed(rtx, model.SerializeToString())
    set_io(rtx, network)
    assert network.num_layers == 1 and border(network)["context"] == ("FLOAT", (2, 4, 4, 4))


def test_the_border_may_stay_as_in_the_onnx_part(
    fake: FakeTensorRT, run: Any, monkeypatch: Any, random_bundle: Path, tmp_path: Path
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(build_engine, "set_io", lambda trt, network: seen.append(trt))
    build_engines(random_bundle, tmp_path, io="onnx")
    assert not seen
    build_engines(random_bundle, tmp_path)
    assert seen == [fake, fake]
    outcome = run("build-engine", random_bundle, "--io", "half")
    assert outcome.code == 2 and "choose one of: auto, onnx" in outcome.stderr


def test_the_command_says_what_it_did_not_do(rtx: Any, run: Any, random_bundle: Path, tmp_path: Path) -> None:
    result = run("build-engine", random_bundle, "--out", tmp_path, "--builder", "tensorrt_rtx", "--json").json
    assert result["self_test"] == "not run: no GPU"
    text = run("build-engine", random_bundle, "--out", tmp_path, "--builder", "tensorrt_rtx").text
    assert "kept" in text and "golden frame: not run: no GPU" in text


def test_what_tensorrt_cannot_parse_is_refused_with_its_reason(rtx: Any) -> None:
    from onnx import TensorProto, helper

    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 4, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Mystery", ["x"], ["y"], domain="no.such")], "g", info[:1], info[1:])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("no.such", 1)], ir_version=9
    )
    with pytest.raises(Error, match="Mystery") as error:
        build_engine._Build(rtx, BuildOptions()).run(model.SerializeToString(), "part.onnx")
    assert error.value.code == "E0502" and error.value.where == "part.onnx"


def test_an_interruption_stops_a_build(rtx: Any, random_bundle: Path, tmp_path: Path) -> None:
    class Impatient:
        def start(self, phase: str, steps: int) -> None: ...
        def finish(self, phase: str) -> None: ...
        def step(self, phase: str, step: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engines(random_bundle, tmp_path / "engines", builder="tensorrt_rtx", progress=Impatient())
    assert not list(tmp_path.glob("engines/*"))


def test_progress_hears_nested_phases_from_start_to_end(rtx: Any, random_bundle: Path, tmp_path: Path) -> None:
    under_way: dict[str, int] = {}
    seen: set[str] = set()

    class Listener:
        def start(self, phase: str, steps: int) -> None:
            under_way[phase] = steps
            seen.add(phase)

        def step(self, phase: str, step: int) -> None:
            assert 0 <= step < under_way[phase]

        def finish(self, phase: str) -> None:
            del under_way[phase]

    build_engines(random_bundle, tmp_path, builder="tensorrt_rtx", progress=Listener())
    assert len(seen) > 2 and not under_way


# ---- TensorRT itself, by a stand-in ----
def test_the_network_is_strongly_typed_and_no_precision_is_asked_for(
    fake: FakeTensorRT, random_bundle: Path, tmp_path: Path
) -> None:
    build_engines(random_bundle, tmp_path)
    assert fake.network_flags == [1 << fake.NetworkDefinitionCreationFlag.STRONGLY_TYPED] * 2
    assert [config.flags for config in fake.configs] == [set(), set()]
    assert [fake.parsed[i] for i in range(2)] == [(random_bundle / f"{part}.onnx").read_bytes() for part in PARTS]


def test_workspace_and_dla_are_handed_on(fake: FakeTensorRT, random_bundle: Path, tmp_path: Path) -> None:
    build_engines(random_bundle, tmp_path, workspace_mb=512, dla=1)
    for config in fake.configs:
        assert config.limits == {fake.MemoryPoolType.WORKSPACE: 512 << 20}
        assert (config.default_device_type, config.DLA_core) == (fake.DeviceType.DLA, 1)
        assert config.flags == {fake.BuilderFlag.GPU_FALLBACK}


def test_a_dla_core_that_is_not_there(fake: FakeTensorRT, random_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(Error, match="no DLA core 2: this machine has 2") as error:
        build_engines(random_bundle, tmp_path, dla=2)
    assert error.value.code == "E0511"


def test_the_timing_cache_is_read_and_written(fake: FakeTensorRT, random_bundle: Path, tmp_path: Path) -> None:
    build_engines(random_bundle, tmp_path / "a", timing_cache=tmp_path / "timings")
    assert (tmp_path / "timings").read_bytes() == b"times++"  # one + for each build
    result = build_engines(random_bundle, tmp_path / "b", timing_cache=tmp_path / "timings")
    assert (tmp_path / "timings").read_bytes() == b"times++++"
    assert [entry["warnings"] for entry in result["engines"]] == [[], []]


def test_times_of_another_machine_are_dropped_out_loud(fake: FakeTensorRT, random_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "timings").write_bytes(b"of another machine")
    result = build_engines(random_bundle, tmp_path / "a", timing_cache=tmp_path / "timings")
    assert "its times are not used" in result["engines"][0]["warnings"][0]
    assert (tmp_path / "timings").read_bytes() == b"times++"


CHANGES = {  # one for every element of the key
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
    from helpers import write_random_bundle

    shutil.rmtree(bundle)
    write_random_bundle(bundle, seed=7)


@pytest.mark.parametrize("element", CHANGES)
def test_each_element_of_the_key_makes_a_new_engine(
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


@pytest.mark.parametrize("flag", [{"workspace_mb": 64}, {"dla": 0}, {"io": "onnx"}])
def test_another_build_flag_makes_a_new_engine(
    fake: FakeTensorRT, random_bundle: Path, tmp_path: Path, flag: dict[str, Any]
) -> None:
    build_engines(random_bundle, tmp_path)
    assert built(build_engines(random_bundle, tmp_path, **flag)) == [True, True]


def test_engines_lie_beside_the_bundle_which_stays_whole(
    fake: FakeTensorRT, random_bundle: Path, tmp_path: Path
) -> None:
    bundle = shutil.copytree(random_bundle, tmp_path / "m.imkd")
    build_engines(bundle)
    assert {path.name for path in (tmp_path / "m.engines").iterdir()} == {
        f"{part}.engine{end}" for part in PARTS for end in ("", ".json")
    }
    assert engine_folder(Bundle.load(bundle)) == tmp_path / "m.engines"  # load: the bundle is not changed


def test_a_refused_network_keeps_the_old_engine(fake: FakeTensorRT, random_bundle: Path, tmp_path: Path) -> None:
    build_engines(random_bundle, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    fake.refuses = "no implementation for node Conv_3"
    with pytest.raises(Error, match="cannot build this network: no implementation for node Conv_3"):
        build_engines(random_bundle, tmp_path, workspace_mb=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# ---- the machine lacks something ----
def test_without_tensorrt_the_cure_is_told(run: Any, monkeypatch: pytest.MonkeyPatch, random_bundle: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # as if it were not installed
    outcome = run("build-engine", random_bundle, "--json")
    assert outcome.code == 3 and outcome.stdout == ""
    assert (
        "E0501" in outcome.stderr
        and "pip install tensorrt" in outcome.stderr
        and "python3-libnvinfer" in outcome.stderr
    )


def test_tensorrt_is_not_asked_where_there_is_no_gpu(
    fake: FakeTensorRT, run: Any, monkeypatch: pytest.MonkeyPatch, random_bundle: Path
) -> None:
    """Its first call may crash there."""

    def no_gpu() -> Gpu:
        raise Error(Code.device_unavailable, "no NVIDIA driver", "libcuda.so.1", "install JetPack")

    monkeypatch.setattr(build_engine, "find_gpu", no_gpu)
    outcome = run("build-engine", random_bundle)
    assert outcome.code == 3 and "E0511" in outcome.stderr and "JetPack" in outcome.stderr
    assert not fake.configs and not fake.network_flags


def test_another_builder_is_refused(run: Any, random_bundle: Path) -> None:
    outcome = run("build-engine", random_bundle, "--builder", "os")
    assert outcome.code == 3 and "choose one of: tensorrt, tensorrt_rtx" in outcome.stderr


def test_a_folder_that_cannot_be_written(fake: FakeTensorRT, run: Any, random_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = run("build-engine", random_bundle, "--out", tmp_path / "file")
    assert outcome.code == 3 and "E0702" in outcome.stderr and "--out" in outcome.stderr


def test_json_is_the_result(fake: FakeTensorRT, run: Any, random_bundle: Path, tmp_path: Path) -> None:
    result = run("build-engine", random_bundle, "--out", tmp_path, "--json").json
    for entry in result["engines"]:
        record = json.loads(Path(entry["path"] + ".json").read_text())
        assert record["key"] == entry["key"] and record["engine"]["bytes"] == entry["bytes"]
        assert (entry["key"]["gpu"], entry["key"]["sm"], entry["key"]["cuda"], entry["key"]["driver"]) == (
            "Orin",
            "87",
            "12.6",
            "540.4.0",
        )
        assert entry["key"]["tensorrt"] == "tensorrt 10.3.0"
    assert result["self_test"].startswith("not run")


# ---- the golden frame on the device ----
@pytest.fixture
def device(fake: FakeTensorRT, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A core that has all that "cuda" needs; ONNX Runtime stands in for the engines."""
    core = SimpleNamespace(require_cuda=lambda: None, native_engines=lambda: ["tensorrt"])
    monkeypatch.setattr(selftest, "_core", core)
    on_cpu, asked = selftest.check_golden, []

    def check(bundle: Bundle, **options: str) -> dict[str, float]:
        asked.append(options)
        return on_cpu(bundle)

    monkeypatch.setattr(selftest, "check_golden", check)
    return SimpleNamespace(core=core, asked=asked)


def test_the_golden_frame_is_run_through_the_new_engines(device: Any, run: Any, random_bundle: Path) -> None:
    result = run("build-engine", random_bundle, "--json").json
    assert result["self_test"].startswith("passed: boxes differ by 0 m")
    assert device.asked == [{"engine": "tensorrt", "device": "cuda"}]


def test_a_golden_frame_that_differs_fails_the_command(
    device: Any, run: Any, random_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"images": 0.0, "radar_grid": 0.0, "boxes": 0.31, "scores": float("nan"), "labels": 0.0}
    monkeypatch.setattr(selftest, "check_golden", lambda bundle, **_: found)
    outcome = run("build-engine", random_bundle)
    text = outcome.text
    assert (
        outcome.code == 1 and "failed: differs from the exporter's in boxes by 0.31, allowed 0.2; scores by nan" in text
    )

    def broken(bundle: Bundle, **_: str) -> dict[str, float]:
        raise Error(Code.device_failed, "cudaGraphLaunch: out of memory")

    monkeypatch.setattr(selftest, "check_golden", broken)
    outcome = run("build-engine", random_bundle, "--json")
    assert outcome.code == 1 and outcome.json["self_test"].startswith("failed: error[E0512] cudaGraphLaunch")


def test_why_the_golden_frame_was_not_run(device: Any, run: Any, random_bundle: Path, tmp_path: Path) -> None:
    def said(*options: Any) -> str:
        outcome = run("build-engine", random_bundle, "--json", *options)
        assert outcome.code == 0 and not device.asked
        return outcome.json["self_test"]

    assert (
        said("--out", tmp_path / "other") == "not run: a Detector looks for engines in random.engines beside the bundle"
    )
    device.core.native_engines = lambda: ["onnxruntime"]
    assert said() == "not run: this build of the core has no TensorRT"

    def require_cuda() -> None:
        raise Error(Code.device_unavailable, "this build of the core has no CUDA")

    device.core.require_cuda = require_cuda
    assert said() == "not run: this build of the core has no CUDA"
