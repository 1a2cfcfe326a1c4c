"""PyTorch as an engine, for comparison: independent operators on the CPU, or torch-tensorrt on the GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from imkd_edge._core import Engine, TensorInfo
from imkd_edge.bundle.shapes import static_shape
from imkd_edge.engines import torch_graph
from imkd_edge.engines.onnxruntime import cores
from imkd_edge.errors import Code, Error

COMPILERS = ("torch", "torch-tensorrt")


class TorchEngine(Engine):
    """Runs a part of any bundle: `Detector("tiny", engine=TorchEngine)`.

    "torch-tensorrt" compiles the part at load. Its tensors are copied through the host's memory: it is fit for timing
    networks, not frames.

    Args:
        threads: of one run; 0 is one per core.
        compiler: "torch", node by node on the CPU, or "torch-tensorrt", on the GPU.

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
        self._device = "cuda" if self._compile else "cpu"
        self._path, self._arrays = "", dict[str, np.ndarray]()
        self._graph = onnx.GraphProto()
        self._module: Any = None

    def name(self) -> str:
        return self._name

    def load(self, onnx_path: str) -> None:
        self.load_content(onnx_path, None)

    def load_content(self, onnx_path: str, content: bytes | None) -> None:
        self._path, self._arrays = str(onnx_path), {}
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

    def inputs(self) -> list[TensorInfo]:
        return [_info(item) for item in self._graph.input]

    def outputs(self) -> list[TensorInfo]:
        return [_info(item) for item in self._graph.output]

    def bind(self, tensor: str, array: np.ndarray) -> None:
        shapes = {info.name: info.shape for info in [*self.inputs(), *self.outputs()]}
        if tensor not in shapes:
            what = f'the model has no tensor "{tensor}"'
            raise Error(Code.engine_bind, what, self._path, "see inputs() and outputs()")
        if array.dtype != np.float32 or array.shape != shapes[tensor]:
            problem = f'"{tensor}" is float32 {shapes[tensor]}; the array is {array.dtype} {array.shape}'
            raise Error(Code.engine_bind, problem, self._path, "use numpy.zeros(shape, numpy.float32)")
        self._arrays[tensor] = array

    def run(self) -> None:
        names = [item.name for item in self._graph.input]
        missing = [name for name in names if name not in self._arrays]
        if missing or not names:
            problem = f"not bound: {', '.join(missing)}" if missing else "no model is loaded"
            raise Error(Code.engine_run, problem, self._path, "load a model, then bind every input")
        torch.set_num_threads(self._threads)
        with torch.no_grad():
            outputs = self._module(*(torch.from_numpy(self._arrays[name]).to(self._device) for name in names))
        for item, value in zip(self._graph.output, outputs, strict=True):
            if item.name in self._arrays and item.name not in names:
                self._arrays[item.name][...] = value.float().cpu().numpy()


def _torch_tensorrt() -> Any:
    try:
        import torch_tensorrt
    except Exception as error:  # without a GPU its libraries raise errors of many kinds
        fix = "on a machine with an NVIDIA GPU: pip install torch-tensorrt, built for the installed torch"
        raise Error(Code.engine_unavailable, f"torch_tensorrt cannot be imported: {error}", "", fix) from error
    return torch_tensorrt


def _info(item: onnx.ValueInfoProto) -> TensorInfo:
    return TensorInfo(item.name, static_shape(item))
