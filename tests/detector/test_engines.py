"""Engines: one in Python works on the detector's memory, and its exceptions reach the caller unchanged."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from helpers import bev_onnx, camera_onnx, random_spec, recorders
from imkd_edge import Detector, Error, _core
from imkd_edge.engines import Engine, OnnxRuntimeEngine, engine_names, make_engine
from imkd_edge.engines.onnxruntime import PROVIDERS

ENGINES = ["onnxruntime", "onnxruntime-native"]


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    if request.param not in engine_names():
        pytest.skip("the core was built without ONNX Runtime's headers: the native engine is NOT tested")
    return request.param


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "camera.onnx"
    path.write_bytes(camera_onnx(random_spec(cameras=2)))
    return str(path)


def test_an_engine_in_python_works_on_the_detectors_memory(bundle, scene) -> None:
    camera, bev = recorders(bundle.spec)
    detector = _core.Detector(bundle.spec, scene.rig, camera, bev)
    assert set(camera.arrays) == {"images", "depth", "context"} and bev.arrays["heatmap"].dtype == np.float32
    detector.infer(scene.frames, scene.points, None, 0)
    tensors = detector.tensors()
    for engine in (camera, bev):
        assert engine.runs == 1
        for name, array in engine.arrays.items():
            assert np.array_equal(array, tensors[name]) and array.flags.c_contiguous
    assert (tensors["heatmap"] == 0.25).all() and (tensors["depth"] == 0.25).all()
    bev.arrays["heatmap"][0, 0, 0, 0] = 3  # the same memory, not a copy of it
    assert detector.tensors()["heatmap"][0, 0, 0, 0] == 3


def test_engines_live_as_long_as_their_detector(bundle, scene) -> None:
    camera, bev = recorders(bundle.spec)
    reference = weakref.ref(camera)
    detector = _core.Detector(bundle.spec, scene.rig, camera, bev)
    del camera
    gc.collect()
    detector.infer(scene.frames, scene.points, None, 0)
    assert reference().runs == 1
    del detector
    gc.collect()
    assert reference() is None


def test_memory_bound_to_an_engine_outlives_the_detector(bundle, scene) -> None:
    camera, bev = recorders(bundle.spec)
    _core.Detector(bundle.spec, scene.rig, camera, bev).infer(scene.frames, scene.points, None, 0)
    gc.collect()
    images = camera.arrays["images"]
    assert images.any() and images.sum() == images.copy().sum()
    camera.run()
    assert (camera.arrays["depth"] == 0.25).all()


@pytest.mark.parametrize("error", [ValueError("from the engine"), Error("E0504", "from the engine")])
def test_an_exception_of_an_engine_reaches_the_caller_unchanged(bundle, scene, error: Exception) -> None:
    camera, bev = recorders(bundle.spec)
    detector = _core.Detector(bundle.spec, scene.rig, camera, bev)

    def fail() -> None:
        raise error

    bev.run = fail
    with pytest.raises(type(error), match="from the engine") as raised:
        detector.infer(scene.frames, scene.points, None, 0)
    assert raised.value is error
    del bev.run
    assert len(detector.infer(scene.frames, scene.points, None, 0)["boxes"]) > 0


def test_other_python_threads_run_while_infer_does(bundle, scene) -> None:
    """The bev engine waits for an event that only another thread can set."""
    camera, bev = recorders(bundle.spec)
    detector = _core.Detector(bundle.spec, scene.rig, camera, bev)
    inside, go = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        assert go.wait(600)

    bev.run = wait
    worker = threading.Thread(target=detector.infer, args=(scene.frames, scene.points, None, 0))
    worker.start()
    assert inside.wait(600)
    go.set()
    worker.join(600)
    assert not worker.is_alive()


def test_an_engine_may_ask_for_the_tensors_while_it_runs(bundle, scene) -> None:
    camera, bev = recorders(bundle.spec)
    detector = _core.Detector(bundle.spec, scene.rig, camera, bev)
    answers = []
    bev.run = lambda: answers.append(detector.tensors()["images"].any())
    detector.infer(scene.frames, scene.points, None, 0)
    assert answers == [True]


def test_a_factory_is_an_engine_too(bundle, scene) -> None:
    engines = []

    def factory(threads: int) -> Engine:
        engines.append(OnnxRuntimeEngine(threads))
        return engines[-1]

    with Detector(bundle, scene.rig, engine=factory, threads=1) as detector:
        boxes = detector.infer(scene.frames, scene.points).boxes
    expected = Detector(bundle, scene.rig).infer(scene.frames, scene.points).boxes
    assert len(engines) == 2 and np.array_equal(boxes, expected)


def test_bound_arrays_are_read_and_written_in_place(engine_name: str, model: str) -> None:
    import onnxruntime as ort

    engine = make_engine(engine_name, 1)
    engine.load(model)
    infos = {info.name: info.shape for info in (*engine.inputs(), *engine.outputs())}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in infos.items()}
    for name, array in arrays.items():
        engine.bind(name, array)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    for seed in range(3):
        arrays["images"][:] = np.random.default_rng(seed).normal(0, 50, infos["images"])
        engine.run()
        depth, context = session.run(["depth", "context"], {"images": arrays["images"]})
        np.testing.assert_allclose(arrays["depth"], depth, atol=1e-6)
        np.testing.assert_allclose(arrays["context"], context, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("content", "code"), [(None, "E0502"), (b"", "E0502"), (b"not a model", "E0502"), ("truncated", "E0502")]
)
def test_a_file_that_is_no_model_is_refused(engine_name: str, model: str, content, code: str) -> None:
    path = Path(model)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-100] if content == "truncated" else content)
    with pytest.raises(Error) as raised:
        make_engine(engine_name, 1).load(model)
    assert raised.value.code == code and model in raised.value.where


def test_an_array_that_does_not_fit_is_refused(engine_name: str, model: str) -> None:
    engine = make_engine(engine_name, 1)
    engine.load(model)
    shape = engine.inputs()[0].shape
    assert shape == (2, 3, 64, 128)
    for tensor, array in (
        ("image", np.zeros(shape, np.float32)),
        ("images", np.zeros(shape, np.float64)),
        ("images", np.zeros((1, *shape[1:]), np.float32)),
        ("images", np.zeros((*shape[:3], 256), np.float32)[..., ::2]),
    ):
        with pytest.raises(Error) as raised:
            engine.bind(tensor, array)
        assert raised.value.code == "E0503"
    with pytest.raises(Error) as raised:
        engine.run()
    assert raised.value.code == "E0504"


def test_a_tensor_that_is_not_the_specs_is_refused(engine_name: str, scene, tmp_path: Path) -> None:
    """Each part is exported with a spec that differs in one number from the detector's."""
    spec = random_spec(cameras=2)
    changes = {"depth.bins": 13, "context_channels": 9, "image.width": 144, "image.stride": 8, "grid.cell": 3.2}
    for change, value in changes.items():
        other = random_spec(cameras=2)
        owner, _, name = change.rpartition(".")
        setattr(getattr(other, owner) if owner else other, name, value)
        (tmp_path / "camera.onnx").write_bytes(camera_onnx(other))
        (tmp_path / "bev.onnx").write_bytes(bev_onnx(other))
        with pytest.raises(Error) as raised:
            Detector.from_onnx(spec, scene.rig, tmp_path / "camera.onnx", tmp_path / "bev.onnx", engine=engine_name)
        assert raised.value.code == "E0409", change


def test_a_graph_without_fixed_shapes_is_refused(engine_name: str, scene, tmp_path: Path) -> None:
    import onnx

    spec = random_spec(cameras=2)
    graph = onnx.load_from_string(camera_onnx(spec))
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "cameras"
    (tmp_path / "camera.onnx").write_bytes(graph.SerializeToString())
    (tmp_path / "bev.onnx").write_bytes(bev_onnx(spec))
    with pytest.raises(Error) as raised:
        Detector.from_onnx(spec, scene.rig, tmp_path / "camera.onnx", tmp_path / "bev.onnx", engine=engine_name)
    assert raised.value.code == "E0409" and "(N, 3, 64, 128)" in raised.value.what


def test_a_graph_of_doubles_is_refused(engine_name: str, scene, tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    shapes = {"images": [2, 3, 64, 128]}
    graph = helper.make_graph(
        [helper.make_node("Identity", ["images"], ["depth"])],
        "doubles",
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info("depth", TensorProto.DOUBLE, shapes["images"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (tmp_path / "camera.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "bev.onnx").write_bytes(bev_onnx(random_spec(cameras=2)))
    with pytest.raises(Error) as raised:
        Detector.from_onnx(
            random_spec(2), scene.rig, tmp_path / "camera.onnx", tmp_path / "bev.onnx", engine=engine_name
        )
    assert raised.value.code == "E0409"


# ---- ONNX Runtime on a GPU, for comparison ----
class Gpu:
    """The onnxruntime module of a machine with a GPU; its sessions run on the CPU, and report it if `falls_back`."""

    def __init__(self, built_with: list[str], falls_back: bool = False) -> None:
        import onnxruntime

        self._real, self._built_with, self._falls_back = onnxruntime, built_with, falls_back
        self.requests: list[list[str]] = []

    def __getattr__(self, name: str):
        return getattr(self._real, name)

    def get_available_providers(self) -> list[str]:
        return self._built_with

    def InferenceSession(self, path, options, providers):
        self.requests.append(providers)
        session = self._real.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        if not self._falls_back:
            session.get_providers = lambda: providers
        return session


@pytest.mark.parametrize("name", PROVIDERS)
def test_onnxruntime_on_a_gpu_requests_its_provider_first(name: str, model: str, bundle, scene, monkeypatch) -> None:
    gpu = Gpu(["CPUExecutionProvider", *PROVIDERS.values()])
    monkeypatch.setitem(sys.modules, "onnxruntime", gpu)
    with Detector(bundle, scene.rig, engine=name) as detector:
        assert (detector.device, detector.engine) == ("cpu", name)
        assert len(detector.infer(scene.frames, scene.points).scores) > 0
    assert gpu.requests == 2 * [[PROVIDERS[name], "CPUExecutionProvider"]]


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("falls_back", [False, True])
def test_onnxruntime_that_does_not_reach_the_gpu_is_refused(
    name: str, falls_back: bool, model: str, monkeypatch
) -> None:
    built_with = [*PROVIDERS.values()] if falls_back else ["CPUExecutionProvider"]
    monkeypatch.setitem(sys.modules, "onnxruntime", Gpu(built_with, falls_back))
    with pytest.raises(Error) as raised:
        make_engine(name).load(model)
    assert raised.value.code == "E0501" and PROVIDERS[name] in raised.value.what
    assert "onnxruntime-gpu" in raised.value.fix
