"""The NVIDIA GPU of this machine, as its own driver describes it; needs neither CUDA's toolkit nor any package."""

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


@dataclass(frozen=True)
class Gpu:
    """What an engine file depends on besides TensorRT."""

    name: str  # "Orin"
    sm: str  # compute capability, "87"
    cuda: str  # that libcuda implements, "12.6"
    driver: str  # of the kernel, "540.4.0"; on a Jetson without that file the release of L4T, "R36.4.3"


def find_gpu() -> Gpu:
    """The first GPU that CUDA shows to this process.

    Raises:
        Error: device_unavailable without a driver, or when the driver has no device.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        fix = "on a Jetson install JetPack; elsewhere the NVIDIA driver"
        raise Error(Code.device_unavailable, "no NVIDIA driver", "libcuda.so.1", fix) from error
    count, version, device = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        raise Error(Code.device_unavailable, "a driver, but no device", "libcuda.so.1", "see nvidia-smi or tegrastats")
    name = ctypes.create_string_buffer(256)
    _check(cuda.cuDeviceGet(ctypes.byref(device), 0), "cuDeviceGet")
    _check(cuda.cuDeviceGetName(name, len(name), device), "cuDeviceGetName")
    _check(cuda.cuDriverGetVersion(ctypes.byref(version)), "cuDriverGetVersion")
    sm = "".join(str(_attribute(cuda, attribute, device)) for attribute in (_MAJOR, _MINOR))
    return Gpu(
        name.value.decode(errors="replace"),
        sm,
        f"{version.value // 1000}.{version.value % 1000 // 10}",
        driver_version(),
    )


def driver_version() -> str:
    """Version of the kernel's driver, as the native engine reads it; "unknown" where the system does not tell."""
    return _core.driver_version(str(DRIVER_FILE), str(TEGRA_FILE))


def _attribute(cuda: Any, attribute: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    _check(cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device), "cuDeviceGetAttribute")
    return value.value


def _check(status: int, call: str) -> None:
    if status != 0:
        raise Error(
            Code.device_unavailable,
            f"{call} failed with CUDA error {status}",
            "libcuda.so.1",
            "see nvidia-smi or tegrastats",
        )
