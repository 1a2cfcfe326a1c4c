"""What the CUDA kernels may cost (cpp/budget.json), and the PTX that nvcc makes of them run on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cuda_budget
import pytest

ROOT = cuda_budget.ROOT
pytestmark = pytest.mark.slow
RUNTIMES = ("libasan.so", "libubsan.so")


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """The folder of the compiled kernels, and ptxas' report on them."""
    if cuda_budget.nvcc() is None:
        pytest.skip("no nvcc: the CUDA kernels are NOT compiled for sm_87 and sm_110")
    folder = tmp_path_factory.mktemp("objects")
    return folder, cuda_budget.compile_kernels(folder)


def test_no_kernel_spills_or_outgrows_its_budget(objects):
    allowed, actual = cuda_budget.budget()["kernels"], objects[1]
    assert set(actual) == set(allowed)
    for name, kernel in actual.items():
        assert kernel["spills"] == 0, name
        for what in ("registers", "shared", "stack"):
            assert kernel[what] <= allowed[name][what], f"{name}: {kernel[what]} {what}"


def test_a_frame_moves_and_waits_no_more_than_its_budget():
    counted = cuda_budget.load("cuda_counted")
    if counted is None:
        pytest.skip("no cuda_counted in build/tests: the kernels' bytes are NOT counted (make test builds it)")
    actual, allowed = cuda_budget.frame_counts(counted), cuda_budget.budget()["frame"]
    assert set(actual) == set(allowed)
    for name, op in actual.items():
        # the alignment of memory changes a few sectors
        assert op["fewest"] <= op["bytes"] <= 1.01 * allowed[name]["bytes"], name
        for count in ("launches", "barriers", "exchanges"):
            assert op[count] <= allowed[name][count], f"{name}: {op[count]} {count}"
    total = sum(op["bytes"] for op in actual.values())
    assert total <= 1.25 * sum(op["fewest"] for op in actual.values())


def test_the_ptx_gives_what_the_cpu_gives(objects, tmp_path):
    tool = ROOT.parent / "shared" / "tools" / "ptxrun"  # translates PTX into C++
    if not tool.is_dir():
        pytest.skip(f"no {tool}: the kernels' PTX is NOT run")
    include = subprocess.run(
        [sys.executable, "-m", "pybind11", "--includes"], capture_output=True, text=True, check=True
    ).stdout.split()
    library = ROOT / "build" / "tests" / "libimkd.a"
    if not library.is_file():
        pytest.skip(f"no {library}: the kernels' PTX is NOT run (make test builds it)")
    subprocess.run(["bash", str(tool / "build.sh"), str(tmp_path)], check=True)
    module = tmp_path / "tests" / "cpp" / "cuda_on_host.so"
    module.parent.mkdir(parents=True)
    host = [
        *(ROOT / "cpp" / "src" / "cuda").glob("*.cpp"),
        ROOT / "tests" / "cpp" / "cuda" / "ptx_rest.cpp",
    ]  # see CUDA's own header
    for source in host:
        compile_host = [
            "-cudart",
            "none",
            "-Xcompiler",
            "-fPIC,-fvisibility=hidden,-ffp-contract=off",
            "-c",
            str(source),
        ]
        target = tmp_path / f"{source.stem}.host.o"
        subprocess.run([cuda_budget.nvcc(), *cuda_budget.FLAGS, *compile_host, "-o", str(target)], check=True)
    glue = [
        ROOT / "tests" / "cpp" / "cuda" / "ops_module.cpp",
        *(ROOT / "cpp" / "bindings" / f"{n}.cpp" for n in ("common", "detector", "device_array")),
    ]
    sources = [*glue, *sorted(objects[0].glob("*.o")), *sorted(tmp_path.glob("*.host.o"))]
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off", *include]
    paths = [
        f"-I{ROOT}/cpp/include",
        f"-I{ROOT}/cpp/src",
        "-isystem",
        f"{cuda_budget.toolkit()}/include",
        f"-L{tmp_path}",
        f"-Wl,-rpath,{tmp_path}",
    ]
    command = [
        "g++",
        *flags,
        *paths,
        *map(str, sources),
        str(library),
        "-lfake_cudart",
        "-pthread",
        "-ldl",
        "-o",
        str(module),
    ]
    subprocess.run(command, check=True)
    run_cases(tmp_path, "test_cuda.py", "fwd or poses or without", PTX_CACHE=str(tmp_path / "cache"))
    detector = "the_past or float16 or (golden_drive and t4) or (real_frame and fwd)"
    run_cases(tmp_path, "../detector/test_cuda_detector.py", detector, PTX_CACHE=str(tmp_path / "cache"))


def test_the_kernels_are_clean_under_address_and_undefined_behaviour_sanitizers():
    build = ROOT / "build" / "tests-sanitized"
    if not list(build.glob("tests/cpp/cuda_on_host*.so")):
        pytest.skip(f"no cuda_on_host in {build}: the kernels are NOT run under sanitizers (make test builds it)")
    libraries = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in RUNTIMES
    ]
    options = {
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }  # the interpreter itself leaks
    run_cases(build, "test_cuda.py", "fwd or shuffle:1 or poses or without", LD_PRELOAD=" ".join(libraries), **options)


def run_cases(build: Path, tests: str, which: str, **env: str) -> None:
    """Some tests in another process, with the module of another build."""
    cases = [str(Path(__file__).parent / tests), "-k", which]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *cases]
    run = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "IMKD_TEST_BUILD": str(build), **env}, cwd=ROOT
    )
    assert run.returncode == 0 and " passed" in run.stdout and "skipped" not in run.stdout, (
        run.stdout[-3000:] + run.stderr[-2000:]
    )
