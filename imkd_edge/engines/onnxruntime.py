"""An engine on ONNX Runtime's wheel."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np

import imkd_edge._core as _core
from imkd_edge._core import DeviceMemory, Engine, TensorInfo
from imkd_edge.errors import Code, Error

CUDA = "onnxruntime-cuda"
# Of onnxruntime-gpu. CUDA runs in the detector's stream and memory; the tensors of the other pass through host memory.
PROVIDERS = {CUDA: "CUDAExecutionProvider", "onnxruntime-tensorrt": "TensorrtExecutionProvider"}


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_engines: weakref.WeakSet[OnnxRuntimeEngine] = weakref.WeakSet()


def _keep_parents_sessions() -> None:
    """Makes the sessions immortal in a forked child: their destructors would wait for threads that it lacks."""
    for engine in _engines:
        engine.abandon()
    libc = ctypes.CDLL(None)
    if len(_engines) and hasattr(libc, "on_exit"):
        # After Python has ended, and before onnxruntime's exit handlers, which would wait for the same threads.
        libc.on_exit(libc._exit, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_parents_sessions)


class OnnxRuntimeEngine(Engine):
    """The `onnxruntime` wheel with bound buffers of fixed size; outputs that are not bound are not computed.

    On device "cuda", "onnxruntime-cuda" enqueues the part in the detector's stream, on the detector's memory, in the
    types of the part, without TF32.

    Args:
        threads: cores for one run; 0 is one per core.
        name: "onnxruntime", or one of PROVIDERS, which raises where the session falls back to the CPU.
        integer: run Q/DQ pairs in integer kernels, for timing; by default they are computed in float, as the graph
            defines them.

    Raises:
        Error: engine_unavailable without the wheel or the provider; engine_load, engine_bind, engine_run for an error
            of ONNX Runtime.
    """

    def __init__(self, threads: int = 0, name: str = "onnxruntime", integer: bool = False) -> None:
        super().__init__()
        self._name, self._provider = name, PROVIDERS.get(name)
        self._process = os.getpid()
        self._threads = threads or cores()
        self._integer = integer
        self._path = ""
        self._model: str | bytes = ""
        self._session: Any = None
        self._binding: Any = None
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._arrays: dict[str, np.ndarray | DeviceMemory] = {}  # keeps the bound memory alive
        self._stream, self._gpu = 0, 0  # the detector's cudaStream_t, 0: none; the number of its GPU
        self._run_options: Any = None
        _engines.add(self)

    def abandon(self) -> None:
        """Adds a reference to what ONNX Runtime made that is never taken back."""
        for value in (self._session, self._binding, *self._inputs, *self._outputs):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))

    def _require_own_process(self) -> None:
        if self._process != os.getpid():
            what = f"belongs to process {self._process}, which forked this one"
            fix = 'make another one in this process, or start the process by "spawn" instead of "fork"'
            raise Error(Code.forked, what, f"the engine {self._name}", fix)

    def name(self) -> str:
        return self._name

    def load(self, onnx_path: str) -> None:
        self._load(onnx_path, str(onnx_path))

    def load_content(self, onnx_path: str, onnx: bytes) -> None:
        self._load(onnx_path, onnx)

    def _load(self, onnx_path: str, model: str | bytes) -> None:
        self._require_own_process()
        try:
            import onnxruntime as ort
        except ImportError as error:
            problem = f"onnxruntime cannot be imported: {error}"
            raise Error(Code.engine_unavailable, problem, "", "pip install onnxruntime") from error
        self._path, self._stream = str(onnx_path), 0
        self._model = model if self._name == CUDA else ""  # for use_stream
        self._require_provider(ort.get_available_providers(), "this onnxruntime was built without it")
        if self._provider and hasattr(ort, "preload_dlls"):  # since 1.21
            ort.preload_dlls()  # CUDA's libraries, where pip installed them
        self._open(ort, model, [*([self._provider] if self._provider else []), "CPUExecutionProvider"])

    def _open(self, ort: Any, model: str | bytes, providers: list[Any], **keywords: Any) -> None:
        options = self._session_options(ort)
        try:
            self._session = ort.InferenceSession(model, options, providers=providers, **keywords)
        except Exception as error:  # the classes of onnxruntime's exceptions differ between versions
            fix = "export the model again, or check the file; or use engine onnxruntime"
            raise Error(Code.engine_load, f"ONNX Runtime: {error}", self._path, fix) from error
        problem = "the session fell back to the CPU: its libraries or a GPU are missing"
        self._require_provider(self._session.get_providers(), problem)
        self._binding = self._session.io_binding()
        self._inputs, self._outputs, self._arrays = self._session.get_inputs(), self._session.get_outputs(), {}

    def on_device(self) -> bool:
        return self._name == CUDA and has_cuda()

    def why_not_captured(self) -> str:
        """ONNX Runtime captures graphs of its own, and ends the process where it runs inside another capture."""
        return f"{CUDA} cannot run inside a CUDA graph that is not its own" if self._name == CUDA else ""

    def use_stream(self, stream: int) -> None:
        """Opens the session again in the detector's stream; every node must run on the GPU."""
        import onnxruntime as ort

        if stream == 0:
            what = "ONNX Runtime takes the stream 0 for none, and would not wait for the detector's work"
            raise Error(Code.engine_bind, what, self._name, "give the address of a stream that was created")
        self._stream, self._gpu = stream, _core.require_cuda()
        self._run_options = ort.RunOptions()
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")  # the detector waits
        settings = {"device_id": str(self._gpu), "user_compute_stream": str(stream), "use_tf32": "0"}
        self._open(ort, self._model, [(self._provider, settings)], enable_fallback=0)

    def _session_options(self, ort: Any) -> Any:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4  # errors are raised as exceptions, nothing is printed
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0"
        )  # idle workers free the cores for our ops
        if self._stream:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if not self._provider:
            # Without VNNI the CPU's integer kernels saturate unless x64quantprecision is set; they also round biases.
            exact = "session.x64quantprecision" if self._integer else "session.disable_quant_qdq"
            options.add_session_config_entry(exact, "1")
        return options

    def _require_provider(self, available: list[str], problem: str) -> None:
        if self._provider and self._provider not in available:
            install = "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
            fix = f"{install}, on a machine with an NVIDIA GPU; or use engine onnxruntime"
            raise Error(Code.engine_unavailable, f"no {self._provider}: {problem}", self._name, fix)

    def inputs(self) -> list[TensorInfo]:
        return [self._info(value) for value in self._inputs]

    def outputs(self) -> list[TensorInfo]:
        return [self._info(value) for value in self._outputs]

    def bind(self, tensor: str, array: np.ndarray | DeviceMemory) -> None:
        self._require_own_process()
        inputs, outputs = ({info.name: info.shape for info in infos} for infos in (self.inputs(), self.outputs()))
        if tensor not in inputs and tensor not in outputs:
            fix = "see inputs() and outputs()"
            raise Error(Code.engine_bind, f'the model has no tensor "{tensor}"', self._path, fix)
        shape = inputs.get(tensor, outputs.get(tensor))
        dense = not isinstance(array, np.ndarray) or array.flags.c_contiguous
        if array.dtype != np.float32 or array.shape != shape or not dense:
            problem = f'"{tensor}" is float32 {shape}, dense; the array is {array.dtype} {array.shape}'
            raise Error(Code.engine_bind, problem, self._path, "use numpy.zeros(shape, numpy.float32)")
        bind = self._binding.bind_input if tensor in inputs else self._binding.bind_output
        if isinstance(array, np.ndarray):
            bind(tensor, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        else:
            bind(tensor, "cuda", self._gpu, np.float32, array.shape, array.address)
        self._arrays[tensor] = array

    def run(self) -> None:
        self._require_own_process()
        missing = [value.name for value in self._inputs if value.name not in self._arrays]
        if missing or self._session is None:
            problem = f"not bound: {', '.join(missing)}" if missing else "no model is loaded"
            raise Error(Code.engine_run, problem, self._path, "load a model, then bind every input")
        try:
            self._session.run_with_iobinding(self._binding, self._run_options)
        except Exception as error:
            raise Error(Code.engine_run, f"ONNX Runtime: {error}", self._path) from error

    def _info(self, value: Any) -> TensorInfo:
        if value.type != "tensor(float)":
            problem = f'"{value.name}" is a {value.type}, not a tensor(float)'
            raise Error(Code.bundle_tensor_mismatch, problem, self._path, "export it as float32")
        return TensorInfo(value.name, [extent if isinstance(extent, int) else -1 for extent in value.shape])


def has_cuda() -> bool:
    """True where this build of the core and this machine can use device "cuda"."""
    try:
        _core.require_cuda()
    except Error:
        return False
    return True


def onnxruntime_library() -> Path | None:
    """Path of the shared library in the onnxruntime wheel, without importing it; None without the wheel."""
    spec = importlib.util.find_spec("onnxruntime")
    libraries = sorted(Path(spec.origin).parent.glob("capi/libonnxruntime.so*")) if spec and spec.origin else []
    return libraries[-1] if libraries else None
