"""PyTorch as an engine: independent operators on the CPU or on the GPU, or torch-tensorrt for comparison."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

import imkd_edge._core as _core
from imkd_edge._core import DeviceMemory, Engine, TensorInfo
from imkd_edge.bundle.shapes import static_shape
from imkd_edge.engines import torch_graph
from imkd_edge.engines.onnxruntime import cores
from imkd_edge.errors import Code, Error

COMPILERS = ("torch", "torch-tensorrt")
GPU = "cuda"


class TorchEngine(Engine):
    """Runs a part of any bundle: `Detector("tiny", device="cuda", engine="torch")`.

    On device "cuda", "torch" enqueues the part in the detector's stream, on the detector's memory; a CUDA graph replays
    it. It computes in the types of the part, without TF32. "torch-tensorrt" compiles the part at load, and copies its
    tensors through the host's memory: it is fit for timing networks, not frames.

    Args:
        threads: of one run on the CPU; 0 is one per core.
        compiler: "torch", node by node, or "torch-tensorrt", on the GPU.

    Raises:
        Error: engine_unavailable for another compiler, or where torch-tensorrt or its GPU is missing; engine_load,
            engine_bind, engine_run for a part that cannot be read, bound or run.
    """

    def __init__(self, threads: int = 0, compiler: str = "torch") -> None:
        super().__init__()
        if compiler not in COMPILERS:
            fix = f"choose one of: {', '.join(COMPILERS)}"
            raise Error(Code.engine_unavailable, f'there is no compiler "{compiler}"', "compiler", fix)
        self._threads, self._name = threads or cores(), compiler
        self._compile = None if compiler == "torch" else _torch_tensorrt().compile
        self._device = GPU if self._compile else "cpu"
        self._path, self._bound = "", dict[str, torch.Tensor]()
        self._stream = 0  # the detector's cudaStream_t; 0: none
        self._pool = (0, 0)  # of the tensors between the nodes, which a captured graph has the addresses of
        self._graph = onnx.GraphProto()
        self._module: Any = None

    def name(self) -> str:
        return self._name

    def on_device(self) -> bool:
        """True where this torch and this build of the core can both use the GPU."""
        return self._compile is None and why_not_on_gpu() == ""

    def load(self, onnx_path: str) -> None:
        self.load_content(onnx_path, None)

    def load_content(self, onnx_path: str, content: bytes | None) -> None:
        self._path, self._bound = str(onnx_path), {}
        try:
            content = Path(onnx_path).read_bytes() if content is None else content
            self._graph = onnx.load_from_string(content).graph
        except Exception as error:  # protobuf's own classes differ between versions
            what = f"this is no ONNX file: {error}"
            raise Error(Code.engine_load, what, self._path, "export the model again") from error
        unknown = {node.op_type for node in self._graph.node} - set(torch_graph.OPERATORS)
        if unknown:
            what = f"the torch engine has no operator {', '.join(sorted(unknown))}"
            raise Error(Code.engine_load, what, self._path, "leave torch out of --engines")
        self._module = torch_graph.GraphModule(self._graph).eval().to(self._device)
        if self._compile:
            examples = [torch.zeros(info.shape, device=self._device) for info in self.inputs()]
            self._module = self._compile(self._module, ir="dynamo", inputs=examples)

    def use_stream(self, stream: int) -> None:
        self._stream, self._device = stream, GPU
        self._module.to(self._device)
        self._pool = own_pool(self)
        torch.cuda.synchronize()  # the weights were copied in another stream

    def inputs(self) -> list[TensorInfo]:
        return [_info(item) for item in self._graph.input]

    def outputs(self) -> list[TensorInfo]:
        return [_info(item) for item in self._graph.output]

    def bind(self, tensor: str, array: np.ndarray | DeviceMemory) -> None:
        shapes = {info.name: info.shape for info in [*self.inputs(), *self.outputs()]}
        if tensor not in shapes:
            what = f'the model has no tensor "{tensor}"'
            raise Error(Code.engine_bind, what, self._path, "see inputs() and outputs()")
        if array.dtype != np.float32 or array.shape != shapes[tensor]:
            problem = f'"{tensor}" is float32 {shapes[tensor]}; the array is {array.dtype} {array.shape}'
            raise Error(Code.engine_bind, problem, self._path, "use numpy.zeros(shape, numpy.float32)")
        on_host = isinstance(array, np.ndarray)
        self._bound[tensor] = torch.from_numpy(array) if on_host else device_tensor(array)

    def run(self) -> None:
        names = [item.name for item in self._graph.input]
        missing = [name for name in names if name not in self._bound]
        if missing or not names:
            problem = f"not bound: {', '.join(missing)}" if missing else "no model is loaded"
            raise Error(Code.engine_run, problem, self._path, "load a model, then bind every input")
        torch.set_num_threads(self._threads)
        try:
            if self._stream:
                enqueue(self._stream, self._pool, lambda: self._compute(names))
            else:
                self._compute(names)
        except RuntimeError as error:
            raise Error(Code.engine_run, f"PyTorch: {error}", self._path) from error

    @torch.no_grad()
    def _compute(self, names: list[str]) -> None:
        outputs = self._module(*(self._bound[name].to(self._device) for name in names))
        for item, value in zip(self._graph.output, outputs, strict=True):
            if item.name in self._bound and item.name not in names:
                self._bound[item.name].copy_(value)


def device_tensor(memory: DeviceMemory) -> torch.Tensor:
    """The memory as a tensor, without a copy; it stays valid while the tensor lives."""
    return torch.as_tensor(memory, device=GPU)


def own_pool(owner: object) -> tuple[int, int]:
    """A pool of PyTorch's GPU memory, kept until the owner's end, from when on PyTorch may give it to others.

    torch.cuda.MemPool would free it at once, and ends the process where that fails: after a fault of the GPU, or while
    another thread takes memory from a pool.
    """
    device, pool = torch.cuda.current_device(), torch.cuda.graph_pool_handle()
    torch._C._cuda_beginAllocateCurrentThreadToPool(device, pool)  # makes the pool, and counts the owner as its user
    torch._C._cuda_endAllocateToPool(device, pool)
    weakref.finalize(owner, torch._C._cuda_releasePool, device, pool)
    return pool


def enqueue(stream: int, pool: tuple[int, int], work: Callable[[], None]) -> None:
    with in_stream(stream, pool):
        work()


@contextmanager
def in_stream(stream: int, pool: tuple[int, int]) -> Iterator[None]:
    """PyTorch enqueues in this stream, takes memory from this pool, and computes float32 as on the CPU.

    A captured graph has the addresses of what the pool held then, so that nothing else may get or free it. Here stands
    what torch.cuda.use_mem_pool does; itself it refuses a capture that PyTorch did not begin.
    """
    device = torch.cuda.current_device()
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with torch.cuda.stream(torch.cuda.ExternalStream(stream)), exact:
        torch._C._cuda_beginAllocateCurrentThreadToPool(device, pool)
        try:
            yield
        finally:
            torch._C._cuda_endAllocateToPool(device, pool)
            torch._C._cuda_releasePool(device, pool)


def why_not_on_gpu() -> str:
    """Why the engine cannot run on the GPU here; "" where it can."""
    if not torch.cuda.is_available():
        return "this PyTorch was built without CUDA" if torch.version.cuda is None else "PyTorch finds no GPU"
    try:
        _core.require_cuda()
    except Error as error:
        return error.what
    return ""


def _torch_tensorrt() -> Any:
    try:
        import torch_tensorrt
    except Exception as error:  # without a GPU its libraries raise errors of many kinds
        fix = "on a machine with an NVIDIA GPU: pip install torch-tensorrt, built for the installed torch"
        raise Error(Code.engine_unavailable, f"torch_tensorrt cannot be imported: {error}", "", fix) from error
    return torch_tensorrt


def _info(item: onnx.ValueInfoProto) -> TensorInfo:
    return TensorInfo(item.name, static_shape(item))
