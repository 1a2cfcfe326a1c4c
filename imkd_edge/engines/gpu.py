"""Queries the NVIDIA GPU of this machine through its driver; needs neither the CUDA toolkit nor a Python package."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imkd_edge._core as _core
from imkd_edge.errors import Code, Error

DRIVER_FILE = Path("/proc/driver/nvidia/version")  # "NVRM version: NVIDIA UNIX ... Kernel Module  580.82.07  ..."
TEGRA_FILE = Path("/etc/nv_tegra_release")  # "# R36 (release), REVISION: 4.3, ...", on a Jetson
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_FIX = "see nvidia-smi or tegrastats"


@dataclass(frozen=True)
class Gpu:
    """The device, CUDA and driver versions that an engine file depends on."""

    name: str  # "Orin"
    sm: str  # compute capability, "87"
    cuda: str  # version that libcuda implements, "12.6"
    driver: str  # version of the kernel driver, "540.4.0"; without DRIVER_FILE the release of L4T, "R36.4.3"


def find_gpu() -> Gpu:
    """The first GPU visible to this process.

    Raises:
        Error: device_unavailable without a driver or without a device.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        fix = "on a Jetson install JetPack, elsewhere the NVIDIA driver"
        raise Error(Code.device_unavailable, "no NVIDIA driver", "libcuda.so.1", fix) from error
    count, version, device = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        raise Error(Code.device_unavailable, "a driver, but no device", "libcuda.so.1", _FIX)
    name = ctypes.create_string_buffer(256)
    _check(cuda.cuDeviceGet(ctypes.byref(device), 0), "cuDeviceGet")
    _check(cuda.cuDeviceGetName(name, len(name), device), "cuDeviceGetName")
    _check(cuda.cuDriverGetVersion(ctypes.byref(version)), "cuDriverGetVersion")
    sm = "".join(str(_attribute(cuda, attribute, device)) for attribute in (_MAJOR, _MINOR))
    cuda_version = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name.value.decode(errors="replace"), sm, cuda_version, driver_version())


def driver_version() -> str:
    """Version of the kernel driver, as the native engine reads it; "unknown" where no file holds it."""
    return _core.driver_version(str(DRIVER_FILE), str(TEGRA_FILE))


def _attribute(cuda: Any, attribute: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    _check(cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device), "cuDeviceGetAttribute")
    return value.value


def _check(status: int, call: str) -> None:
    if status != 0:
        raise Error(Code.device_unavailable, f"{call} failed with CUDA error {status}", "libcuda.so.1", _FIX)
