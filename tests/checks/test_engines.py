"""What doctor says about each engine: what it lacks on this machine, and how to mend that."""

from __future__ import annotations

import ctypes
import sys
import types
from importlib import util
from typing import Any

import pytest

from imkd_edge.checks import doctor
from imkd_edge.checks import engines as checks
from imkd_edge.errors import Error

GPU_ENGINES = ("torch (GPU)", "onnxruntime-cuda (GPU)", "tensorrt (GPU)")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """A machine that has everything; a test takes something away."""
    has = types.SimpleNamespace(gpu=True, core=True, native=["onnxruntime", "tensorrt"], packages=True, library=True)
    has.providers, has.cuda = ["CUDAExecutionProvider"], "13.0"

    def find_gpu() -> Any:
        if not has.gpu:
            raise Error("E0511", "no NVIDIA driver", "libcuda.so.1", "install the NVIDIA driver")

    def require_cuda() -> None:
        if not (has.gpu and has.core):
            raise Error("E0511", "this build of the core has no CUDA", "device", "build it with -DIMKD_CUDA=ON")

    def open_library(name: str) -> None:
        if not has.library:
            raise OSError(name)

    ort = types.SimpleNamespace(get_available_providers=lambda: has.providers)
    torch = types.SimpleNamespace(
        version=types.SimpleNamespace(cuda=has.cuda), cuda=types.SimpleNamespace(is_available=lambda: has.gpu)
    )
    monkeypatch.setattr(checks, "find_gpu", find_gpu)
    monkeypatch.setattr(checks._core, "require_cuda", require_cuda)
    monkeypatch.setattr(checks._core, "native_engines", lambda: has.native)
    monkeypatch.setattr(util, "find_spec", lambda name: object() if has.packages else None)
    monkeypatch.setattr(ctypes, "CDLL", open_library)
    monkeypatch.setitem(sys.modules, "onnxruntime", ort)
    monkeypatch.setitem(sys.modules, "torch", torch)
    has.torch = torch
    return has


def lacking(name: str) -> list[str]:
    return [missing.what for missing in checks.engines()[name]]


def test_where_nothing_is_missing_every_engine_would_work(machine) -> None:
    assert not any(checks.engines().values())
    assert {check.detail for check in doctor._engines()} == {"would work"}


def test_without_a_gpu_its_engines_lack_one_and_the_others_do_not(machine) -> None:
    machine.gpu = False
    found = checks.engines()
    assert {name for name, missing in found.items() if missing} == set(GPU_ENGINES)
    assert all(lacking(name) == ["a GPU (no NVIDIA driver)"] for name in GPU_ENGINES)


@pytest.mark.parametrize(
    ("change", "engine", "what", "fix"),
    [
        ({"core": False}, "torch (GPU)", "CUDA in the core", "IMKD_CUDA=ON"),
        ({"providers": ["CPUExecutionProvider"]}, "onnxruntime-cuda (GPU)", "CUDA in onnxruntime", "onnxruntime-gpu"),
        ({"library": False}, "tensorrt (GPU)", "libnvinfer", "JetPack"),
        ({"native": []}, "tensorrt (GPU)", "this build of the core", "TENSORRT_ROOT"),
        ({"native": []}, "onnxruntime-native (CPU)", "this build of the core", "ONNXRUNTIME_ROOT"),
        ({"packages": False}, "torch (CPU)", "the Python package torch", "imkd-edge[gpu]"),
        ({"packages": False}, "onnxruntime-cuda (GPU)", "onnxruntime-gpu", "pip install onnxruntime-gpu"),
    ],
)
def test_what_an_engine_lacks_is_named_with_its_mend(machine, change, engine, what, fix) -> None:
    vars(machine).update(change)
    (missing, *_) = checks.engines()[engine]
    assert what in missing.what and fix in missing.fix
    check = next(check for check in doctor._engines() if check.name == f"engine {engine}")
    assert check.detail.startswith("lacks ") and what in check.detail and fix in check.fix


def test_a_torch_for_the_cpu_is_told_apart_from_a_missing_one(machine) -> None:
    machine.torch.version.cuda = None
    assert lacking("torch (GPU)") == ["CUDA in PyTorch"] and lacking("torch (CPU)") == []


def test_no_engine_is_left_out() -> None:
    from imkd_edge.engines import engine_names

    named = {name.split(" ")[0] for name in checks.engines()}
    assert named >= set(engine_names()) - {"onnxruntime-tensorrt"}
