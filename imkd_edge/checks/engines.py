"""Which engines would work on this machine, and what is missing for the others."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from importlib import util

import imkd_edge._core as _core
from imkd_edge.engines.gpu import find_gpu
from imkd_edge.engines.onnxruntime import CUDA, PROVIDERS
from imkd_edge.errors import Error

LIBRARIES = [f"libnvinfer.so.{major}" for major in (11, 10)]  # of TensorRT, the newest first


@dataclass(frozen=True)
class Missing:
    """What an engine lacks here, and how to mend it."""

    what: str
    fix: str


def engines() -> dict[str, list[Missing]]:
    """Engine, with its device -> what is missing for it; nothing is missing for those that would work."""
    return {name: [missing for find in needs if (missing := find()) is not None] for name, needs in _NEEDS.items()}


def _package(name: str, fix: str) -> Callable[[], Missing | None]:
    return lambda: None if util.find_spec(name) else Missing(f"the Python package {name}", fix)


def _native(name: str, fix: str) -> Callable[[], Missing | None]:
    return lambda: None if name in _core.native_engines() else Missing(f'"{name}" in this build of the core', fix)


def _gpu() -> Missing | None:
    try:
        find_gpu()
    except Error as error:
        return Missing(f"a GPU ({error.what})", error.fix)
    return None


def _core_with_cuda() -> Missing | None:
    try:
        _core.require_cuda()
    except Error as error:
        return None if _gpu() else Missing(f"CUDA in the core ({error.what})", error.fix)
    return None


def _provider() -> Missing | None:
    if util.find_spec("onnxruntime") is None:
        return Missing("the Python package onnxruntime-gpu", "pip install onnxruntime-gpu")
    import onnxruntime

    if PROVIDERS[CUDA] in onnxruntime.get_available_providers():
        return None
    return Missing("CUDA in onnxruntime", "pip uninstall onnxruntime, then pip install onnxruntime-gpu")


def _torch_with_cuda() -> Missing | None:
    try:
        import torch
    except ImportError:
        return None  # named already
    if torch.version.cuda is None:
        return Missing("CUDA in PyTorch", "install the build of torch for CUDA: pip install torch")
    if torch.cuda.is_available() or _gpu():
        return None
    return Missing(f"a GPU that PyTorch for CUDA {torch.version.cuda} can use", "install a newer NVIDIA driver")


def _library() -> Missing | None:
    for library in LIBRARIES:
        try:
            ctypes.CDLL(library)
            return None
        except OSError:
            continue
    return Missing("TensorRT's library libnvinfer", "on a Jetson install JetPack, elsewhere TensorRT 10.3 or newer")


_EXTRA = 'pip install "imkd-edge[gpu]"'
_NEEDS: dict[str, list[Callable[[], Missing | None]]] = {
    "onnxruntime (CPU)": [_package("onnxruntime", "pip install onnxruntime")],
    "onnxruntime-native (CPU)": [
        _native("onnxruntime", "build the core where CMake finds ONNX Runtime's headers (ONNXRUNTIME_ROOT)")
    ],
    "torch (CPU)": [_package("torch", _EXTRA), _package("onnx", _EXTRA)],
    "torch (GPU)": [_gpu, _core_with_cuda, _package("torch", _EXTRA), _package("onnx", _EXTRA), _torch_with_cuda],
    f"{CUDA} (GPU)": [_gpu, _core_with_cuda, _provider],
    "tensorrt (GPU)": [
        _gpu,
        _core_with_cuda,
        _native("tensorrt", "build the core where CMake finds NvInfer.h (TENSORRT_ROOT)"),
        _library,
        _package("tensorrt", 'for build-engine: pip install "imkd-edge[tensorrt]"'),
        _package("onnx", "for build-engine: pip install onnx"),
    ],
}
