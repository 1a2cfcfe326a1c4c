"""The C++ core for aarch64, as on a Jetson: cross-compiled, run in an emulator, with the same bits as here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import cuda_budget
import pytest
from conftest import NO_CROSS

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "aarch64"  # stays for the next run
HERE = Path(os.environ.get("IMKD_DIGEST", ROOT / "build" / "tests" / "tests" / "cpp" / "digest"))
QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
CORES = str(len(os.sched_getaffinity(0)))

pytestmark = pytest.mark.slow


def run(*command: str | Path) -> str:
    environment = {"CMAKE_BUILD_PARALLEL_LEVEL": CORES, "CTEST_PARALLEL_LEVEL": CORES, **os.environ}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.run(command, cwd=ROOT, env=environment, text=True, **pipes)
    assert process.returncode == 0, f"{command}\n{process.stdout[-6000:]}"
    return process.stdout


@pytest.fixture(scope="module")
def build() -> Path:
    if not (QEMU and shutil.which("aarch64-linux-gnu-g++") and Path("/usr/src/googletest").is_dir()):
        pytest.skip(NO_CROSS)
    toolchain = "-DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux.cmake"
    run("cmake", "-S", ".", "-B", BUILD, "-G", "Ninja", toolchain, "-DIMKD_BUILD_TESTS=ON", "-DIMKD_BUILD_EXAMPLES=ON")
    run("cmake", "--build", BUILD)
    return BUILD


def test_the_tests_and_the_example_pass_in_the_emulator(build: Path) -> None:
    machine = (build / "cpp" / "examples" / "detect").read_bytes()[18:20]
    assert int.from_bytes(machine, "little") == 183  # EM_AARCH64, ELF for the Arm 64-bit Architecture
    # A thousand frames take an emulator minutes, and allocations do not depend on the processor.
    output = run("ctest", "--test-dir", build, "--output-on-failure", "-E", "a_thousand_frames")
    assert "100% tests passed" in output and "No tests were found" not in output
    assert "Install.find_package" in output  # which builds the example against the installed package, and runs it


def test_every_op_gives_the_same_bits_as_here(build: Path) -> None:
    if not HERE.is_file():
        pytest.skip("the digest of this machine was not built (make test builds it): the bits are NOT compared")
    here = run(HERE).splitlines()
    assert len(here) == len({line.split()[1] for line in here}) >= 13
    assert run(str(QEMU), "-L", "/usr/aarch64-linux-gnu", build / "tests" / "cpp" / "digest").splitlines() == here


def test_the_cuda_objects_are_made_for_the_arm_host_and_orin(tmp_path: Path) -> None:
    nvcc = cuda_budget.nvcc()
    if not (nvcc and shutil.which("aarch64-linux-gnu-g++")):
        pytest.skip(f"no nvcc, or {NO_CROSS}: the CUDA objects are NOT built for a Jetson")
    top = cuda_budget.toolkit()
    headers = [f"-I{top}/include", "-isystem", f"{top}/include/cccl"]  # the host's: the same for both processors
    target = "-ccbin aarch64-linux-gnu-g++ -gencode arch=compute_87,code=sm_87 -Xcompiler -fPIC"
    flags = [*cuda_budget.FLAGS, *headers, *target.split()]
    for source in [*cuda_budget.KERNELS, *(ROOT / "cpp" / "src" / "cuda").glob("*.cpp")]:
        path = tmp_path / f"{source.name}.o"
        run(nvcc, *flags, "-c", source, "-o", path)
        data = path.read_bytes()
        assert int.from_bytes(data[18:20], "little") == 183, source.name
        # ELF files in the fat binary, for the device: EM_CUDA is 190.
        machines = [data[i + 18 : i + 20] for i in range(1, len(data)) if data[i : i + 4] == b"\x7fELF"]
        assert (source.suffix == ".cpp") == (not machines)
        assert all(int.from_bytes(machine, "little") == 190 for machine in machines)


CONSUMER = """
#include <cstdio>
#include <imkd/detector.hpp>
#include <imkd/error.hpp>
int main() {
  try {
    imkd::require_cuda();
    std::puts("a GPU");
  } catch (const imkd::Error& error) {
    std::puts(error.what());
  }
}
"""


def test_a_build_with_cuda_installs_and_reports_a_missing_gpu(tmp_path: Path) -> None:
    if cuda_budget.nvcc() is None:
        pytest.skip("no nvcc: the library is NOT built with CUDA")
    build, prefix, consumer = tmp_path / "build", tmp_path / "prefix", tmp_path / "consumer"
    run("cmake", "-S", ".", "-B", build, "-G", "Ninja", "-DIMKD_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={cuda_budget.nvcc()}")
    run("cmake", "--build", build)
    run("cmake", "--install", build, "--prefix", prefix, "--component", "cpp")
    consumer.mkdir()
    (consumer / "main.cpp").write_text(CONSUMER)
    (consumer / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(consumer LANGUAGES CXX)\nfind_package(imkd REQUIRED)\n"
        "add_executable(main main.cpp)\ntarget_link_libraries(main PRIVATE imkd::imkd)\n"
    )
    run("cmake", "-S", consumer, "-B", consumer / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", consumer / "build")
    output = run(consumer / "build" / "main")
    assert output == "a GPU\n" or output.startswith("error[E0511] no GPU: "), output
