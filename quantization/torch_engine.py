"""PyTorch as an engine, to compare others with: slow, on the CPU, and written apart from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch

from imkd_edge.engines import Engine, TensorInfo, cores
from imkd_edge.errors import Code, Error
from imkd_edge.quantization import torch_graph


class TorchEngine(Engine):
    """Runs a part node by node.

    Args:
        threads: cores for one run; 0 is one per core.

    Raises:
        Error: engine_load, engine_bind, engine_run for what it cannot read, bind or run.
    """

    def __init__(self, threads: int = 0) -> None:
        super().__init__()
        self._threads = threads or cores()
        self._path, self._arrays = "", dict[str, np.ndarray]()
        self._model, self._constants = onnx.ModelProto(), torch_graph.Values()

    def name(self) -> str:
        return "torch"

    def load(self, onnx_path: str) -> None:
        self._path = str(onnx_path)
        try:
            self._model = onnx.load_from_string(Path(onnx_path).read_bytes())
        except Exception as error:  # protobuf's own classes differ between versions
            raise Error(Code.engine_load, f"this is no ONNX file: {error}", self._path, "export the model again") from error
        strange = {node.op_type for node in self._model.graph.node} - set(torch_graph.OPERATORS)
        if strange:
            what = f"PyTorch is not told how to run {', '.join(sorted(strange))}"
            raise Error(Code.engine_load, what, self._path, "leave torch out of --engines")
        self._constants, self._arrays = torch_graph.constants(self._model.graph), {}

    def inputs(self) -> list[TensorInfo]:
        return [_info(item) for item in self._model.graph.input]

    def outputs(self) -> list[TensorInfo]:
        return [_info(item) for item in self._model.graph.output]

    def bind(self, tensor: str, array: np.ndarray) -> None:
        shapes = {info.name: info.shape for info in [*self.inputs(), *self.outputs()]}
        if tensor not in shapes:
            raise Error(Code.engine_bind, f'the model has no tensor "{tensor}"', self._path, "see inputs() and outputs()")
        if array.dtype != np.float32 or array.shape != shapes[tensor]:
            problem = f'"{tensor}" is float32 {shapes[tensor]}; the array is {array.dtype} {array.shape}'
            raise Error(Code.engine_bind, problem, self._path, "use numpy.zeros(shape, numpy.float32)")
        self._arrays[tensor] = array

    def run(self) -> None:
        names = [item.name for item in self._model.graph.input]
        missing = [name for name in names if name not in self._arrays]
        if missing or not names:
            problem = f"not bound: {', '.join(missing)}" if missing else "no model is loaded"
            raise Error(Code.engine_run, problem, self._path, "load a model, then bind every input")
        torch.set_num_threads(self._threads)
        with torch.no_grad():
            given = {name: torch.from_numpy(self._arrays[name]) for name in names}
            values = torch_graph.execute(self._model.graph, {**self._constants, **given})
        for item in self._model.graph.output:
            if item.name in self._arrays and item.name not in names:
                self._arrays[item.name][...] = values[item.name].numpy()


def _info(item: onnx.ValueInfoProto) -> TensorInfo:
    return TensorInfo(item.name, [d.dim_value for d in item.type.tensor_type.shape.dim])
