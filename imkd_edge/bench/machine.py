"""Describes the machine and the software versions of a benchmark; "absent" or "unknown" where there is no value."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from imkd_edge.engines.gpu import find_gpu
from imkd_edge.errors import Error

ABSENT, UNKNOWN = "absent", "unknown"


def environment(root: Path | str = "/") -> dict[str, Any]:
    """Processor, kernel, versions of the software and of NVIDIA's stack.

    Args:
        root: folder of /proc, /sys, /etc, /usr and /var.
    """
    root = Path(root)
    return {
        "cpu": _cpu_model(root),
        "board": text(root / "proc/device-tree/model") or text(root / "sys/class/dmi/id/product_name") or UNKNOWN,
        "machine": platform.machine(),
        "cores": usable_cores(),
        "cpu governor": _governors(root),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "imkd-edge": _version("imkd-edge"),
        "commit": _commit(Path(__file__).resolve().parents[2]),
        "onnxruntime": _version("onnxruntime", "onnxruntime-gpu"),
        "numpy": _version("numpy"),
        "opencv-python-headless": _version("opencv-python-headless"),
        **_nvidia(root),
    }


def usable_cores() -> int:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def text(path: Path) -> str | None:
    """Content of a small system file; None where it does not exist, is not UTF-8 or its device is suspended."""
    try:
        return path.read_text().strip("\0 \n")
    except (OSError, UnicodeDecodeError):
        return None


def _nvidia(root: Path) -> dict[str, str]:
    try:
        gpu = find_gpu()
        device = {"gpu": f"{gpu.name}, sm {gpu.sm}", "cuda driver": f"{gpu.cuda}, {gpu.driver}"}
    except Error:
        device = {"gpu": ABSENT, "cuda driver": ABSENT}
    packages = _debian(root)
    release = _l4t(root, packages)
    no_jetpack = ABSENT if release == ABSENT else UNKNOWN  # nvidia-jetpack is a meta-package that a Jetson may lack
    jetpack = packages.get("nvidia-jetpack", no_jetpack)
    return {
        **device,
        "cuda runtime": _cuda_runtime(root),
        "tensorrt": _tensorrt(root),
        "l4t": release,
        "jetpack": jetpack,
    }


def _l4t(root: Path, packages: dict[str, str]) -> str:
    """R36.4.3, from "# R36 (release), REVISION: 4.3, ..." or from the package's 36.4.3-20250107174145."""
    if match := re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text(root / "etc/nv_tegra_release") or ""):
        return f"R{match[1]}.{match[2]}"
    version = packages.get("nvidia-l4t-core")
    return f"R{version.split('-')[0]}" if version else ABSENT


def _debian(root: Path) -> dict[str, str]:
    """Versions of the installed packages nvidia-l4t-core and nvidia-jetpack."""
    packages = ("nvidia-l4t-core", "nvidia-jetpack")
    versions = {}
    for stanza in (text(root / "var/lib/dpkg/status") or "").split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Version): (.+)$", stanza, re.MULTILINE))
        if fields.get("Package", "") in packages and fields.get("Status") == "install ok installed":
            versions[fields["Package"]] = fields.get("Version", UNKNOWN)
    return versions


def _cuda_runtime(root: Path) -> str:
    try:
        return str(json.loads(text(root / "usr/local/cuda/version.json") or "")["cuda"]["version"])
    except (ValueError, KeyError, TypeError):
        return _version("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12")


def _tensorrt(root: Path) -> str:
    names = [path.name for path in root.glob("usr/lib/*-linux-gnu/libnvinfer.so.*")]
    versions = [name.removeprefix("libnvinfer.so.") for name in names]
    if versions:
        return max(versions, key=len)  # .so.10 links to .so.10.3.0
    return _version("tensorrt", "tensorrt-cu13", "tensorrt-cu12")


def _governors(root: Path) -> str:
    governors = {text(path) for path in root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")}
    return ", ".join(sorted(name for name in governors if name)) or UNKNOWN


def _version(*packages: str) -> str:
    for package in packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return ABSENT


def _commit(checkout: Path) -> str:
    """Commit of a checkout from which the package is used; unknown for a wheel."""
    if not (checkout / ".git").exists():
        return UNKNOWN
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN
    return process.stdout.strip() or UNKNOWN


def _cpu_model(root: Path) -> str:
    lines = (text(root / "proc/cpuinfo") or "").splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("model name")]
    return models[0] if models else platform.machine() or UNKNOWN
