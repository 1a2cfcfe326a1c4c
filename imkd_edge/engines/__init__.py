"""Engines, each of which runs one ONNX part: ONNX Runtime, TensorRT on a GPU, or any subclass of `Engine`."""

from imkd_edge._core import Engine, TensorInfo
from imkd_edge.engines.load import EngineFactory, engine_names, load_engines, make_engine
from imkd_edge.engines.onnxruntime import OnnxRuntimeEngine, cores, onnxruntime_library

__all__ = [
    "Engine",
    "EngineFactory",
    "OnnxRuntimeEngine",
    "TensorInfo",
    "cores",
    "engine_names",
    "load_engines",
    "make_engine",
    "onnxruntime_library",
]
