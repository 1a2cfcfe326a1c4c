"""PyTorch and producers of images as if there were a GPU: tests/cpp/cuda's fake runtime, whose device memory is the
host's and which runs the work of a stream only when the host waits for it.

PyTorch computes on the CPU, on the fake device's memory, when its stream runs. `set` replaces an attribute: setattr,
or monkeypatch.setattr.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda_budget import BUILD, load

Set = Callable[[Any, str, Any], None]


def use_core(module: Any, set: Set) -> None:
    """Lets the package use the CUDA frame loop of a module of ops_module.cpp; Detector itself is left to the caller."""
    from imkd_edge import _core

    set(_core, "load_for_device", module.load_for_device)
    set(_core, "require_cuda", module.require_cuda)


def core_or_skip() -> Any:
    """The module with the CUDA frame loop on the fake runtime; skips the calling test file without it."""
    core = load("cuda_on_host")
    if core is None:
        reason = f"no cuda_on_host in {BUILD}: the frame loop on the GPU is NOT tested (make test builds it)"
        pytest.skip(reason, allow_module_level=True)
    return core


def use_torch(module: Any, set: Set) -> list[tuple[str, int]]:
    """Gives PyTorch a GPU; returns a list that gets what it binds, ("memory", address), and ("stream", address)."""
    import torch

    import imkd_edge.engines.torch as engine

    seen: list[tuple[str, int]] = []

    def device_tensor(memory: Any) -> torch.Tensor:
        seen.append(("memory", memory.address))
        return torch.from_numpy(in_memory(memory))

    def enqueue(stream: int, pool: tuple[int, int], work: Callable[[], None]) -> None:
        seen.append(("stream", stream))
        module.enqueue(stream, work)

    set(torch.cuda, "is_available", lambda: True)
    set(torch.cuda, "synchronize", lambda: None)
    set(engine, "GPU", "cpu")
    set(engine, "device_tensor", device_tensor)
    set(engine, "own_pool", lambda owner: (0, 1))
    set(engine, "enqueue", enqueue)
    return seen


def in_memory(memory: Any) -> np.ndarray:
    """The array in the fake device's memory, which an engine is bound to."""
    count = int(np.prod(memory.shape))
    array = np.ctypeslib.as_array((ctypes.c_float * count).from_address(memory.address)).reshape(memory.shape)
    assert memory.dtype == np.float32 and memory.__cuda_array_interface__["data"] == (memory.address, False)
    return array


class Late:
    """An image that a stream of its own has not written yet; `seen` has the arguments of __dlpack__.

    form: "interface", a CUDA array interface; "before 1.0" or "read-only 1.0", of DLPack.
    """

    def __init__(self, module: Any, image: np.ndarray, form: str) -> None:
        self.module, self.image, self.form, self.seen = module, np.ascontiguousarray(image), form, {}
        self.address, self._owner, self.stream = module.late_copy(self.image)
        if form == "interface":
            self.__cuda_array_interface__ = {
                "shape": image.shape,
                "typestr": "|u1",
                "data": (self.address, True),
                "version": 3,
                "stream": self.stream,
            }

    def __getattr__(self, name: str) -> object:
        if name in ("__dlpack__", "__dlpack_device__") and self.__dict__.get("form") != "interface":
            return {"__dlpack__": self._export, "__dlpack_device__": lambda: (2, 0)}[name]
        raise AttributeError(name)

    def _export(self, **arguments: Any) -> object:
        if self.form == "before 1.0" and "max_version" in arguments:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        self.seen = arguments
        self.module.make_wait(arguments["stream"], self.stream)
        self.array = np.ctypeslib.as_array((ctypes.c_uint8 * self.image.size).from_address(self.address))
        self.array = self.array.reshape(self.image.shape)
        if self.form == "before 1.0":
            return self.array.__dlpack__()
        self.array.flags.writeable = False  # NumPy exports it with the read-only flag of DLPack 1.0
        return self.array.__dlpack__(max_version=arguments["max_version"])
