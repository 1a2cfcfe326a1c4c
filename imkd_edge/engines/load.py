"""Creates engines by name and chooses their device."""

from __future__ import annotations

import os
from collections.abc import Callable

import imkd_edge._core as _core
from imkd_edge._core import Engine
from imkd_edge.engines.onnxruntime import PROVIDERS, OnnxRuntimeEngine, onnxruntime_library
from imkd_edge.errors import Code, Error

EngineFactory = Callable[[int], Engine]  # threads -> an engine without a model


def _native_onnxruntime(threads: int) -> Engine:
    if library := onnxruntime_library():
        _core.set_ort_library(str(library))
    return _core.make_engine("onnxruntime", threads)


def engine_names() -> list[str]:
    """Names of the engines in this installation."""
    return [
        "onnxruntime",
        *PROVIDERS,
        *("onnxruntime-native" if name == "onnxruntime" else name for name in _core.native_engines()),
    ]


def make_engine(engine: str | EngineFactory, threads: int = 0) -> Engine:
    """A new engine without a model.

    Args:
        engine: one of `engine_names()`, or a callable threads -> Engine.
        threads: cores for one run; 0 is one per core.

    Raises:
        Error: engine_unavailable for a name that this installation does not have, device_unavailable for a number of
            threads out of range.
    """
    if not isinstance(threads, int) or not 0 <= threads <= _core.MAX_THREADS:
        fix = f"give 1 to {_core.MAX_THREADS}, or 0 for one per core"
        raise Error(Code.device_unavailable, f"{threads!r} threads", "threads", fix)
    if callable(engine):
        return engine(threads)
    if engine == "onnxruntime" or engine in PROVIDERS:
        return OnnxRuntimeEngine(threads, engine)
    if engine == "onnxruntime-native":
        return _native_onnxruntime(threads)
    if engine in _core.native_engines():
        return _core.make_engine(engine, threads)
    fix = f"choose one of: {', '.join(engine_names())}"
    raise Error(Code.engine_unavailable, f'there is no engine "{engine}"', "engine", fix)


def load_engines(
    camera_onnx: str | os.PathLike[str],
    bev_onnx: str | os.PathLike[str],
    device: str,
    engine: str | EngineFactory,
    threads: int,
    contents: tuple[bytes, bytes] | None = None,
) -> tuple[Engine, Engine, str, str]:
    """Creates both engines and loads their networks.

    Args:
        camera_onnx, bev_onnx: the two parts; "tensorrt" loads the engine files that build-engine built from them.
        device: "cpu", "cuda", or "auto": the GPU where it is usable.
        engine: a name, a factory, or "auto": "tensorrt" on the GPU, "onnxruntime" on the CPU.
        threads: cores for one run; 0 is one per core.
        contents: of the two files, read and checked before; None: the engines read them.

    Returns:
        The camera engine, the bev engine, the device ("cpu", "cuda", or "auto" for the core to choose), and the reason
        why device and engine "auto" fell back to the CPU, else "".

    Raises:
        Error: device_unavailable, engine_unavailable, engine_load, engine_stale.
    """
    engines: list[Engine] = []

    def load(name: str) -> None:
        pair = [make_engine(name if isinstance(engine, str) else engine, threads) for _ in range(2)]
        for i, (part, onnx) in enumerate(zip(pair, (camera_onnx, bev_onnx))):
            if contents is None:
                part.load(os.fspath(onnx))
            else:
                part.load_content(os.fspath(onnx), contents[i])
        engines[:] = pair

    device, why_not_cuda = _core.load_for_device(device, engine if isinstance(engine, str) else "factory", load)
    camera, bev = engines
    return camera, bev, device, why_not_cuda
