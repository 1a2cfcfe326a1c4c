"""What the machine has and lacks for the proof on a GPU, and the words that every number is labelled with."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("numpy", "cv2", "pytest", "filelock", "pybind11")  # of the ops, their tests and the build
PYBIND11 = 3  # the oldest major version that the bindings compile with


def output(*command: str) -> str:
    """What a command prints; "" where it fails or is not there."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""


def nvcc() -> str | None:
    usual = Path("/usr/local/cuda/bin/nvcc")
    named = os.environ.get("IMKD_NVCC") or os.environ.get("CUDACXX") or shutil.which("nvcc")
    return named or (str(usual) if usual.is_file() else None)


def gpu() -> dict[str, str] | None:
    """Name, driver and compute capability ("9.0") of the first visible GPU; None where nvidia-smi reports none."""
    fields = "name,driver_version,compute_cap"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    only = ["-i", visible] if visible else []
    lines = output("nvidia-smi", *only, f"--query-gpu={fields}", "--format=csv,noheader").splitlines()
    values = [value.strip() for value in lines[0].split(",")] if lines else []
    return dict(zip(("gpu", "driver", "capability"), values)) if len(values) == 3 else None


def gpu_count() -> int:
    """GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return len(visible.split(",")) if visible else len(output("nvidia-smi", "-L").splitlines())


def json_include(named: Path | None) -> Path | None:
    """The folder of nlohmann/json.hpp: the named one, or where a compiler looks anyway."""
    folders = [named] if named else [Path("/usr/include"), Path("/usr/local/include")]
    return next((folder for folder in folders if (folder / "nlohmann" / "json.hpp").is_file()), None)


def pybind11_version() -> str:
    try:
        return metadata.version("pybind11")
    except metadata.PackageNotFoundError:
        return ""


def missing(json_folder: Path | None) -> list[str]:
    """Everything that the proof needs and this machine lacks, with how to mend it."""
    lacks = []
    if gpu() is None:
        lacks.append("no GPU: `nvidia-smi` is not there or reports none; run it on a machine with an NVIDIA GPU")
    if nvcc() is None:
        lacks.append("no nvcc: put CUDA's bin folder in PATH, or name the compiler in CUDACXX")
    if shutil.which("cmake") is None:
        lacks.append("no cmake: put it in PATH (3.20 or newer)")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        lacks.append(f"no Python.h in {sysconfig.get_path('include')}: run it with a Python that has its headers")
    lacks += [
        f"no Python module {name}: run it with a Python that has it"
        for name in MODULES
        if importlib.util.find_spec(name) is None
    ]
    version = pybind11_version()
    if version and int(version.split(".")[0]) < PYBIND11:
        lacks.append(f"pybind11 {version} is too old: run it with a Python that has {PYBIND11}.0 or newer")
    if json_include(json_folder) is None:
        folder = json_folder or "/usr/include"
        lacks.append(f"no nlohmann/json.hpp in {folder}: name the folder above it with --json-include DIR")
    return lacks


def commit(named: str | None) -> str:
    """The commit of the tree, "+" where it has changes; `named` where there is no git."""
    revision = output("git", "rev-parse", "--short=12", "HEAD")
    if not revision:
        return named or "unknown (no git here: name it with --commit)"
    return revision + ("+" if output("git", "status", "--porcelain") else "")


def describe(fake: bool, named_commit: str | None) -> dict[str, str]:
    """GPU, driver, CUDA, commit and the host; "label" is all of them on one line."""
    about = {"gpu": "none: the fake CUDA runtime on the CPU", "driver": "none", "capability": "none"}
    if not fake:
        about = gpu() or about
    release = [word for word in output(nvcc() or "nvcc", "--version").replace(",", " ").split() if word.startswith("V")]
    about["cuda"] = "none" if fake or not release else release[-1].removeprefix("V")
    about["commit"] = commit(named_commit)
    about["host"] = f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, Python {sys.version.split()[0]}"
    about["label"] = f"{about['gpu']}, driver {about['driver']}, CUDA {about['cuda']}, commit {about['commit']}"
    return about
