"""The C++ core on a Jetson's kind of processor: built by a cross compiler, run in an emulator, with the same bits as here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import NO_CROSS

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "aarch64"  # kept: a second run is quick
HERE = Path(os.environ.get("IMKD_DIGEST", ROOT / "build" / "tests" / "tests" / "cpp" / "digest"))
QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
CORES = str(len(os.sched_getaffinity(0)))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def run(*command: str | Path) -> str:
    environment = {"CMAKE_BUILD_PARALLEL_LEVEL": CORES, "CTEST_PARALLEL_LEVEL": CORES, **os.environ}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}"
    return done.stdout


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
    # A thousand frames take an emulator minutes, and what allocates does not depend on the processor.
    said = run("ctest", "--test-dir", build, "--output-on-failure", "-E", "a_thousand_frames")
    assert "100% tests passed" in said and "No tests were found" not in said
    assert "Install.find_package" in said  # which builds the example as a stranger would, and runs it


def test_every_op_gives_the_bits_that_it_gives_here(build: Path) -> None:
    if not HERE.is_file():
        pytest.skip("the digest of this machine was not built (make test does it): the bits are NOT compared")
    here = run(HERE).splitlines()
    assert len(here) == len({line.split()[1] for line in here}) >= 13
    assert run(str(QEMU), "-L", "/usr/aarch64-linux-gnu", build / "tests" / "cpp" / "digest").splitlines() == here
