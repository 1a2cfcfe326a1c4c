"""find_gpu with a fake driver, and the driver's version from the files of a PC and a Jetson."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from imkd_edge.engines import gpu
from imkd_edge.errors import Error

# First lines of /proc/driver/nvidia/version on a PC and on a Jetson, and of /etc/nv_tegra_release.
DESKTOP = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.82.07  Wed Aug 27 17:36:24 UTC 2025\n"
    "GCC version:  gcc version 12.2.0\n"
)
OPEN = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  "
    "Release Build  (buildbrain)  Tue Jan  7 17:32:24 PST 2025\n"
)
TEGRA = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
    "DATE: Wed Jan  8 01:49:37 UTC 2025\n"
)


class Driver:
    """The five calls of libcuda, of an AGX Orin."""

    def __init__(self, devices: int = 1, fails: str = "") -> None:
        self.devices, self.fails = devices, fails

    def __getattr__(self, call: str) -> Any:
        values = {
            "cuInit": lambda flags: None,
            "cuDeviceGetCount": lambda count: setattr(count._obj, "value", self.devices),
            "cuDeviceGet": lambda device, ordinal: setattr(device._obj, "value", ordinal),
            "cuDeviceGetName": lambda name, size, device: setattr(name, "value", b"Orin"),
            "cuDriverGetVersion": lambda version: setattr(version._obj, "value", 12060),
            "cuDeviceGetAttribute": lambda value, key, device: setattr(value._obj, "value", {75: 8, 76: 7}[key]),
        }

        def run(*arguments: Any) -> int:
            if call == self.fails:
                return 999  # CUDA_ERROR_UNKNOWN
            values[call](*arguments)
            return 0

        return run


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, Path]:
    monkeypatch.setattr(gpu, "DRIVER_FILE", tmp_path / "version")
    monkeypatch.setattr(gpu, "TEGRA_FILE", tmp_path / "nv_tegra_release")
    return tmp_path / "version", tmp_path / "nv_tegra_release"


def test_a_gpu_is_described(monkeypatch: pytest.MonkeyPatch, files: tuple[Path, Path]) -> None:
    files[0].write_text(OPEN)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())
    assert gpu.find_gpu() == gpu.Gpu(name="Orin", sm="87", cuda="12.6", driver="540.4.0")


def test_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(Error, match="no NVIDIA driver") as error:
        gpu.find_gpu()
    assert error.value.code == "E0511" and error.value.fix


@pytest.mark.parametrize("driver", [Driver(devices=0), Driver(fails="cuInit"), Driver(fails="cuDeviceGetCount")])
def test_a_driver_without_a_device(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    with pytest.raises(Error, match="no device"):
        gpu.find_gpu()


@pytest.mark.parametrize("call", ["cuDeviceGet", "cuDeviceGetName", "cuDriverGetVersion", "cuDeviceGetAttribute"])
def test_a_call_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(fails=call))
    with pytest.raises(Error, match=f"{call} failed with CUDA error 999"):
        gpu.find_gpu()


@pytest.mark.parametrize(
    ("version", "tegra", "expected"),
    [
        (DESKTOP, "", "580.82.07"),
        (OPEN, TEGRA, "540.4.0"),
        (None, TEGRA, "R36.4.3"),
        ("?", TEGRA, "R36.4.3"),
        (None, None, "unknown"),
    ],
)
def test_the_drivers_version(files: tuple[Path, Path], version: str | None, tegra: str | None, expected: str) -> None:
    for path, text in zip(files, (version, tegra), strict=True):
        if text is not None:
            path.write_text(text)
    assert gpu.driver_version() == expected
