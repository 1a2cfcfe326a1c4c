"""Engines for device "cuda" without TensorRT, on the fake CUDA runtime: PyTorch and ONNX Runtime with CUDA.

Neither finds a GPU here. PyTorch computes on the CPU, on the memory of the fake device and when its stream runs; ONNX
Runtime's CPU provider answers for CUDA's. What is tested is ours: memory, stream, order, capture, errors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fake_gpu
import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

import imkd_edge.detector  # noqa: E402
import imkd_edge.engines.torch as torch_engine  # noqa: E402
from imkd_edge import Bundle, Detector, _core  # noqa: E402
from imkd_edge.bundle.golden import Frame, read_golden  # noqa: E402
from imkd_edge.engines import Engine, OnnxRuntimeEngine, TensorInfo, make_engine  # noqa: E402
from imkd_edge.errors import Code, Error  # noqa: E402

cuda = fake_gpu.core_or_skip()


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Detector]:
    """A Detector whose core has the CUDA frame loop."""
    fake_gpu.use_core(cuda, monkeypatch.setattr)

    def make(*args: Any, **options: Any) -> Detector:
        with monkeypatch.context() as patch:
            patch.setattr(imkd_edge.detector, "_core", cuda)
            return Detector(*args, **{"device": "cuda", "threads": 1, **options})

    return make


def code(value: Code) -> str:
    return f"E{value.value:04d}"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load("tiny")


@pytest.fixture(scope="module")
def frames(bundle: Bundle) -> list[Frame]:
    """Those of the golden drive that have the first one's rig: another rig costs a graph."""
    golden = read_golden(bundle)
    frames = [frame for frame in golden if frame.rig == golden[0].rig]
    assert len(frames) >= 3
    return frames[:3]


@pytest.fixture(scope="module")
def rig(frames: list[Frame]) -> Any:
    return frames[0].rig


def infer(detector: Detector, frame: Frame) -> Any:
    return detector.infer(*frame.arguments())


def assert_as_on_the_cpu(detector: Detector, on_cpu: Detector, frames: list[Frame]) -> list[Any]:
    results = []
    for frame in frames:
        result, expected = infer(detector, frame), infer(on_cpu, frame)
        assert result.health == expected.health and np.array_equal(result.labels, expected.labels)
        assert np.allclose(result.boxes, expected.boxes, rtol=1e-4, atol=1e-4, equal_nan=True)
        for name, tensor in on_cpu.tensors().items():
            assert np.allclose(detector.tensors()[name], tensor, rtol=1e-4, atol=1e-4), name
        results.append(result)
    assert sum(len(result.boxes) for result in results) > 0
    return results


# ---- PyTorch ----
@pytest.fixture
def torch_on_gpu(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """PyTorch as if it found a GPU; what it binds and in which stream it computes."""
    return fake_gpu.use_torch(cuda, monkeypatch.setattr)


def test_torch_runs_in_the_detectors_stream_and_memory_and_is_replayed(
    on_cuda, torch_on_gpu, bundle: Bundle, rig, frames
) -> None:
    with (
        on_cuda(bundle, rig, engine="torch") as detector,
        Detector(bundle, rig, device="cpu", threads=1) as on_cpu,
    ):
        assert (detector.device, detector.engine) == ("cuda", "torch")
        results = assert_as_on_the_cpu(detector, on_cpu, frames)
        assert [result.replayed for result in results] == [False, True, True]
        assert detector.why_not_replayed == ""
        tensors = detector.device_tensors()
        streams = {value for kind, value in torch_on_gpu if kind == "stream"}
        assert streams == {tensors["heatmap"].stream} and 0 not in streams
        bound = {value for kind, value in torch_on_gpu if kind == "memory"}
        assert bound == {tensor.address for tensor in tensors.values()}
        # The first frame and the capture call the engine; a replayed frame does not.
        assert [kind for kind, _ in torch_on_gpu].count("stream") == 4


def test_a_frame_of_torch_copies_no_tensor_through_the_host(on_cuda, torch_on_gpu, bundle: Bundle, rig, frames) -> None:
    with on_cuda(bundle, rig, engine="torch") as detector:
        infer(detector, frames[0]), infer(detector, frames[0])
        cuda.calls()
        infer(detector, frames[0])
        calls = cuda.calls()
    assert calls.count("cudaGraphLaunch") == calls.count("cudaStreamSynchronize") == 1
    assert not {"cudaMalloc", "cudaHostAlloc", "cudaFree"} & set(calls)


def test_an_engine_that_a_graph_cannot_capture_runs_without_one(
    on_cuda, torch_on_gpu, bundle, rig, frames, monkeypatch
):
    def enqueue(stream: int, pool: Any, work: Callable[[], None]) -> None:
        if len([kind for kind, _ in torch_on_gpu if kind == "run"]) == 2:  # of the second frame, in the capture
            torch_on_gpu.append(("run", stream))
            raise RuntimeError("operation not permitted when stream is capturing")
        torch_on_gpu.append(("run", stream))
        cuda.enqueue(stream, work)

    monkeypatch.setattr(torch_engine, "enqueue", enqueue)
    with on_cuda(bundle, rig, engine="torch") as detector:
        first, second = infer(detector, frames[0]), infer(detector, frames[0])
        assert "PyTorch: operation not permitted" in detector.why_not_replayed
        assert not second.replayed and np.array_equal(first.boxes, second.boxes, equal_nan=True)


def test_torch_is_told_the_stream_and_the_pool_also_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple] = []

    @contextmanager
    def stream(value: Any) -> Iterator[None]:
        said.append(("in", value))
        yield
        said.append(("out", value))

    def recorder(name: str) -> Callable[..., None]:
        return lambda *arguments: said.append((name, *arguments))

    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda address: ("external", address))
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    for name in ("_cuda_beginAllocateCurrentThreadToPool", "_cuda_endAllocateToPool", "_cuda_releasePool"):
        assert hasattr(torch._C, name)  # of this PyTorch; private, so that a new version may lack them
        monkeypatch.setattr(torch._C, name, recorder(name), raising=True)
    pool = (3, 4)

    def work() -> None:
        assert said[0] == ("in", ("external", 4096)) and said[1][1:] == (0, (3, 4))
        assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.allow_tf32
        raise RuntimeError("no kernel image")

    with pytest.raises(RuntimeError, match="no kernel image"):
        torch_engine.enqueue(4096, pool, work)
    assert [entry[0] for entry in said[1:]] == [
        "_cuda_beginAllocateCurrentThreadToPool",
        "_cuda_endAllocateToPool",
        "_cuda_releasePool",
    ]
    assert not torch.backends.cudnn.deterministic


def test_without_a_gpu_torch_is_an_engine_of_the_cpu(bundle: Bundle, rig, frames) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU and a core with CUDA")
    with Detector(bundle, rig, engine="torch", threads=1) as detector:
        assert (detector.device, detector.engine) == ("cpu", "torch")
        with Detector(bundle, rig, device="cpu", threads=1) as on_cpu:
            assert_as_on_the_cpu(detector, on_cpu, frames[:1])


def test_device_auto_with_torch_is_the_gpu_where_both_can_use_it(
    on_cuda, torch_on_gpu, bundle: Bundle, rig, frames
) -> None:
    with on_cuda(bundle, rig, device="auto", engine="torch") as detector:
        assert detector.device == "cuda"


def test_without_torch_the_engine_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "imkd_edge.engines.torch")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(Error) as raised:
        make_engine("torch")
    assert raised.value.code == code(Code.missing_extra) and "imkd-edge[gpu]" in raised.value.fix


# ---- ONNX Runtime ----
ort_session = onnxruntime.InferenceSession


class Binding:
    """IOBinding, with the fake device's memory as the CPU's."""

    def __init__(self, session: Any) -> None:
        self.inner, self.bound = session.inner.io_binding(), session.bound

    def bind_input(self, name: str, device: str, number: int, dtype: Any, shape: Any, address: int) -> None:
        self.bound[name] = f"{device}:{number}", address
        self.inner.bind_input(name, "cpu", 0, dtype, shape, address)

    def bind_output(self, name: str, device: str, number: int, dtype: Any, shape: Any, address: int) -> None:
        self.bound[name] = f"{device}:{number}", address
        self.inner.bind_output(name, "cpu", 0, dtype, shape, address)


class Session:
    """InferenceSession of onnxruntime-gpu: the CPU provider answers, when the stream of its options runs."""

    made: list[Session] = []
    falls_back = False

    def __init__(self, path: str, options: Any, providers: list[Any], enable_fallback: int = 1) -> None:
        self.providers = [item if isinstance(item, tuple) else (item, {}) for item in providers]
        (name, self.options), *others = self.providers
        entry = "session.disable_cpu_ep_fallback"
        self.only_gpu = name != "CPUExecutionProvider" and not others and options.get_session_config_entry(entry) == "1"
        assert enable_fallback == int(not self.only_gpu)
        self.bound: dict[str, tuple[str, int]] = {}
        self.waits: list[str] = []
        if self.falls_back and self.only_gpu:
            raise RuntimeError("This session contains graph nodes that are assigned to the default CPU EP")
        plain = onnxruntime.SessionOptions()
        plain.intra_op_num_threads = 1
        plain.add_session_config_entry("session.disable_quant_qdq", "1")
        self.inner = ort_session(path, plain, providers=["CPUExecutionProvider"])
        self.made.append(self)

    def get_providers(self) -> list[str]:
        return [name for name, _ in self.providers]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def io_binding(self) -> Binding:
        return Binding(self)

    def run_with_iobinding(self, binding: Binding, run_options: Any) -> None:
        if not self.only_gpu:
            return self.inner.run_with_iobinding(binding.inner)
        self.waits.append(run_options.get_run_config_entry("disable_synchronize_execution_providers"))
        return cuda.enqueue(
            int(self.options["user_compute_stream"]), lambda: self.inner.run_with_iobinding(binding.inner)
        )


@pytest.fixture
def ort_on_gpu(monkeypatch: pytest.MonkeyPatch) -> type[Session]:
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(Session, "made", [])
    return Session


@pytest.mark.parametrize("gpu", [0, 1])
def test_onnxruntime_on_cuda_has_the_detectors_stream_and_memory(
    on_cuda, ort_on_gpu, bundle: Bundle, rig, frames, gpu: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_core, "require_cuda", lambda: gpu)
    with (
        on_cuda(bundle, rig, engine="onnxruntime-cuda") as detector,
        Detector(bundle, rig, device="cpu", threads=1) as on_cpu,
    ):
        results = assert_as_on_the_cpu(detector, on_cpu, frames)
        assert [result.replayed for result in results] == [False] * 3
        assert "cannot run inside a CUDA graph" in detector.why_not_replayed
        tensors = detector.device_tensors()
        sessions = [session for session in ort_on_gpu.made if session.only_gpu]
        assert len(sessions) == 2
        for session in sessions:
            # ONNX Runtime refuses the CPU's beside the entry.
            assert [name for name, _ in session.providers] == ["CUDAExecutionProvider"]
            stream = str(tensors["heatmap"].stream)
            assert session.options == {"device_id": str(gpu), "user_compute_stream": stream, "use_tf32": "0"}
            assert session.bound == {name: (f"cuda:{gpu}", tensors[name].address) for name in session.bound}
            assert session.waits == ["1"] * 3
        assert {name for session in sessions for name in session.bound} == set(tensors)
        cuda.calls()
        infer(detector, frames[0])
        assert cuda.calls().count("cudaStreamSynchronize") == 1  # at the frame's end


def test_onnxruntime_that_would_fall_back_is_refused(on_cuda, ort_on_gpu, bundle: Bundle, rig, monkeypatch) -> None:
    monkeypatch.setattr(Session, "falls_back", True)
    with pytest.raises(Error) as raised:
        on_cuda(bundle, rig, engine="onnxruntime-cuda")
    assert raised.value.code == code(Code.engine_load) and "CPU EP" in raised.value.what


def test_onnxruntime_is_not_given_the_default_stream(ort_on_gpu, bundle: Bundle) -> None:
    engine = OnnxRuntimeEngine(1, "onnxruntime-cuda")
    engine.load(bundle.file("bev.onnx"))
    with pytest.raises(Error) as raised:
        engine.use_stream(0)
    assert raised.value.code == code(Code.engine_bind)


def test_this_onnxruntime_knows_the_keys(bundle: Bundle) -> None:
    """They are in its library: a key that it does not know would be ignored."""
    library = imkd_edge.engines.onnxruntime_library().read_bytes()
    for key in (b"session.disable_cpu_ep_fallback", b"disable_synchronize_execution_providers"):
        assert key in library


# ---- engines written in Python ----
class Forgetful(Engine):
    """Says that it runs on the device, and has no use_stream."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self.inner = make_engine("onnxruntime", threads)

    def name(self) -> str:
        return "forgetful"

    def on_device(self) -> bool:
        return True

    def load(self, path: str) -> None:
        self.inner.load(path)

    def inputs(self) -> list[TensorInfo]:
        return self.inner.inputs()

    def outputs(self) -> list[TensorInfo]:
        return self.inner.outputs()


def test_an_engine_on_the_device_without_use_stream_is_refused(on_cuda, bundle: Bundle, rig, frames) -> None:
    with pytest.raises(Error) as raised:
        on_cuda(bundle, rig, engine=Forgetful)
    assert raised.value.code == code(Code.engine_bind) and "use_stream" in raised.value.what
