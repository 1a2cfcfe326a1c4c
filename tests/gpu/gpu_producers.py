"""Libraries that make an image on the GPU in a stream of their own: the image is written late, after a pause."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import gpu_engines
import numpy as np

Produce = Callable[[np.ndarray], Any]
PAUSE = 20_000_000  # clock cycles of the GPU, about 10 ms


def producers() -> dict[str, tuple[Produce | None, str]]:
    """Name -> how it puts an image on the GPU, or None and why it cannot."""
    if gpu_engines.FAKE:
        import fake_gpu

        forms = {"torch": "read-only 1.0", "cupy": "interface", "DLPack before 1.0": "before 1.0"}
        return {
            name: ((lambda image, form=form: fake_gpu.Late(gpu_engines.fake, image, form)), "")
            for name, form in forms.items()
        }
    found: dict[str, tuple[Produce | None, str]] = {"torch": (torch_image, "")}
    for name, module, produce in (("cupy", "cupy", cupy_image), ("cuda-core", "cuda.core", cuda_core_image)):
        try:
            there = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            there = False
        found[name] = (produce, "") if there else (None, f"the Python package {name} is not installed")
    return found


def torch_image(image: np.ndarray) -> Any:
    import torch

    there = torch.from_numpy(image).cuda()
    late = torch.zeros_like(there)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(PAUSE)
        late.copy_(there, non_blocking=True)
    # DLPack asks the stream that is current at the export.
    return WithStream(late, there, stream)


class WithStream:
    """A tensor that is exported in the stream that writes it, from a source whose memory nobody gets before."""

    def __init__(self, tensor: Any, source: Any, stream: Any) -> None:
        self.tensor, self.source, self.stream = tensor, source, stream

    def __dlpack__(self, **arguments: Any) -> Any:
        import torch

        with torch.cuda.stream(self.stream):
            return self.tensor.__dlpack__(**arguments)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.tensor.__dlpack_device__()


def cupy_image(image: np.ndarray) -> Any:
    """CuPy's CUDA array interface names the current stream."""
    import cupy

    wait = cupy.RawKernel(
        'extern "C" __global__ void wait(long long n) { long long t = clock64(); while (clock64() - t < n) {} }', "wait"
    )
    there = cupy.asarray(image)
    late = cupy.zeros_like(there)
    cupy.cuda.get_current_stream().synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        wait((1,), (1,), (np.int64(PAUSE),))
        cupy.copyto(late, there)
        interface = late.__cuda_array_interface__
    return Described(interface, (late, there, stream))


def cuda_core_image(image: np.ndarray) -> Any:
    """A buffer of cuda.core, filled by an asynchronous copy in its stream, through cuda.bindings."""
    from cuda.bindings import runtime
    from cuda.core import Device

    device = Device(0)
    device.set_current()
    stream = device.create_stream()
    buffer = device.allocate(image.nbytes, stream=stream)
    copied = runtime.cudaMemcpyAsync(
        int(buffer.handle), image.ctypes.data, image.nbytes, runtime.cudaMemcpyKind.cudaMemcpyHostToDevice,
        int(stream.handle),
    )  # fmt: skip
    assert copied[0] == runtime.cudaError_t.cudaSuccess, copied
    interface = {
        "shape": image.shape,
        "typestr": "|u1",
        "data": (int(buffer.handle), True),
        "strides": None,
        "version": 3,
        "stream": int(stream.handle),
    }
    return Described(interface, (buffer, stream, image))


class Described:
    """A CUDA array interface, and what keeps its memory alive."""

    def __init__(self, interface: dict[str, Any], owners: tuple) -> None:
        self.__cuda_array_interface__, self.owners = interface, owners
