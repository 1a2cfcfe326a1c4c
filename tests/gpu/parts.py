"""The parts of the proof. Each returns a record for prove.json: "status" is passed, failed or skipped."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from machine import ROOT, json_include, nvcc

Record = dict[str, Any]
OPS = {  # op: regular expression of its tests in tests/ops/test_cuda.py
    "preprocess_images": "test_images",
    "lift": "lift|table|context",
    "voxelize_radar": "test_the_radar|test_a_radar|test_points",
    "warp_bev": "warped",
    "decode": "boxes|candidates|suppressions",
    "random poses": "random_poses",
}  # a test of none of them is one of "other"
MODULE = "cuda_on_device"  # of tests/cpp/cuda/ops_module.cpp
LIBRARIES = ("torch", "onnx", "cupy-cuda13x", "cupy-cuda12x", "cuda-core", "tensorrt", "timm")
TOOLS = ("memcheck", "racecheck", "initcheck")
REFUSES = "Device not supported"  # what compute-sanitizer says where the system keeps it from the GPU


@dataclass(frozen=True)
class Context:
    out: Path
    build: Path  # of CMake
    fake: bool  # the fake runtime's module of build/tests
    deadline: float  # time.monotonic()
    capability: str = ""  # "9.0"
    json_folder: Path | None = None
    cases: str = ""  # pytest -k
    repeats: int = 30  # of each timed op
    bundles: tuple[str, ...] = ("tiny", "astyx-lite", "astyx-taught")  # whose golden drives are run
    models: tuple[str, ...] = ("tiny", "astyx-taught", "r50-nuscenes")  # which are timed, and trained
    steps: int = 200  # of training
    data: str = ""  # a folder of real frames

    def remaining(self) -> float:
        return self.deadline - time.monotonic()

    def environment(self, **more: str) -> dict[str, str]:
        """Of the processes that load the module: this tree's package, the built one's core."""
        paths = [str(Path(__file__).parent), str(ROOT / "tests")]
        if not self.fake:
            paths.insert(0, str(self.build / "package"))
        env = {"IMKD_TEST_BUILD": str(self.build), "IMKD_CUDA_MODULE": MODULE, "PYTHONPATH": ":".join(paths)}
        env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-smi, whose first GPU the record names
        return {**os.environ, **env, **more}


class OutOfTime(Exception):
    """The time box ended while a part ran."""


def execute(context: Context, command: list[str], log: str, env: dict[str, str] | None = None) -> int:
    """Runs a command in OUT until the time box ends, its output in OUT/log; returns its exit status.

    In OUT and not in the tree: `python -m` puts the current folder before all others, and the tree's has no core.

    Raises: OutOfTime.
    """
    with (context.out / log).open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=env, cwd=context.out, start_new_session=True
        )
        try:
            return process.wait(max(1.0, context.remaining()))
        except subprocess.TimeoutExpired as error:
            raise OutOfTime(f"stopped when the time was up, see {log}") from error
        finally:
            if process.poll() is None:  # with its children: compilers, or what a sanitizer watches
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def tail(context: Context, log: str, lines: int = 15) -> str:
    return "\n".join((context.out / log).read_text(errors="replace").splitlines()[-lines:])


# ---- build ----
def configure_command(context: Context) -> list[str]:
    import pybind11

    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_CUDA_COMPILER": str(nvcc()),
        "CMAKE_CUDA_ARCHITECTURES": context.capability.replace(".", ""),
        "SKBUILD": "ON",  # the Python module _core
        "IMKD_CUDA": "ON",
        "IMKD_BUILD_PROVE": "ON",
        "IMKD_WERROR": "OFF",  # a compiler that nobody tried yet may warn
        "Python_EXECUTABLE": sys.executable,
        "PYBIND11_FINDPYTHON": "ON",
        "pybind11_DIR": pybind11.get_cmake_dir(),
    }
    if context.json_folder is not None:
        options["IMKD_JSON_INCLUDE"] = str(json_include(context.json_folder))
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    return ["cmake", "-S", str(ROOT), "-B", str(context.build), *generator, *(f"-D{k}={v}" for k, v in options.items())]


def lay_out_package(context: Context) -> None:
    """BUILD/package/imkd_edge: links to this tree's Python files as a wheel has them, with the built core.

    sitecustomize, which Python runs first, removes the finder of an editable install, which would go before it.
    """
    package = context.build / "package" / "imkd_edge"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    sources = [p for p in (ROOT / "imkd_edge").iterdir() if p.suffix != ".so" and p.name != "__pycache__"]
    sources += [ROOT / name for name in ("training", "quantization", "calibration")]
    for source in [*sources, *context.build.glob("_core*.so")]:
        (package / source.name).symlink_to(source)
    keep = "[f for f in sys.meta_path if type(f).__name__ != 'ScikitBuildRedirectingFinder']"
    (package.parent / "sitecustomize.py").write_text(f"import sys\n\nsys.meta_path[:] = {keep}\n")


def build(context: Context, targets: tuple[str, ...] = ("_core", MODULE)) -> Record:
    """The core with the CUDA loop, and the module of the ops, for this GPU."""
    if context.fake:
        modules = sorted((context.build / "tests" / "cpp").glob(f"{MODULE}*.so"))
        if not modules:
            return failed(f"no {MODULE} in {context.build}: `make test` builds it")
        return {"status": "passed", "module": modules[0].name, "note": "built before, with the fake CUDA runtime"}
    jobs = str(len(os.sched_getaffinity(0)))
    compile_command = ["cmake", "--build", str(context.build), "--target", *targets, "-j", jobs]
    for command, log in ((configure_command(context), "configure.log"), (compile_command, "build.log")):
        if execute(context, command, log) != 0:
            return failed(f"{' '.join(command[:3])} failed, see {log}", tail=tail(context, log))
    lay_out_package(context)
    return {"status": "passed", "architecture": context.capability}


# ---- ops ----
def cases_command(context: Context) -> list[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "record"]
    return [*command, str(ROOT / "tests" / "ops" / "test_cuda.py"), *(["-k", context.cases] if context.cases else [])]


def read_cases(path: Path) -> tuple[list[str], list[Record]]:
    """The names of the selected cases, and a record of each that ran."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [name for line in lines for name in line.get("selected", [])], [line for line in lines if "case" in line]


def summarize(selected: list[str], records: list[Record]) -> Record:
    """Counts, the largest differences, and the cases that failed or did not run."""
    counts = Counter(record["outcome"] for record in records)
    ran = {record["case"] for record in records}
    largest: dict[str, float] = {}
    for record in records:
        for name, value in record["differences"].items():
            largest[name] = max(largest.get(name, 0.0), value)
    failures = [{"case": r["case"], "message": r["message"]} for r in records if r["outcome"] == "failed"]
    not_run = [name for name in selected if name not in ran]
    passed = bool(selected) and counts["passed"] == len(selected)
    summary = {"cases": len(selected), "passed": counts["passed"], "failed": counts["failed"], "differences": largest}
    return {"status": "passed" if passed else "failed", **summary, "failures": failures, "not_run": not_run}


Cases = tuple[list[str], list[Record], Record]  # selected names, records of those that ran, how the process ended


def run_cases(context: Context, name: str, prefix: list[str], **env: str) -> Cases:
    """Cases in another process; its lines in OUT/name.jsonl, its output in OUT/name.log."""
    path = context.out / f"{name}.jsonl"
    path.unlink(missing_ok=True)
    end: Record = {"exit_status": None}
    try:
        environment = context.environment(IMKD_RECORD=str(path), **env)
        end["exit_status"] = execute(context, [*prefix, *cases_command(context)], f"{name}.log", environment)
    except OutOfTime as error:
        end["reason"] = str(error)
    selected, records = read_cases(path)
    if not selected:
        end.setdefault("reason", f"no case was selected, see {name}.log")
    return selected, records, end


def op_of(case: str) -> str:
    test = case.split("[")[0]
    return next((op for op, pattern in OPS.items() if re.search(pattern, test)), "other")


def ops(context: Context) -> Record:
    """Every case of tests/ops/test_cuda.py: the CUDA op against the CPU op.

    A fault of the GPU, or a crash, ends a process; another one runs the ops that had not begun.
    """
    results: Record = {}
    pending = [*OPS, "other"]
    reason = ""
    while pending and not reason:
        name = f"ops-{len(results)}"
        selected, records, end = run_cases(context, name, [], IMKD_RECORD_OPS=",".join(pending))
        begun = {op_of(record["case"]) for record in records} or {op_of(case) for case in selected[:1]}
        reason = end.get("reason", "")
        for op in dict.fromkeys(map(op_of, selected)):
            cases = [case for case in selected if op_of(case) == op]
            summary = summarize(cases, [record for record in records if op_of(record["case"]) == op])
            results[op] = {**summary, "exit_status": end["exit_status"], "log": f"{name}.log"}
        pending = [op for op in dict.fromkeys(map(op_of, selected)) if op not in begun]
    record = {"status": worst(results) if results else "failed", "ops": results}
    return {**record, "reason": reason} if reason else record


# ---- sanitizer ----
def sanitizer(context: Context) -> Record:
    """The first case of every test under each tool of compute-sanitizer."""
    tool = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if tool is None:
        return skipped("compute-sanitizer is not in PATH")
    records: Record = {}
    for name in TOOLS:
        records[name] = failed("the time was up before it")
        if context.remaining() > 0:
            records[name] = sanitize(context, tool, name)
        if any(REFUSES in line for line in records[name].get("reports", [])):
            return skipped(f"compute-sanitizer says of this machine: {REFUSES}")
    return {"status": worst(records), "tools": records}


def sanitize(context: Context, program: str, tool: str) -> Record:
    log = f"sanitizer-{tool}"
    options = ["--tool", tool, "--target-processes", "all", "--error-exitcode", "9"]
    env = {"IMKD_RECORD_FIRST": "1"} | ({"IMKD_UNFILLED": "1"} if tool == "initcheck" else {})
    selected, records, end = run_cases(context, log, [program, *options], **env)
    record = {**summarize(selected, records), **end}
    lines = (context.out / f"{log}.log").read_text(errors="replace").splitlines()
    record["reports"] = [line for line in lines if line.startswith("=========")][:40]
    record["summary"] = [line for line in lines if line.startswith("=========") and "SUMMARY" in line]
    if record["exit_status"] != 0:
        record["status"] = "failed"
    return record


# ---- kernels ----
def kernels(context: Context) -> Record:
    """The time of each op of a frame, beside the copy of as many bytes."""
    path = context.out / "kernels.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, str(Path(__file__).parent / "kernels.py"), str(path), str(context.repeats)]
    if context.fake:
        command.append("--fake")
    if execute(context, command, "kernels.log", context.environment()) != 0 or not path.is_file():
        return failed("kernels.py failed, see kernels.log", tail=tail(context, "kernels.log"))
    return {"status": "passed", **json.loads(path.read_text())}


# ---- all ----
def failed(reason: str, **more: Any) -> Record:
    return {"status": "failed", "reason": reason, **more}


def skipped(reason: str) -> Record:
    return {"status": "skipped", "reason": reason}


def worst(records: Record) -> str:
    return "failed" if any(record["status"] != "passed" for record in records.values()) else "passed"


def libraries() -> Record:
    """Version of each library that parts use; None where it is not there."""
    found: Record = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
